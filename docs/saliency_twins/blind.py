#!/usr/bin/env python
"""Copies a style and blinds its saliency network: the start of a training without saliency.

    python docs/saliency_twins/blind.py --style vangogh --photos DIR --output DIR [--share 0]

The networks keep their layers. S finds nothing: its map is one value everywhere, so the mask of Eq. 4 is 1, L_con_s is
0, and painting coarse to fine treats all places alike. G's saliency features are replaced by their means over 200
photos, which are added to its biases, so that it starts from what it can do.
"""

from __future__ import annotations

import argparse
import math
import shutil
from pathlib import Path

import torch
from torch import nn

from sdpgan_hub import SDPGAN, filters
from training.data import pictures
from training.data.sources import image_files


@torch.no_grad()
def blind(model: SDPGAN, photos: list[Path], share: float | None) -> float:
    """Blinds `model`; the value of its map, 0 to 1, is `share`, by default that of its maps' mean over `photos`."""
    saliency_network, generator = model.saliency_network, model.generator
    size = model.config["saliency_size"]
    maps, levels = [], [[], [], []]
    for path in photos:
        photo = torch.from_numpy(pictures.read(path)).permute(2, 0, 1)[None].float() / 127.5 - 1
        map_, features = saliency_network(filters.resized(photo, size, size))
        maps.append((map_.mean() + 1) / 2)
        for level, feature in zip(levels, features, strict=True):
            level.append(feature.mean((0, 2, 3)))
    share = torch.stack(maps).mean().item() if share is None else share
    for parameter in saliency_network.parameters():
        parameter.zero_()
    saliency_network.output[0].bias.fill_(math.atanh(2 * share - 1) if share else -9.0)
    for layer, level in zip((generator.down2, generator.down3, generator.join), levels, strict=True):
        convolution = next(module for module in layer.modules() if isinstance(module, nn.Conv2d))
        mean = torch.stack(level).mean(0)
        convolution.bias.add_(convolution.weight[:, -len(mean) :].sum((2, 3)) @ mean)
    return share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--style", required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--share", type=float, help="of the map, 0 to 1 (default: the mean of S's maps)")
    options = parser.parse_args()
    model = SDPGAN.from_pretrained(options.style)
    paths = image_files(options.photos)
    share = blind(model, paths[:: max(1, len(paths) // 200)], options.share)
    model.save_pretrained(options.output)
    kept = model.source.beside("discriminator.safetensors")
    if kept is not None:
        shutil.copy(kept, options.output)
    print(f"{options.output}: a map of {share:.3f} everywhere")


if __name__ == "__main__":
    main()
