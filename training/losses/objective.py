"""The objective of SDP-GAN (Li et al., IEEE TIP 2021, Sec. III-B), one function per equation.

    L(G, D, S) = L_GAN(G, D) + w_con L_con(G, D, S) + w_con_s L_con_s(G, D, S) + w_sali L_sali(S)             (Eq. 1)

and, beyond Eq. 1, w_identity times the identity loss, is minimised over G and S and maximised over D (Eq. 2).
Expectations are means over the batch, channels and pixels.

Eq. 2 trains G and S at once, so the losses of G also shape S's encoder through the concatenated features; two paths are
cut, because through them S could lower a loss by ceasing to detect: the mask of Eq. 4 is detached, and Eq. 6 updates G
alone (the caller evaluates S(G(x)) with frozen parameters).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from sdpgan_hub.filters import luma

PENALTIES = {
    "bce": F.softplus,
    "least_squares": lambda logits: (1 + logits).square(),
    "hinge": lambda logits: F.relu(1 + logits),
}
"""What D pays for a logit of an image that is no painting; for the negative logit of a painting it pays the same."""
SHIFT_MARGIN = 16
"""Pixels at the border where a photo and its shifted copy see different things."""


def discriminator_loss(painting: Tensor, edge_blurred: Tensor | None, generated: Tensor, kind: str = "bce") -> Tensor:
    """-L_GAN(G, D) of Eq. 3, what D minimises: -log D(y) - log(1 - D(c)) - log(1 - D(G(x))).

    Takes the logits of D, any shape each; `edge_blurred` is None where the edge-blurred set is left out. "bce" is
    Eq. 3 with D = sigmoid(logit). "least_squares" is the squared distance to 1 for paintings and to -1 for the others
    (Mao et al., ICCV 2017). "hinge" asks for logits of at least 1 for paintings and at most -1 for the others
    (Lim and Ye, 2017), and takes the mean over the two kinds of others: with their sum, a D that says -1 to everything
    has a minimum and no way out of it.
    """
    fakes = [PENALTIES[kind](logits).mean() for logits in (generated, edge_blurred) if logits is not None]
    return _real(painting, kind) + sum(fakes) / (len(fakes) if kind == "hinge" else 1)


def constant_discriminator_loss(fakes: int, kind: str = "bce") -> float:
    """The least `discriminator_loss` of a D that gives one logit for everything: what a D scores that never learnt.

    fakes: how many sets D has to reject, 1 or 2 (with the edge-blurred one).
    """
    if kind == "bce":
        return math.log(1 + fakes) + fakes * math.log((1 + fakes) / fakes)
    return {"least_squares": 4 * fakes / (1 + fakes), "hinge": 2.0}[kind]


def generator_loss(generated: Tensor, kind: str = "bce") -> Tensor:
    """G's part of Eq. 3 in its non-saturating form, -log D(G(x)) (Goodfellow et al., 2014, Sec. 3), from D's logits.

    With "hinge" it is the mean of -D(G(x)).
    """
    return -generated.mean() if kind == "hinge" else _real(generated, kind)


def _real(logits: Tensor, kind: str) -> Tensor:
    return PENALTIES[kind](-logits).mean()


def accuracy(logits: Tensor, painting: bool) -> Tensor:
    """The share of patches that D takes for what they are: a painting where `painting`, else none; from its logits."""
    return ((logits > 0) == painting).float().mean()


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

    Features are N x C x h x w. `mask` is `saliency_mask`, N x 1 x H x W, of at least that size, averaged down to h x w;
    None leaves it out (the ablation of Fig. 9 (d)).
    """
    difference = (stylized_features.float() - photo_features.float()).abs()
    if mask is not None:
        height, width = difference.shape[-2:]
        mask = F.avg_pool2d(mask, (mask.shape[-2] // height, mask.shape[-1] // width))[..., :height, :width]
        difference = difference * mask
    return difference.mean()


def saliency_content_loss(photo_saliency: Tensor, stylized_saliency: Tensor) -> Tensor:
    """L_con_s of Eq. 6: || S(x) - S(G(x)) ||_1, with S(x) as a constant; maps N x 1 x H x W in [-1, 1]."""
    return F.l1_loss(stylized_saliency.float(), photo_saliency.detach().float())


def saliency_loss(saliency: Tensor, reference: Tensor) -> Tensor:
    """L_sali of Eq. 7: || S(x) - z ||_1. `saliency` is N x 1 x H x W in [-1, 1], the reference z in [0, 1]."""
    return F.l1_loss(saliency.float(), reference * 2 - 1)


def identity_loss(repainted: Tensor, painting: Tensor) -> Tensor:
    """|| G(y) - y ||_1: a painting stays as it is, which keeps G's colours (CycleGAN, Sec. 5.2); N x 3 x H x W."""
    return F.l1_loss(repainted.float(), painting.float())


def shift_loss(painting: Tensor, shifted: Tensor, rows: int, columns: int) -> Tensor:
    """Mean change of a painting, N x 3 x H x W, where its photo starts `rows` and `columns` px further: `shifted`.

    What lies within `SHIFT_MARGIN` px of a border is left out: there the two see different things.
    """
    height, width = painting.shape[-2:]
    inner = slice(SHIFT_MARGIN, height - SHIFT_MARGIN - rows), slice(SHIFT_MARGIN, width - SHIFT_MARGIN - columns)
    moved = painting[:, :, rows:, columns:]
    return F.l1_loss(shifted[:, :, inner[0], inner[1]].float(), moved[:, :, inner[0], inner[1]].float())


def distillation_loss(painting: Tensor, taught: Tensor, lines: Tensor | None = None) -> Tensor:
    """|| G(x) - T(x) ||_1: G learns what a trained style paints of the same input.

    With lines: mean((1 + 2 lines) (d + 10 d^2)), d = | G(x) - T(x) |. Lines are few pixels far off, which a squared
    error finds. G does not know their places to the pixel, so that without the weight it paints them faintly.

    Args:
        painting: G(x), N x 3 x H x W.
        taught: T(x), of the same shape.
        lines: how much of a pixel is a line, N x 1 x H x W in [0, 1].
    """
    distance = (painting.float() - taught.float()).abs()
    if lines is None:
        return distance.mean()
    return ((1 + 2 * lines) * (distance + 10 * distance.square())).mean()


def feature_distance(features: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """The perceptual distance (Johnson et al., ECCV 2016), sum_l mean | f_l - w_l | / mean | w_l | over layers l.

    features, wanted: of one layer each, N x C x h x w.
    """
    pairs = zip(features, wanted, strict=True)
    return sum((f.float() - w.float()).abs().mean() / w.float().abs().mean() for f, w in pairs)


def with_chroma(image: Tensor, share: float | Tensor) -> Tensor:
    """N x 3 x H x W in [-1, 1] with `share`, a number or N x 1 x H x W, of its colour differences from its luma."""
    return luma(image) + share * (image - luma(image))


def content_weight(w_con: float, epoch: int, decay: float = 0.96, decay_epochs: int = 10) -> float:
    """w_con of Eq. 9 at an adversarial epoch, counted from 0: w_con * decay^floor(epoch / decay_epochs)."""
    return w_con * decay ** math.floor(epoch / decay_epochs)
