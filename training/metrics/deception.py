"""Deception rate: the share of results that a classifier of photos and painters takes for the painter.

Sanakoyeu et al., "A Style-Aware Content Loss for Real-time HD Style Transfer" (ECCV 2018), Sec. 5.1, train a VGG-16 on
the works of 624 artists. Here the classes are the painters at hand and "photo", and the classifier is a logistic
regression on the mean and the standard deviation, over an image, of each channel of two layers of the FID network, at
1/8 (192 channels) and at 1/16 (768) of the resolution: what is drawn how often, not where. That network is not VGG:
training judges a painting by VGG features (`losses.perceptual`, `losses.discriminators`), so a classifier of those
would be a judge that the painter has practised on. The rate is worth what the classifier is; its `held_back_accuracy`
belongs beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.files import opened

from ..data.sources import image_files, spread
from .style import load_network, squares

PHOTO = "photo"
"""The class of those that no one painted."""
MIN_SIZE = 75
"""Shorter side in pixels below which the FID network has no map left."""
MIN_IMAGES = 5
"""Of a class, to learn it and to hold one back."""
LIMIT = 400
"""Images of a class that are looked at, at even distances in its folders."""
HELD_BACK = 0.2
"""The share of each class held back where no folder is given for that."""
REGULARIZATION = 0.01
"""scikit-learn's C: there are more features (1,920) than images of most painters."""

Folders = Path | Sequence[Path]


class MapStatistics:
    """What an image is recognised by: `statistics(files)` gives N x 1,920, float64.

    Args:
        inception: the weights of the FID network, as for `style.InceptionFeatures`; None downloads them.
        size: side in pixels of the square in the middle of an image that is looked at, after the image was scaled to
            that shorter side in its own proportions: one scaling for photos, paintings and results, and none after it
            (FID itself stretches to 299 px, which blurs strokes).
        device: where the network runs.

    Raises:
        SDPGANError: as `style.InceptionFeatures`, or the size is below `MIN_SIZE`.
    """

    def __init__(self, inception: Path | None, size: int = 256, device: str | torch.device = "cpu"):
        if size < MIN_SIZE:
            raise SDPGANError(f"The classifier looks at images of {size} px; it needs at least {MIN_SIZE}.")
        layers = list(load_network(inception, ["768"], torch.device(device)).children())
        self.parts = nn.Sequential(*layers[:7]), nn.Sequential(*layers[7:15])  # to MaxPool_2, and on to Mixed_6e
        self.size, self.device = size, torch.device(device)

    @torch.inference_mode()
    def __call__(
        self, files: Sequence[Path], batch_size: int = 8, workers: int = 0, description: str = "statistics"
    ) -> np.ndarray:
        batches = squares(files, self.size, batch_size, workers, description)
        return np.concatenate([self._statistics(images.to(self.device)).numpy() for images in batches])

    def _statistics(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 N x 3 x size x size to N x 1,920: means and deviations at 1/8, then at 1/16."""
        x, found = (images.float() - 128) / 128, []
        for part in self.parts:
            x = part(x)
            maps = x.flatten(2).cpu().double()  # Apple GPUs lack float64
            found += [maps.mean(2), maps.std(2, correction=0)]
        return torch.cat(found, 1)


class Classifier:
    """A classifier of photos and painters, learnt from folders of images; the same folders give the same classifier.

    Each class weighs the same, however many images it has.

    Args:
        painters: name -> the folder, or folders, of a painter's works.
        photos: the folder, or folders, of photos. None of them may be what is painted and measured afterwards.
        inception: as for `MapStatistics`.
        size: shorter side in pixels to which every image is scaled, that of the results to be judged included. No
            larger than the images: enlarged ones are recognised by their blur. `enlarged` says of how many that holds.
        held_back: name, or "photo", -> folders to measure the accuracy on; a class that it leaves out has a random
            `HELD_BACK` of its own images held back.
        limit: at most this many images of a class, and of a held-back one.
        device, batch_size, workers: where and how the network runs; they change the time only.
        seed: of the random choice of held-back images.

    Raises:
        SDPGANError: a folder has too few images or cannot be read, a painter is named "photo", or weights do not fit.

    Attributes:
        classes: the names, "photo" first, then the painters' in their order.
        held_back_accuracy: the mean over classes of the share of held-back images that are recognised.
        held_back: class -> {"images", "recognised"}: how many were held back, and the share that is recognised.
        images: class -> how many it was learnt from.
        enlarged: class -> how many images of it, held-back ones included, are smaller than `size`.
    """

    def __init__(
        self,
        painters: Mapping[str, Folders],
        photos: Folders,
        inception: Path | None = None,
        size: int = 256,
        *,
        held_back: Mapping[str, Folders] | None = None,
        limit: int = LIMIT,
        device: str | torch.device = "cpu",
        batch_size: int = 8,
        workers: int = 0,
        seed: int = 0,
    ):
        held_back = dict(held_back or {})
        if not painters or PHOTO in painters or not set(held_back) <= {PHOTO, *painters}:
            raise SDPGANError(
                f'Name at least one painter, none of them "{PHOTO}", and hold back images of those named alone.'
            )
        self.statistics = MapStatistics(inception, size, device)
        self.classes = [PHOTO, *painters]
        self._reading = {"batch_size": batch_size, "workers": workers}
        learnt, kept = {}, {}
        for name, folders in {PHOTO: photos, **painters}.items():
            files = _images(name, folders, limit)
            if name in held_back:
                learnt[name], kept[name] = files, _images(name, held_back[name], limit)
            else:
                learnt[name], kept[name] = train_test_split(files, test_size=HELD_BACK, random_state=seed)
        seen = {file.resolve() for of_class in learnt.values() for file in of_class}
        both = [file for of_class in kept.values() for file in of_class if file.resolve() in seen]
        if both:
            raise SDPGANError(f"The classifier would learn from {both[0]}, which is held back; name other folders.")
        self.images = {name: len(files) for name, files in learnt.items()}
        self.enlarged = {name: sum(_shorter_side(file) < size for file in learnt[name] + kept[name]) for name in learnt}
        features = [self.statistics(files, description=name, **self._reading) for name, files in learnt.items()]
        labels = np.repeat(list(learnt), [len(files) for files in learnt.values()])
        self.model = make_pipeline(
            StandardScaler(), LogisticRegression(C=REGULARIZATION, class_weight="balanced", max_iter=1000)
        ).fit(np.concatenate(features), labels)
        found = {name: self.recognise(files, f"held back, {name}") for name, files in kept.items()}
        self.held_back = {
            name: {"images": len(names), "recognised": names.count(name) / len(names)} for name, names in found.items()
        }
        self.held_back_accuracy = float(np.mean([one["recognised"] for one in self.held_back.values()]))

    def recognise(self, files: Sequence[Path], description: str = "classifier") -> list[str]:
        """The class that each image file is taken for.

        Raises:
            SDPGANError: a file cannot be read.
        """
        return self.model.predict(self.statistics(files, description=description, **self._reading)).tolist()

    def rate(self, files: Sequence[Path], painter: str) -> dict[str, Any]:
        """The deception rate of image files that are meant to look like a painter's.

        Returns:
            "rate": the share taken for `painter`; "taken_for_photo": the share taken for a photo; "per_class": every
            class's share; "images": their number.

        Raises:
            SDPGANError: as `recognise`.
        """
        names = self.recognise(files)
        shares = {name: names.count(name) / len(names) for name in self.classes}
        return {"rate": shares[painter], "taken_for_photo": shares[PHOTO], "per_class": shares, "images": len(names)}


def _shorter_side(file: Path) -> int:
    with opened(file) as image:
        return min(image.size)


def files(folders: Folders) -> list[Path]:
    """The image files of a folder, or of several in turn; SDPGANError where one holds none."""
    folders = [folders] if isinstance(folders, (str, Path)) else folders
    return [file for folder in folders for file in image_files(folder)]


def _images(name: str, folders: Folders, limit: int) -> list[Path]:
    """`limit` images of the folders at even distances, the same share of each; each image once."""
    found = list({file.resolve(): file for file in files(folders)}.values())
    if len(found) < MIN_IMAGES:
        raise SDPGANError(f"{name} has {len(found)} images; the classifier needs at least {MIN_IMAGES} of each.")
    return spread(found, limit)
