"""What happens to images and maps around the networks: noise, detail, and a small map brought back to a photo's size.

Tensors are N x C x H x W; images are RGB in [-1, 1], saliency maps have one channel in [-1, 1].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

WITHOUT_ANTIALIASING = ("mps",)
"""Devices for which F.interpolate has no antialiasing in every version of torch that is supported."""
DETAIL_SIGMA = 1.5
"""Fine structure is what a Gaussian of this many pixels leaves out: an eye in a small face, and no brushstroke."""
DETAIL_REACH = round(3 * DETAIL_SIGMA)
"""Where that Gaussian ends, in pixels."""
NOISE_PERIOD = 1024
"""Rows and columns after which `smooth_noise` repeats itself."""
NOISE_SCALES = (8, 16)
"""Distances in pixels between the random values of the layers of `smooth_noise`: those between broad strokes."""
MARGIN_SHARE = 64
"""Of the shorter side, the part by which a photo is mirrored beyond its border where it is painted at several sizes. At
the border of what it sees, G paints a fringe of other colours, and that of the smallest size would be enlarged."""
SMALLEST_STEP, LARGEST_STEP = 1.2, 2.5
"""By how much `coarse_to_fine` enlarges from one size to the next."""
TIE = 0.01
"""Taken off before a size is rounded, since the last digit of a share is not the same on every machine."""
SECOND_STEP = 2 * (1 + 2 / MARGIN_SHARE)
"""And from the first size to the second: 512 px with their margin are painted in two steps, at 256 px first."""
VIEWED_SIZE = 512 * (1 + 2 / MARGIN_SHARE)
"""And a size of all larger photos: styles are chosen by their paintings of 512 px, whose strokes those then have."""
SHOCK_SIGMA = 1.0
"""The Gaussian, in pixels, behind which `shock_filtered` looks for edges: what is finer makes none."""
SHOCK_RHO = 2.5
"""And the one over which it averages their direction, so that lines are drawn through."""
SHOCK_REACH = round(3 * SHOCK_SIGMA) + 2
"""How far a step of it looks, in pixels. The direction is averaged over more, and changes next to nothing from there:
tiles of a trained style are within 0.03 grey levels of the whole."""
SHOCK_EDGE = 1e-3
"""Squared change of the luma in [-1, 1] a pixel at which an edge takes half of a step."""
SHOCK_CURVE = 5e-3
"""Second derivative across an edge at which it takes half of that: in the middle of the edge it takes none."""
REFINED_SIGMA = 1.0
"""Of a painting that was enlarged by about 2, `refined` keeps what a Gaussian of this many pixels leaves."""
REFINED_REACH = round(3 * REFINED_SIGMA)
"""Where that Gaussian ends, in pixels."""
READ_PIXELS = 2**20
"""Of an image that `resized_part` reads at a time."""
GUIDE_RADIUS = 2
"""Of the guided filter's windows, in pixels of the small map."""
GUIDE_EPSILON = 0.003
"""Variance of the luma in [-1, 1] from which on the guided filter takes an edge for an edge."""


def luma(image: Tensor) -> Tensor:
    """ITU-R BT.601's, N x 3 x H x W to N x 1 x H x W; linear, so of differences too."""
    red, green, blue = image.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """N x C x H x W to N x C x `height` x `width`, bilinear without aliasing; in float32 (a CPU has no other)."""
    x = image.float()
    if image.device.type in WITHOUT_ANTIALIASING:
        sides = ((x.shape[-2], height), (x.shape[-1], width))
        rows, columns = (_taps(before, after, 0, after, triangle)[2].to(x) for before, after in sides)
        return (rows @ x @ columns.T).to(image.dtype)
    return F.interpolate(x, (height, width), mode="bilinear", antialias=True).to(image.dtype)


Box = tuple[int, int, int, int]
"""Top, bottom, left and right of a part of an image, in pixels; bottom and right are the first ones outside."""


def triangle(x: Tensor) -> Tensor:
    """The kernel of bilinear resizing."""
    return (1 - x.abs()).clamp(min=0)


def cubic(x: Tensor) -> Tensor:
    """The kernel of bicubic resizing (Keys, 1981, a = -0.5)."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    return torch.where(x < 1, near, torch.where(x < 2, ((2.5 - 0.5 * x) * x - 4) * x + 2, 0))


KERNEL_RADII: dict[Callable[[Tensor], Tensor], int] = {triangle: 1, cubic: 2}


def resized_part(
    read: Callable[[Box], Tensor],
    source: tuple[int, int],
    size: tuple[int, int],
    box: Box,
    kernel: Callable[[Tensor], Tensor] = triangle,
) -> Tensor:
    """A part of an image resized without aliasing, from the pixels that it depends on; whole, it is `resized`.

    Args:
        read: gives a box of the image, N x C x h x w, float32. No more than `READ_PIXELS`, or the pixels under one row
            of the result, are read at a time.
        source: height and width of the image.
        size: height and width of the resized image.
        box: the part of it that is wanted.
        kernel: `triangle` (bilinear) or `cubic` (bicubic).

    Returns:
        N x C x h x w, float32.
    """
    top, bottom, left, right = box
    first, last, across = _taps(source[1], size[1], left, right, kernel)
    rows = max(1, int(READ_PIXELS / (last - first) * size[0] / source[0]))
    strips = []
    for start in range(top, bottom, rows):
        above, below, down = _taps(source[0], size[0], start, min(start + rows, bottom), kernel)
        image = read((above, below, first, last))
        strips.append(down.to(image) @ image @ across.to(image).T)
    return torch.cat(strips, dim=-2)


def _taps(source: int, size: int, start: int, stop: int, kernel: Callable[[Tensor], Tensor]) -> tuple[int, int, Tensor]:
    """The pixels `first` to `last` that pixels `start` to `stop` of the resized side are made of, and their weights."""
    step = source / size
    stretch = max(step, 1)
    centres = (torch.arange(start, stop, device="cpu", dtype=torch.float64) + 0.5) * step
    radius = KERNEL_RADII[kernel] * stretch
    first = max(0, math.floor(centres[0].item() - radius))
    last = min(source, math.ceil(centres[-1].item() + radius))
    places = torch.arange(first, last, device="cpu", dtype=torch.float64) + 0.5
    weights = kernel((places - centres[:, None]) / stretch)
    return first, last, (weights / weights.sum(1, keepdim=True)).float()


def crop_and_resize(maps: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """One box of each map, N x C x h x w, resized bilinearly to N x C x `height` x `width`.

    boxes: N x 4, top, left, height and width as shares of the map's.
    """
    maps = maps.float()
    top, left, tall, wide = boxes.to(torch.float32).unbind(1)
    theta = torch.zeros(len(boxes), 2, 3, dtype=maps.dtype, device=maps.device)
    theta[:, 0, 0], theta[:, 0, 2] = wide, 2 * left + wide - 1
    theta[:, 1, 1], theta[:, 1, 2] = tall, 2 * top + tall - 1
    grid = F.affine_grid(theta, [len(boxes), 1, height, width], align_corners=False)
    edge = 1 - 1 / grid.new_tensor(maps.shape[:1:-1])  # the centres of the outermost pixels; Apple GPUs pad by 0 alone
    return F.grid_sample(maps, grid.clamp(-edge, edge), align_corners=False)


def guided_lines(small_map: Tensor, small_photo: Tensor) -> Tensor:
    """The first half of the fast guided filter (He and Sun, 2015), which enlarges a map along the photo's edges.

    `crop_and_resize` brings the lines to the size of the photo, and `along_lines` makes the map of them.

    Args:
        small_map: N x 1 x h x w in [-1, 1].
        small_photo: the photo at the map's size, N x 3 x h x w in [-1, 1].

    Returns:
        Slope and intercept of the map over the luma around each pixel, N x 2 x h x w.
    """
    guide, values = luma(small_photo.float()), small_map.float()

    def mean(image: Tensor) -> Tensor:
        return F.avg_pool2d(image, 2 * GUIDE_RADIUS + 1, 1, GUIDE_RADIUS, count_include_pad=False)

    mean_guide, mean_values = mean(guide), mean(values)
    covariance = mean(guide * values) - mean_guide * mean_values
    slope = covariance / (mean(guide * guide) - mean_guide**2 + GUIDE_EPSILON)
    return torch.cat([mean(slope), mean(mean_values - slope * mean_guide)], dim=1)


def along_lines(lines: Tensor, photo: Tensor) -> Tensor:
    """The map that lines at the size of the photo, or of a part of it, give on its luma: N x 1 x H x W in [-1, 1]."""
    slope, intercept = lines.split(1, dim=1)
    return (slope * luma(photo.float()) + intercept).clamp(-1, 1)


def coarse_to_fine(height: int, width: int, brush_size: float) -> list[tuple[int, int]]:
    """The sizes at which a photo of `height` x `width` pixels is painted, one after the other; the last is its own.

    At the first the shorter side is about `brush_size`, at the second `SECOND_STEP` times that, or the photo's own up
    to `LARGEST_STEP` times. So all larger photos have one painting at the second size, and at `VIEWED_SIZE` where that
    lies beyond. Each later size, at most `LARGEST_STEP` times the one before, adds what that cannot show (`refined`).
    The sides are multiples of 4. A photo of about `brush_size`, or below, is painted once. With a `brush_size` of 0
    all are.
    """
    ratio = min(height, width) / brush_size if brush_size else 1
    shares = [1 / ratio] if ratio > SMALLEST_STEP else []
    if ratio > LARGEST_STEP:
        last, viewed = SECOND_STEP, VIEWED_SIZE / brush_size
        if viewed > SMALLEST_STEP * last and ratio > SMALLEST_STEP * viewed:
            shares.append(last / ratio)
            last = viewed
        steps = math.ceil(math.log(ratio / last) / math.log(LARGEST_STEP))
        shares += [(ratio / last) ** (step / steps - 1) for step in range(steps)]
    sides = [[max(16, 4 * round(share * side / 4 - TIE)) for side in (height, width)] for share in shares]
    return [*dict.fromkeys((tall, wide) for tall, wide in sides), (height, width)]


def underpainted(painting: Tensor, photo: Tensor, saliency: Tensor | None, clear_lines: int = 0) -> Tensor:
    """What is painted over next: a smaller painting at the photo's size, and the photo itself where people look.

        (1 - s) (P + Y(x) - Y(x'))  +  s x,    s = (S(x) + 1) / 2

    P is the painting enlarged, x' the photo as the painting saw it, enlarged, and Y the luma (ITU-R BT.601). So broad
    strokes have the photo's sharp edges, and what people look at is painted with the finer brush of this size alone.

    Args:
        painting: of a smaller copy of the photo, N x 3 x h x w in [-1, 1].
        photo: x, N x 3 x H x W in [-1, 1].
        saliency: S(x), N x 1 x H x W in [-1, 1]; None: 0 everywhere, for a model without S.
        clear_lines: as in `without_lines`, of the painting enlarged.

    Returns:
        N x 3 x H x W in [-1, 1].
    """
    difference = resized(painting - luma(resized(photo, *painting.shape[-2:])), *photo.shape[-2:])
    return painted_over(without_lines(difference, photo, clear_lines), photo, saliency)


def painted_over(difference: Tensor, photo: Tensor, saliency: Tensor | None) -> Tensor:
    """`underpainted`, of all photos or of a part of each, from P - Y(x') at the size of `photo`."""
    broad = difference + luma(photo)
    if saliency is None:
        return broad.clamp(-1, 1)
    return torch.lerp(broad, photo, ((saliency + 1) / 2).to(broad.dtype)).clamp(-1, 1)


def without_lines(difference: Tensor, photo: Tensor, width: int) -> Tensor:
    """A smaller painting, enlarged, without the thin dark lines and dots that it added to the photo.

        D + min(close(Y(D)) - Y(D), close(Y(D) + Y(x)) - Y(D) - Y(x))

    close is the morphological closing by a square of `width` px, Y the luma (ITU-R BT.601). What is dark and thin both
    in the painting and in its difference from the photo is filled in, so a dark line of the photo stays. A line that is
    painted over gets a contour on each side, and a hatching becomes a relief.

    Args:
        difference: D, the painting less the luma of its photo, enlarged, N x 3 x H x W.
        photo: x, N x 3 x H x W in [-1, 1].
        width: an odd number of pixels; lines narrower than that go. 0: none.
    """
    if not width:
        return difference

    def filled(values: Tensor) -> Tensor:
        return -_widened(-_widened(values, width), width) - values

    change = luma(difference)
    return difference + torch.minimum(filled(change), filled(change + luma(photo)))


def without_grain(painting: Tensor, height: float) -> Tensor:
    """A painting without its faint fine structure: P - min(max(f, -height), height), f = Y(P) - blur(Y(P)).

    Y is the luma (ITU-R BT.601), blur a Gaussian of `DETAIL_SIGMA` px: a soft threshold (Donoho, 1995) of the finest
    band. So flat inks get flat, and lines and the edges of strokes stay.

    Args:
        painting: N x 3 x H x W in [-1, 1]. H and W are at least 16.
        height: from 0 (the painting as it is) up, in the scale of [-1, 1].
    """
    if not height:
        return painting
    fine = luma(painting)
    return painting - (fine - blurred(fine, DETAIL_SIGMA)).clamp(-height, height)


def shock_filtered(painting: Tensor, steps: int) -> Tensor:
    """A painting with crisp contours: steps of a coherence-enhancing shock filter (Weickert, DAGM 2003).

    A pixel goes up to half of the way to the darkest of the nine around it, in each channel, where the luma is convex
    across the edge (v > 0), and to the lightest where it is concave:

        P + E / (2 (E + SHOCK_EDGE)) |v| / (|v| + SHOCK_CURVE) (extreme - P),    E = trace J

    v is the second derivative of the luma (ITU-R BT.601) behind a Gaussian of `SHOCK_SIGMA` px, in the direction in
    which it changes most: that of the structure tensor J, which a Gaussian of `SHOCK_RHO` px averages. So soft contours
    become ink. The two factors stand for Weickert's sign: flat areas stay as they are, and edges stay smooth.

    Args:
        painting: N x 3 x H x W in [-1, 1]. H and W are at least 16.
        steps: from 0 (the painting as it is) up.
    """
    for _ in range(steps):
        smooth = blurred(luma(painting), SHOCK_SIGMA)
        x, y = _slope(smooth, 3), _slope(smooth, 2)
        xx, yy, xy = blurred(torch.cat([x * x, y * y, x * y], 1), SHOCK_RHO).split(1, dim=1)
        curves, turned = (_slope(x, 3), _slope(y, 2)), 4 * xy * _slope(x, 2)
        turned = turned + (xx - yy) * (curves[0] - curves[1])
        curve = (curves[0] + curves[1] + turned / ((xx - yy).square() + 4 * xy.square() + 1e-12).sqrt()) / 2
        share = (xx + yy) / (2 * (xx + yy + SHOCK_EDGE)) * curve / (curve.abs() + SHOCK_CURVE)
        darker, lighter = -_widened(-painting, 3) - painting, _widened(painting, 3) - painting
        painting = painting + share.clamp(min=0) * darker - share.clamp(max=0) * lighter
    return painting


def crisp(painting: Tensor, steps: int, saliency: Tensor | None, detail: float) -> Tensor:
    """`shock_filtered`, which gives way where people look if more than half of the photo's detail was kept there.

    Args:
        painting: N x 3 x H x W in [-1, 1]. H and W are at least 16.
        steps: as in `shock_filtered`.
        saliency: S(x), N x 1 x H x W in [-1, 1]; None: none of the detail was kept.
        detail: the share of it that was kept (`keep_detail`), 0 to 1. With 1, nothing changes where S is highest.
    """
    filtered, kept = shock_filtered(painting, steps), max(0.0, 2 * detail - 1)
    return torch.lerp(filtered, painting, kept * (saliency + 1) / 2) if kept and saliency is not None else filtered


def _slope(image: Tensor, dim: int) -> Tensor:
    """The central difference along a dimension."""
    before, _, after = _shifted(image, dim, 1)
    return (after - before) / 2


def _widened(image: Tensor, width: int) -> Tensor:
    """The largest value in a square of `width` pixels, an odd number, around each; beyond the border there is none."""
    for dim in (2, 3):
        image = functools.reduce(torch.maximum, _shifted(image, dim, width // 2))
    return image


def _shifted(image: Tensor, dim: int, reach: int) -> list[Tensor]:
    """What lies from `reach` pixels before each to as many after it along rows (3) or columns (2), mirrored."""
    padded = F.pad(image, (reach, reach, 0, 0) if dim == 3 else (0, 0, reach, reach), mode="reflect")
    return [padded.narrow(dim, start, image.shape[dim]) for start in range(2 * reach + 1)]


def refined(broad: Tensor, painting: Tensor) -> Tensor:
    """A smaller painting, enlarged, with the fine structure of a painting at this size: blur(B) + P - blur(P).

    A step of a Laplacian pyramid (Burt and Adelson, 1983). Strokes and colours of a large photo are therefore those of
    its copy at the second size of `coarse_to_fine`, and only what that copy cannot hold is painted with a finer brush.

    Args:
        broad: B, the smaller painting as `painted_over` enlarges it for a model without S, N x 3 x H x W in [-1, 1].
        painting: P, of the same shape. H and W are at least 16.

    Returns:
        N x 3 x H x W in [-1, 1].
    """
    return (painting + blurred(broad - painting, REFINED_SIGMA)).clamp(-1, 1)


def noise_origin(saliency: Tensor) -> Tensor:
    """Where in a photo the noise begins: the centroid of its squared saliency map, as shares of height and width.

    It moves with what is in the photo, so a crop that starts a pixel further is painted with the same strokes.

    Args:
        saliency: S(x) of whole photos, N x 1 x h x w in [-1, 1].

    Returns:
        N x 2 in [0, 1].
    """
    weights = ((saliency[:, 0].float() + 1) / 2).square() + 1e-6
    weights = weights / weights.sum((1, 2), keepdim=True)
    places = (torch.arange(side, dtype=weights.dtype, device=weights.device) for side in weights.shape[-2:])
    rows, columns = ((one + 0.5) / len(one) for one in places)
    return torch.stack([weights.sum(2) @ rows, weights.sum(1) @ columns], 1)


def keep_detail(painting: Tensor, photo: Tensor, saliency: Tensor, share: float | Tensor) -> Tensor:
    """The painting with fine structure of the photo where people look, beyond the paper: a skip connection around G.

        G(x) + share (S(x) + 1) / 2 fine(Y(x) - Y(G(x)))

    Y is the luma (ITU-R BT.601) and fine(a) what a Gaussian of `DETAIL_SIGMA` px leaves of a. Hues, tones and what is
    broader than a few pixels stay the painting's everywhere, and all of it where the map is 0.

    Args:
        painting: G(x), N x 3 x H x W in [-1, 1].
        photo: x, of the same shape. H and W are at least 16.
        saliency: S(x), N x 1 x H x W in [-1, 1].
        share: 0 (the painting as it is) to 1 (at the most salient places, all of the photo's fine luma).
    """
    difference = luma(photo - painting)
    fine = difference - blurred(difference, DETAIL_SIGMA)
    return (painting + share * (saliency + 1) / 2 * fine).clamp(-1, 1)


def blended(painting: Tensor, photo: Tensor, strength: float, keep_color: bool) -> Tensor:
    """x + strength (P - x), where x is the photo and P the painting, or with `keep_color` x + Y(P) - Y(x).

    Y is the luma (ITU-R BT.601). So strength 0 is the photo, 1 the painting, and more than 1 exaggerates it.

    Args:
        painting: N x 3 x H x W in [-1, 1].
        photo: of the same shape.
        strength: from 0 up.
        keep_color: the painting's luma with the photo's chroma.
    """
    change = painting - photo
    return (photo + strength * (luma(change) if keep_color else change)).clamp(-1, 1)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Each channel after a Gaussian of `sigma` px that ends at three times that, mirrored at the border."""
    radius = round(3 * sigma)
    taps = [math.exp(-0.5 * (place / sigma) ** 2) for place in range(radius + 1)]
    total = 2 * sum(taps) - taps[0]
    for dim in (3, 2):
        shifted = _shifted(image, dim, radius)
        image = shifted[radius] * (taps[0] / total)
        for place in range(1, radius + 1):
            image = torch.add(image, shifted[radius - place] + shifted[radius + place], alpha=taps[place] / total)
    return image


def smooth_noise(height: int, width: int, top: int = 0, left: int = 0) -> Tensor:
    """The noise from which G draws strokes in flat areas, 3 x `height` x `width`, of mean 0; always the same.

    Normal noise at 1/8 and 1/16 of the resolution, each of about unit deviation, enlarged and added. It belongs to
    places in pixels and repeats itself after `NOISE_PERIOD`: (`top`, `left`) is the place of the first pixel. So a
    photo is painted the same way each time, a crop that starts a pixel further hardly differs, and a tile fits the
    next.
    """
    field = _noise_field()
    rows = (torch.arange(height, device="cpu") + top) % NOISE_PERIOD
    columns = (torch.arange(width, device="cpu") + left) % NOISE_PERIOD
    return field[:, rows][:, :, columns]


@functools.cache
def _noise_field() -> Tensor:
    field = torch.zeros(1, 3, NOISE_PERIOD, NOISE_PERIOD, device="cpu")
    for scale, values in noise_layers():
        coarse = F.pad(values, (2, 2, 2, 2), mode="circular")
        fine = F.interpolate(coarse, scale_factor=scale, mode="bicubic")
        field += fine[..., 2 * scale : -2 * scale, 2 * scale : -2 * scale]
    return field[0]


def noise_layers() -> list[tuple[int, Tensor]]:
    """For each of `NOISE_SCALES`, it and the random values that `smooth_noise` enlarges by it, 1 x 3 x n x n."""
    generator = torch.Generator().manual_seed(0)
    sides = [(scale, NOISE_PERIOD // scale) for scale in NOISE_SCALES]
    return [(scale, torch.randn(1, 3, side, side, generator=generator, device="cpu")) for scale, side in sides]
