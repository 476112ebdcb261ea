"""What a style is taught beside its own paintings: colours and lights of the photo, flat areas and ink lines.

Each function changes a painting of the photo x before G learns it by `objective.distillation_loss`. Images are RGB in
[-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sdpgan_hub.filters import blurred, luma

STRONG_COLOR = (0.4, 0.9)
"""Distance of a colour from its luma, in the scale of [-1, 1], from which it is taken over in part, and fully."""
WEAK_COLOR = (0.1, 0.4)
"""The same where chroma alone is taken over."""
BRIGHT = (0.5, 0.95)
"""Lumas, in [-1, 1], from which one is taken over in part, and fully."""
DARK = (-0.45, 0.2)
"""Lumas, in [-1, 1], up to which a painting counts as dark, and from which on not."""
DARK_CHROMA = 1.5
"""What the chroma of the photo is multiplied with where a painting is dark: dark colours are pale in photos."""
GREY = (0.2, 0.45)
"""Distance of a colour from its luma, in the scale of [-1, 1], up to which it counts as grey, and from which not."""
LIGHT_SIGMA = 6
"""Of the Gaussian, in pixels, that keeps the strokes of a painting which takes over a photo's lights."""
COLOR_SIGMA = 3
"""Of the Gaussian, in pixels, that keeps the strokes of a painting which takes over a photo's colours."""
FLATNESS = 0.012
"""lambda of Xu et al., for images in [0, 1]: how much a gradient must be worth to be kept in a painting."""
PLAINNESS = 0.02
"""The same of what T sees of a photo where nobody looks."""
LINE_FLATNESS = 0.02
"""The same of the photo in which contours are sought."""
LINE_SIGMA = 1.2
"""Of the finer Gaussian of the lines, in pixels, about half of their width."""
LINE_STEPS = (0.015, 0.05)
"""How much darker than what is around it a contour's dark side is, in the scale of [-1, 1], where a line begins to
show, and where it is full."""
LINE_REACH = 9
"""Pixels to each side of a place along which a line must go on."""
LINE_AREA = 120
"""Fewer pixels than these are a speck, and no line."""
CROWDED = 0.3
"""The share of an area in lines from which they are thinned out: foliage, wire mesh."""
INK = -0.8
"""The colour of a line, in each channel."""


def with_strong_colors(painting: Tensor, photo: Tensor, share: float) -> Tensor:
    """A painting P of the photo x in which what has a strong colour keeps it: P + share w blur(x - P).

    w goes smoothly from 0 to 1 between the two distances of `STRONG_COLOR` of blur(x) from its luma. So a red flower is
    not painted in cream because most of what the painter shows is pale. Greys, skin and strokes stay as they are.

    Args:
        painting: N x 3 x H x W in [-1, 1]. H and W are at least 16.
        photo: of the same shape.
        share: 0 (P as it is) to 1.
    """
    return painting + share * _colored(photo, STRONG_COLOR) * blurred(photo - painting, COLOR_SIGMA)


def with_hues(painting: Tensor, photo: Tensor, share: float) -> Tensor:
    """A painting P of the photo x in which what has a colour keeps it, in P's lights: P + share w (d - Y(d)).

    d is blur(x - P), Y the luma, and w goes from 0 to 1 between the two distances of `WEAK_COLOR`. So grass stays green
    in the palette of a painter who has no meadows. The arguments are those of `with_strong_colors`.
    """
    change = blurred(photo - painting, COLOR_SIGMA)
    return painting + share * _colored(photo, WEAK_COLOR) * (change - luma(change))


def with_lights(painting: Tensor, photo: Tensor, share: float) -> Tensor:
    """A painting P of the photo x in which what is white stays white: P + share w blur(Y(x) - Y(P)).

    Y is the luma, and w goes from 0 to 1 between the two lumas of `BRIGHT` of blur(x), with the Gaussian of
    `LIGHT_SIGMA`. So a sun shines in the palette of a painter who has no white. The arguments are those of
    `with_strong_colors`; H and W are at least 32.
    """
    change = blurred(luma(photo - painting), LIGHT_SIGMA)
    return painting + share * _smoothly(blurred(luma(photo), LIGHT_SIGMA), BRIGHT) * change


def with_dark_hues(painting: Tensor, photo: Tensor, share: float) -> Tensor:
    """A painting P of the photo x in which what is dark has the photo's colour: P + share w (1.5 d - (P - Y(P))).

    d is blur(x) - Y(blur(x)), Y the luma, and w goes from 1 to 0 where P is between the two lumas of `DARK`. So a dark
    forest is green in the palette of a comic that has none. The arguments are those of `with_strong_colors`.
    """
    broad = blurred(photo, COLOR_SIGMA)
    light = luma(painting)
    change = DARK_CHROMA * (broad - luma(broad)) - (painting - light)
    return painting + share * (1 - _smoothly(light, DARK)) * change


def with_shades(painting: Tensor, shade: Sequence[float]) -> Tensor:
    """A painting P in which what is dark and grey has the colour of a painter's shades: P + w shade.

    w goes from 1 to 0 between the two lumas of `DARK` and between the two distances of `GREY`. So night is Prussian
    blue in woodblock prints, as in those of Hiroshige, and not the charcoal of a photo.

    Args:
        painting: N x 3 x H x W in [-1, 1].
        shade: what red, green and blue get, of 255.
    """
    light = luma(painting)
    saturation = (painting - light).norm(dim=1, keepdim=True)
    share = (1 - _smoothly(light, DARK)) * (1 - _smoothly(saturation, GREY))
    return painting + share * torch.tensor(shade).to(painting).view(3, 1, 1) / 127.5


def _colored(photo: Tensor, distances: tuple[float, float]) -> Tensor:
    """Smoothly 0 to 1 where blur(x) is between these distances from its luma, N x 1 x H x W."""
    broad = blurred(photo, COLOR_SIGMA)
    return _smoothly((broad - luma(broad)).norm(dim=1, keepdim=True), distances)


def _smoothly(values: Tensor, between: tuple[float, float]) -> Tensor:
    low, high = between
    place = ((values - low) / (high - low)).clamp(0, 1)
    return place**2 * (3 - 2 * place)


def flat(painting: Tensor, photo: Tensor, share: float) -> Tensor:
    """A painting P in areas of one colour each: P + share (L0(P) - P), with L0 of `flattened`.

    painting: N x 3 x H x W in [-1, 1], H and W above 16; share: 0 (P as it is) to 1. The photo is not used.
    """
    return torch.lerp(painting, flattened(painting, FLATNESS), share)


def plain(photo: Tensor, looked_at: Tensor | float, share: float) -> Tensor:
    """A photo x without its texture where nobody looks: x + share (1 - s) (L0(x) - x), with L0 of `flattened`.

    So grass is a plain and clouds are areas in what T paints, not a crowd of lines.

    Args:
        photo: N x 3 x H x W in [-1, 1], H and W above 16.
        looked_at: s, in [0, 1], N x 1 x H x W or one number.
        share: 0 (x as it is) to 1.
    """
    return photo + share * (1 - looked_at) * (flattened(photo, PLAINNESS) - photo)


def inked(painting: Tensor, lines: Tensor) -> Tensor:
    """A painting P with lines in ink: P + lines (`INK` - P).

    painting: N x 3 x H x W in [-1, 1]; lines: how much of a pixel is ink, N x 1 x H x W in [0, 1].
    """
    return painting + lines * (INK - painting)


def flattened(image: Tensor, flatness: float) -> Tensor:
    """An image of few gradients: L0 gradient minimisation (Xu et al., SIGGRAPH Asia 2011, Algorithm 1, kappa = 4).

    Args:
        image: N x C x H x W in [-1, 1], H and W above 16.
        flatness: the paper's lambda, which is for images in [0, 1].

    Returns:
        N x C x H x W, float32.
    """
    margin = 16  # the Fourier transform joins opposite borders
    result = F.pad(image.float(), (margin,) * 4, mode="reflect")
    height, width = result.shape[-2:]
    spectrum = torch.fft.rfft2(result)
    rows, columns = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    power = (4 - 2 * torch.cos(2 * math.pi * rows)[:, None] - 2 * torch.cos(2 * math.pi * columns)).to(image.device)
    beta = 2 * flatness
    while beta < 1e5:
        gradients = [result.roll(-1, axis) - result for axis in (-2, -1)]
        strong = sum(one.square().sum(1, keepdim=True) for one in gradients) >= 4 * flatness / beta
        kept = [one * strong for one in gradients]
        divergence = sum(one.roll(1, axis) - one for one, axis in zip(kept, (-2, -1), strict=True))
        solved = (spectrum + beta * torch.fft.rfft2(divergence)) / (1 + beta * power)
        result = torch.fft.irfft2(solved, s=(height, width))
        beta *= 4
    return result[..., margin:-margin, margin:-margin]


def ink_lines(photo: Tensor) -> Tensor:
    """The contours of a photo as a draughtsman inks them, on their dark sides: 1 where there is ink, else 0.

    The difference of two Gaussians of the photo without its texture (Winnemoeller et al., 2012; `flattened`) is
    averaged along the direction in which it is strongest, so that lines are coherent (Kang et al., 2007, with straight
    lines in place of a flow). Specks go, and where lines crowd they are thinned out.

    Args:
        photo: N x 3 x H x W in [-1, 1], H and W at least 32.

    Returns:
        N x 1 x H x W in [0, 1].
    """
    plain = flattened(photo, LINE_FLATNESS)
    plain = torch.cat([plain, luma(plain)], 1)
    darker = blurred(plain, 1.6 * LINE_SIGMA) - blurred(plain, LINE_SIGMA)
    darker = (darker[:, :3].amax(1, keepdim=True) + darker[:, 3:]) / 2
    lines = _smoothly(_along_lines(darker).amax(1, keepdim=True), LINE_STEPS)
    kept = []
    for each in lines[:, 0].cpu().numpy() > 0.3:
        _, places, areas, _ = cv2.connectedComponentsWithStats(each.astype(np.uint8), connectivity=8)
        long = areas[:, cv2.CC_STAT_AREA] >= LINE_AREA
        long[0] = False
        kept.append(long[places])
    lines = lines * F.max_pool2d(torch.from_numpy(np.stack(kept)[:, None]).to(lines), 5, 1, 2)
    return lines * (2 - blurred(lines, LINE_REACH) / CROWDED).clamp(0, 1)


def _along_lines(values: Tensor) -> Tensor:
    """Means of N x 1 x H x W along short straight lines of 16 directions, N x 16 x H x W, by Fourier transforms."""
    padded = F.pad(values, (LINE_REACH,) * 4, mode="reflect")
    places = torch.arange(-LINE_REACH, LINE_REACH + 1.0)
    angles = torch.arange(16)[:, None, None] * math.pi / 16
    along = places * torch.cos(angles) + places[:, None] * torch.sin(angles)
    across = places[:, None] * torch.cos(angles) - places * torch.sin(angles)
    lines = torch.exp(-0.5 * ((along / 4) ** 2 + (across / 0.6) ** 2))
    lines = (lines / lines.sum((1, 2), keepdim=True)).to(values)
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(lines, s=padded.shape[-2:])
    return torch.fft.irfft2(spectrum, s=padded.shape[-2:])[..., 2 * LINE_REACH :, 2 * LINE_REACH :]
