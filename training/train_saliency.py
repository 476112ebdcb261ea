#!/usr/bin/env python
"""Trains the saliency network S alone (Eq. 7), once, before the styles: photos and masks in, first weights out.

    python training/train_saliency.py --photos DIR... --masks DIR... --output DIR

The n-th folder of --masks belongs to the n-th of --photos. A photo without a mask takes the saliency reference, the
mean of RBD and MB+ (training/prepare.py makes it). S sees whole photos as square copies of `SALIENCY_SIZE` px, as it
does when it paints. OUTPUT is a folder that `train.py --initial_style` takes: S as trained, G with random weights.

Eq. 7 alone, an L1 loss, has a comfortable minimum at the empty map, since most pixels are background. So binary
cross-entropy on the logits is added.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

if not __package__:  # run as a file: the repository's root is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from sdpgan_hub import SDPGAN
from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.files import read_rgb
from training.data import cache as caches
from training.data.sources import image_files, open_source
from training.losses.objective import saliency_loss
from training.losses.perceptual import memory_format
from training.run.config import TrainingConfig, read_config
from training.run.schedule import update_average

MARGIN = 1.25
"""Copies are kept this much larger than S sees them, so that zooming in costs no sharpness."""
LEAST_ZOOM = 0.65
"""A training copy shows at least this share of the photo's height and width."""
W_CROSS_ENTROPY = 2.0
LEAST_STEPS = 40
"""The learning rate rises in the first twentieth of the steps, which must be more than one."""


def load(photos: list[Path], masks: list[Path], cache: Path, size: int) -> tuple[Tensor, Tensor]:
    """uint8 copies N x 3 x size x size and their targets N x 1 x size x size, 255 where people look."""
    sources = [open_source(folder) for folder in photos]  # refused here, not after hours of the references before
    for folder in masks:
        image_files(folder)
    images, targets = [], []
    for number, source in enumerate(sources):
        own_cache = cache / str(number)
        caches.prepare(source, None, own_cache, masks=masks[number] if number < len(masks) else None)
        for path in source.files(own_cache):
            target = caches.result_path(own_cache, caches.SALIENCY, source, path)
            if target.exists():
                grey = cv2.imread(str(target), cv2.IMREAD_GRAYSCALE)
                targets.append(cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA))
                images.append(cv2.resize(read_rgb(path), (size, size), interpolation=cv2.INTER_AREA))
    if not images:
        raise SDPGANError(f"{', '.join(map(str, photos))} hold no photo that can be read.")
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.from_numpy(np.stack(targets))[:, None]


def augmented(images: Tensor, targets: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A zoom into each copy, mirrored half of the time, in other colours: [-1, 1] and [0, 1], size x size."""
    count = len(images)
    zoom = LEAST_ZOOM + (1 - LEAST_ZOOM) * torch.rand(count, 2, generator=generator).sqrt()
    shift = (1 - zoom) * (2 * torch.rand(count, 2, generator=generator) - 1)
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = zoom[:, 0] * mirror, zoom[:, 1], shift
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    both = torch.cat([images, targets], dim=1).float() / 255
    both = F.grid_sample(both, grid, mode="bilinear", padding_mode="border", align_corners=False)
    photo, target = both[:, :3], both[:, 3:]

    def factor(spread: float) -> Tensor:
        return 1 + spread * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1)

    grey = photo.mean(1, keepdim=True)
    saturation = factor(0.5) * (torch.rand(count, 1, 1, 1, generator=generator) > 0.1)
    photo = (grey + saturation * (photo - grey)) * factor(0.4)
    mean = photo.mean((1, 2, 3), keepdim=True)
    photo = mean + factor(0.4) * (photo - mean)
    photo = photo * (1 + 0.15 * (2 * torch.rand(count, 3, 1, 1, generator=generator) - 1))
    return photo.clamp(0, 1) * 2 - 1, target


def loss(logits: Tensor, target: Tensor) -> Tensor:
    """Eq. 7 and, weighted, binary cross-entropy; S's map in [0, 1] is the sigmoid of twice the logits before tanh."""
    cross_entropy = F.binary_cross_entropy_with_logits(2 * logits, target)
    return saliency_loss(logits.tanh(), target) + W_CROSS_ENTROPY * cross_entropy


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="train_saliency.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--photos", type=Path, nargs="+", metavar="DIR", required=True)
    parser.add_argument("--masks", type=Path, nargs="*", metavar="DIR", default=[], help="in the order of --photos")
    parser.add_argument("--output", type=Path, metavar="DIR", required=True)
    parser.add_argument("--initial_style", metavar="NAME|FOLDER", help="start from the S of this style")
    parser.add_argument("--config", type=Path, help="a style's settings, whose networks are built")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="falls to 0 along a cosine")
    parser.add_argument("--ema_decay", type=float, default=0.995)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    try:
        train(options, read_config(options.config))
    except SDPGANError as error:
        print(f"train_saliency.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train_saliency.py: stopped; OUTPUT holds what was saved last.", file=sys.stderr)
        return 130
    return 0


def train(options: argparse.Namespace, config: TrainingConfig) -> None:
    if options.steps < LEAST_STEPS:
        raise SDPGANError(f"--steps is {options.steps}; it must be at least {LEAST_STEPS}.")
    if len(options.masks) > len(options.photos):
        raise SDPGANError(f"--masks names {len(options.masks)} folders, --photos {len(options.photos)}; name as many.")
    if not config.saliency_network:
        raise SDPGANError(f"{options.config} has no saliency network; train with saliency_network true.")
    torch.manual_seed(options.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = SDPGAN(**config.network).train().to(device, memory_format=memory_format(device))
    if options.initial_style is not None:
        first = SDPGAN.from_pretrained(options.initial_style).saliency_network
        try:
            model.saliency_network.load_state_dict({} if first is None else first.state_dict())
        except RuntimeError as error:
            raise SDPGANError(
                f"The saliency network of {options.initial_style} has other layers than the config's; name the config "
                "of that style with --config."
            ) from error
    network, size = model.saliency_network, config.saliency_size or config.image_size
    images, targets = load(options.photos, options.masks, options.output / "cache", round(MARGIN * size))
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), options.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, options.steps, pct_start=0.05, cycle_momentum=False
    )
    generator = torch.Generator().manual_seed(options.seed)
    bar, recent, saved = tqdm(range(options.steps), unit="step"), 0.0, time.monotonic()
    for step in bar:
        chosen = torch.randint(len(images), (options.batch_size,), generator=generator)
        photo, target = augmented(images[chosen], targets[chosen], size, generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            logits = network.logits(network.encode(photo.to(device, memory_format=memory_format(device))))
        value = loss(logits.float(), target.to(device))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        update_average(average, network, step, options.ema_decay)
        recent += (value.item() - recent) / min(100, step + 1)
        bar.set_postfix(loss=f"{recent:.3f}", refresh=False)
        if time.monotonic() - saved > 180 or step + 1 == options.steps:
            current, model.saliency_network = model.saliency_network, average
            model.save_pretrained(options.output)
            model.saliency_network, saved = current, time.monotonic()


if __name__ == "__main__":
    cv2.setNumThreads(1)
    sys.exit(main())
