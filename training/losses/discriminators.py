"""D as a training builds it: the paper's on pixels alone, or together with heads on frozen VGG features.

The paper's D starts from pixels and needs 200 epochs. Heads on the features of a pretrained network, of which L_con
computes the most expensive ones anyway, know a stroke from the first step on (Sauer et al., "Projected GANs Converge
Faster", NeurIPS 2021). They see the weave of a generator badly, so the paper's D stays beside them. They judge each
image at its own size and at half of it: there a fine texture is gone and only broad strokes count.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from sdpgan_hub.networks import Discriminator

from .perceptual import PerceptualFeatures

HEAD_CHANNELS = (32, 64, 64, 64)
VGG_CHANNELS = (64, 128, 256, 512)
SCALES = 2
"""The image at its own size and at half of it."""


def pyramids(vgg: PerceptualFeatures, image: Tensor) -> list[Tensor]:
    """The features that the heads judge: `vgg.pyramid` of N x 3 x H x W, then of its half, 2 x 2 pixels averaged."""
    features = []
    for scale in range(SCALES):
        features += vgg.pyramid(F.avg_pool2d(image, 2) if scale else image)
    return features


class Head(nn.Module):
    """k1, k3 and k3 convolutions with spectral norm on one layer's features, N x C x h x w, to logits N x 1 x h x w.

    Each channel is divided first by its root mean square over photos and paintings, `scale`.
    """

    def __init__(self, inputs: int, channels: int):
        super().__init__()
        self.register_buffer("scale", torch.ones(inputs))
        self.layers = nn.Sequential(
            spectral_norm(nn.Conv2d(inputs, channels, 1)),
            nn.LeakyReLU(0.2, inplace=True),
            spectral_norm(nn.Conv2d(channels, channels, 3, padding=1)),
            nn.LeakyReLU(0.2, inplace=True),
            spectral_norm(nn.Conv2d(channels, 1, 3, padding=1)),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features / self.scale.view(1, -1, 1, 1))


class ProjectedDiscriminator(nn.Module):
    """The paper's D on images, with spectral norm, and a `Head` on each layer of `pyramids`."""

    def __init__(self, base_channels: int = 32):
        super().__init__()
        self.pixels = Discriminator(base_channels, spectral=True)
        channels = [*zip(VGG_CHANNELS, HEAD_CHANNELS, strict=True)] * SCALES
        self.heads = nn.ModuleList(Head(*of_layer) for of_layer in channels)

    def forward(self, image: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Images, N x 3 x H x W in [-1, 1], and the features of M of them: logits of the pixels and of each head."""
        return self.pixels(image), [head(one) for head, one in zip(self.heads, features, strict=True)]

    @torch.no_grad()
    def calibrate(self, pyramids: Sequence[Sequence[Tensor]]) -> None:
        """Sets each head's `scale` from the features of some photos and paintings."""
        for head, layers in zip(self.heads, zip(*pyramids, strict=True), strict=True):
            square = torch.stack([layer.float().square().mean((0, 2, 3)) for layer in layers]).mean(0)
            head.scale.copy_(square.sqrt().clamp_min(1e-3))


class PatchDiscriminator(Discriminator):
    """The paper's D alone, with the call of `ProjectedDiscriminator`."""

    def forward(self, image: Tensor, features: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor]]:
        return super().forward(image), []


def build(kind: str, base_channels: int) -> PatchDiscriminator | ProjectedDiscriminator:
    """kind: "patch" (the paper) or "projected"."""
    return {"patch": PatchDiscriminator, "projected": ProjectedDiscriminator}[kind](base_channels)
