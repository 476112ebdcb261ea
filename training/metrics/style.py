"""Style: how far a set of images is from a set of paintings, FID, KID and IS, through torch-fidelity.

FID (Heusel et al., NeurIPS 2017) grows as the sets shrink, so it compares sets of equal counts only; KID (Binkowski et
al., ICLR 2018) is unbiased and the one to trust below 2,000 images: sets of one distribution give about 0, and below it
as often as above. Both with the 2048-d layer of the Inception network unless another layer is named with the figure.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.utils import create_feature_extractor
from tqdm.auto import tqdm

from sdpgan_hub.errors import SDPGANError, one_line

from ..data.pictures import centre_square, read_scaled

EXTRACTOR = "inception-v3-compat"
LAYERS = ("64", "192", "768", "2048")
FULL_LAYER = "2048"
LOGITS = "logits_unbiased"
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
MIN_SAMPLES = 4
RESIZE = "short side {size} px, centre square, 299 px by TF1 bilinear"
"""Area-averaged when it shrinks, cubic when it grows; the last step is torch-fidelity's."""


class InceptionFeatures:
    """Features of image files: `features(paths)` gives {layer: N x C, float64}.

    Args:
        weights: a state dict for torch-fidelity's FID network; None downloads torch-fidelity's own.
        layer: one of `LAYERS`; with `FULL_LAYER` the logits for the Inception score come too.
        device: where the network runs.
        size: side in pixels of the square that it is shown, see `RESIZE`.

    Raises:
        SDPGANError: the weights cannot be had, or are not such a state dict, or hold anything but tensors.
    """

    def __init__(self, weights: Path | None, layer: str, device: torch.device, size: int = 256):
        self.layer, self.size, self.device = layer, size, device
        self.network = load_network(weights, [layer, LOGITS] if layer == FULL_LAYER else [layer], device)

    @torch.inference_mode()
    def __call__(
        self, paths: Sequence[Path], batch_size: int = 8, workers: int = 0, description: str = "features"
    ) -> dict[str, Tensor]:
        batches: list[dict[str, Tensor]] = []
        for images in squares(paths, self.size, batch_size, workers, description):
            features = self.network.convert_features_tuple_to_dict(self.network(images.to(self.device)))
            batches.append({name: value.cpu().double() for name, value in features.items()})
        return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def load_network(weights: Path | None, layers: list[str], device: torch.device) -> FeatureExtractorBase:
    """torch-fidelity's FID network, giving the features of `layers`; weights and errors as for `InceptionFeatures`."""
    path = None
    if weights is not None:
        _check_is_plain(weights)
        path = str(weights)
    try:
        return create_feature_extractor(
            EXTRACTOR, layers, cuda=False, feature_extractor_weights_path=path, verbose=False
        ).to(device)
    except Exception as error:  # every kind of network failure, and of state dicts that do not fit
        reason = one_line(error)
        if weights is None:
            message = f"torch-fidelity could not download its Inception weights ({reason}); pass --inception FILE."
        else:
            message = f"{weights} is not a state dict of torch-fidelity's Inception network ({reason})."
        raise SDPGANError(message) from error


def squares(paths: Sequence[Path], size: int, batch_size: int, workers: int, description: str) -> Iterator[Tensor]:
    """Image files in batches, uint8 N x 3 x size x size: scaled to the shorter side, the middle square of it.

    With a progress bar called `description`.
    """
    loader = DataLoader(list(paths), batch_size, num_workers=workers, collate_fn=partial(_read_squares, size))
    with tqdm(total=len(paths), desc=description, unit="image", leave=False) as bar:
        for images in loader:
            yield images
            bar.update(len(images))


def _read_squares(size: int, paths: list[Path]) -> Tensor:
    squares = [torch.from_numpy(centre_square(read_scaled(path, size))) for path in paths]
    return torch.stack(squares).permute(0, 3, 1, 2).contiguous()


def distance(images: Tensor, paintings: Tensor, layer: str, seed: int = 0) -> dict[str, float | int]:
    """FID and KID between two N x C sets of features of `layer`, float64, with what they were made from.

    KID is the mean over `KID_SUBSETS` random subsets of half of the smaller set, `KID_SUBSET_SIZE` at most; the
    standard deviation is that of the subsets, not of the mean. A set holds at least `MIN_SAMPLES` images.
    """
    subset = min(KID_SUBSET_SIZE, len(images) // 2, len(paintings) // 2)
    statistics = [fid_features_to_statistics(features) for features in (images, paintings)]
    fid = fid_statistics_to_metric(*statistics, verbose=False)
    kid = kid_features_to_metric(
        images, paintings, kid_subsets=KID_SUBSETS, kid_subset_size=subset, rng_seed=seed, verbose=False
    )
    return {
        figure("FID", layer): fid["frechet_inception_distance"],
        figure("KID", layer): kid["kernel_inception_distance_mean"],
        f"{figure('KID', layer)} std": kid["kernel_inception_distance_std"],
        "images": len(images),
        "paintings": len(paintings),
        "KID subset size": subset,
    }


def inception_score(logits: Tensor, seed: int = 0) -> dict[str, float | int]:
    """IS (Salimans et al., NeurIPS 2016) from N x 1008 logits: over 10 splits, fewer where they would be under 10."""
    splits = max(1, min(10, len(logits) // 10))
    score = isc_features_to_metric(logits, splits, shuffle=True, rng_seed=seed)
    return {"IS": score["inception_score_mean"], "IS std": score["inception_score_std"], "IS splits": splits}


def halves(features: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A random half and the other one, of equal counts."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    half = len(features) // 2
    return features[order[:half]], features[order[half : 2 * half]]


def figure(name: str, layer: str) -> str:
    """FID or KID as it is called with features of `layer`: the plain name belongs to the 2048-d one."""
    return name if layer == FULL_LAYER else f"{name}-{layer}"


def _check_is_plain(weights: Path) -> None:
    """Refuses a file whose loading could run code; torch-fidelity itself would not."""
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise SDPGANError(f"{weights} is not a readable file of tensors ({type(error).__name__}).") from error
    if not isinstance(state, dict):
        raise SDPGANError(f"{weights} holds a {type(state).__name__}; a state dict is needed.")
