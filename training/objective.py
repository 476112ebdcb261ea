"""The objective of SDP-GAN (Li et al., IEEE TIP 2021, Sec. III-B), one function per equation.

    L(G, D, S) = L_GAN(G, D) + w_con L_con(G, D, S) + w_con_s L_con_s(G, D, S) + w_sali L_sali(S)             (Eq. 1)

is minimised over G and S and maximised over D (Eq. 2). Expectations are means over the batch, channels and pixels.
Eq. 2 trains G and S at once, so the losses of G also shape S's encoder through the concatenated features; two paths are
cut, because through them S could lower a loss by ceasing to detect: the mask of Eq. 4 is detached, and Eq. 6 updates G
alone (the caller evaluates S(G(x)) with frozen parameters).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sdpgan_hub.networks import luma

from .config import ADVERSARIAL_LOSSES

FLAT = 8 / 255
"""The standard deviation of the luma in [-1, 1] from which on a photo is not flat: 4 grey levels."""
GRID_WINDOW = 32
"""Side of the windows in which `grid_loss` looks for a pattern, in pixels."""


def discriminator_loss(painting: Tensor, edge_blurred: Tensor | None, generated: Tensor, kind: str = "bce") -> Tensor:
    """-L_GAN(G, D) of Eq. 3, what D minimises: -log D(y) - log(1 - D(c)) - log(1 - D(G(x))).

    Takes the logits of D, any shape each; `edge_blurred` is None where the edge-blurred set is left out. "bce" is
    Eq. 3 with D = sigmoid(logit); "least_squares" replaces each logarithm by the squared distance to 1 or 0.
    """
    loss = _towards(painting, 1.0, kind) + _towards(generated, 0.0, kind)
    return loss if edge_blurred is None else loss + _towards(edge_blurred, 0.0, kind)


def generator_loss(generated: Tensor, kind: str = "bce") -> Tensor:
    """G's part of Eq. 3 in its non-saturating form, -log D(G(x)) (Goodfellow et al., 2014, Sec. 3), from D's logits."""
    return _towards(generated, 1.0, kind)


def _towards(logits: Tensor, label: float, kind: str) -> Tensor:
    target = torch.full_like(logits, label)
    if kind == "bce":
        return F.binary_cross_entropy_with_logits(logits, target)
    if kind == "least_squares":
        return F.mse_loss(logits, target)
    raise ValueError(f"adversarial_loss is {kind!r}; choose one of {', '.join(ADVERSARIAL_LOSSES)}.")


def accuracy(logits: Tensor, painting: bool, kind: str = "bce") -> Tensor:
    """The share of patches that D takes for what they are: a painting where `painting`, else none; from its logits."""
    taken_for_painting = logits > {"bce": 0.0, "least_squares": 0.5}[kind]
    return (taken_for_painting == painting).float().mean()


def saliency_mask(saliency: Tensor, peak: float = 2.0) -> Tensor:
    """S'(x)_m of Eq. 4: the map scaled to 0..`peak` per image, values below 1 raised to 1; N x 1 x H x W, detached.

    The paper's peak is 2. A higher one weighs what people look at more, and reaches further down the map.

    A map without any contrast has no salient region: its mask is 1 everywhere. Any range will do: where there is no
    saliency network (Fig. 9 (c)) it is the mask of the reference z.
    """
    saliency = saliency.detach().float()
    lowest, highest = saliency.amin((1, 2, 3), keepdim=True), saliency.amax((1, 2, 3), keepdim=True)
    scaled = peak * (saliency - lowest) / (highest - lowest).clamp_min(1e-6)
    return scaled.clamp_min(1)


def content_loss(stylized_features: Tensor, photo_features: Tensor, mask: Tensor | None = None) -> Tensor:
    """L_con of Eq. 5: || S''(x)_m VGG(G(x)) - S''(x)_m VGG(x) ||_1, the mean over all features.

    Features are N x C x h x w. `mask` is `saliency_mask` at any resolution, N x 1 x H x W, averaged down to h x w;
    None leaves it out (the ablation of Fig. 9 (d)).
    """
    difference = (stylized_features.float() - photo_features.float()).abs()
    if mask is not None:
        difference = difference * F.interpolate(mask, size=difference.shape[-2:], mode="area")
    return difference.mean()


def saliency_content_loss(photo_saliency: Tensor, stylized_saliency: Tensor) -> Tensor:
    """L_con_s of Eq. 6: || S(x) - S(G(x)) ||_1, with S(x) as a constant; maps N x 1 x H x W in [-1, 1]."""
    return F.l1_loss(stylized_saliency.float(), photo_saliency.detach().float())


def saliency_loss(saliency: Tensor, reference: Tensor) -> Tensor:
    """L_sali of Eq. 7: || S(x) - z ||_1. `saliency` is N x 1 x H x W in [-1, 1], the reference z in [0, 1]."""
    return F.l1_loss(saliency.float(), reference * 2 - 1)


def texture_loss(stylized: list[Tensor], paintings: list[Tensor]) -> Tensor:
    """How far the textures of G(x) are from the paintings', beyond the paper: a style loss (Gatys et al., CVPR 2016).

    Takes the Gram matrices of `PerceptualFeatures.with_textures`: those of a batch, N x C x C, and their means over the
    paintings, C x C. || A - B ||_F^2 / || B ||_F^2 with A the mean over the batch, and the mean over the layers: the
    paintings' mean is asked of the batch and not of every image in it, so that a sky may be calmer than a tree.
    """
    terms = [((a.mean(0) - b) ** 2).sum() / (b**2).sum() for a, b in zip(stylized, paintings, strict=True)]
    return torch.stack(terms).mean()


def colour_grain_loss(stylized: Tensor, photo: Tensor) -> Tensor:
    """How far the fine colour differences of G(x) are from those of x, beyond the paper: its strokes may have any
    colour, its single pixels not.

    N x 3 x H x W in [-1, 1]. The mean absolute difference of what is left of Cb and Cr (ITU-R BT.601) without their
    means over 5 x 5 px. Neither photos nor paintings have such grain, and the Gram matrices of `texture_loss` breed it.
    """
    return F.l1_loss(_fine_colour(stylized.float()), _fine_colour(photo.float()))


def _fine_colour(image: Tensor) -> Tensor:
    red, _, blue = image.split(1, dim=1)
    grey = luma(image)
    return _fine(torch.cat([(blue - grey) / 1.772, (red - grey) / 1.402], dim=1))


def flat_grain_loss(stylized: Tensor, photo: Tensor) -> Tensor:
    """How far the fine structure of G(x) is from that of x where x is flat, beyond the paper.

    N x 3 x H x W in [-1, 1]. The mean absolute difference of what is left of the luma (BT.601) without its means over
    5 x 5 px, each pixel weighted by 1 - d / `FLAT`, at least 0, with d the standard deviation of the luma of x over the
    same 5 x 5 px. G has no noise to draw from: out of a plain sky it can make no strokes, only a weave.
    """
    there = luma(photo.float())
    mean = _mean(there)
    deviation = (_mean(there * there) - mean * mean).clamp_min(0).sqrt()
    difference = (_fine(luma(stylized.float())) - (there - mean)).abs()
    return ((1 - deviation / FLAT).clamp_min(0) * difference).mean()


def grid_loss(stylized: Tensor, photo: Tensor) -> Tensor:
    """How far patterns of 2 and 4 px that are locked to the pixel grid are from those of x, beyond the paper.

    N x 3 x H x W in [-1, 1]; H and W are at least `GRID_WINDOW`. A filter takes out what does not change within 4 px;
    the mean of the rest over the pixels of a window that share their row and their column modulo 4, one for each of the
    16, is 0 for strokes, which lie anywhere, and not for the grids that up-sampling by 2 and 2 leaves. The mean
    absolute difference of these means over the windows of 32 x 32 px.
    """
    return F.l1_loss(_grid(stylized.float()), _grid(photo.float()))


def _grid(image: Tensor) -> Tensor:
    taps = torch.tensor([1.0, 2.0, 2.0, 2.0, 1.0], device=image.device) / 8
    kernel = (taps[:, None] * taps).expand(image.shape[1], 1, 5, 5)
    local = F.conv2d(F.pad(image, (2, 2, 2, 2), mode="reflect"), kernel, groups=image.shape[1])
    return F.avg_pool2d(F.pixel_unshuffle(image - local, 4), GRID_WINDOW // 4)


def _mean(image: Tensor) -> Tensor:
    return F.avg_pool2d(image, 5, stride=1, padding=2, count_include_pad=False)


def _fine(image: Tensor) -> Tensor:
    return image - _mean(image)


def content_weight(w_con: float, epoch: int, decay: float = 0.96, decay_epochs: int = 10) -> float:
    """w_con of Eq. 9 at an adversarial epoch, counted from 0: w_con * decay^floor(epoch / decay_epochs)."""
    return w_con * decay ** math.floor(epoch / decay_epochs)
