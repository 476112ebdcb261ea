"""From people's images to paintings and maps: read, size, ladder of sizes, tiles, networks, blend, restore.

The photo stays in the dtype that it came in. Tiles are read from it, converted, painted and written into the result one
by one, so memory hardly grows with the photo. A tile reaches as far into its neighbours as a result depends on the
photo, so tiles are painted as the whole is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from . import filters, imaging
from .errors import SDPGANError
from .filters import Box
from .imaging import ImageLike, Picture
from .memory import free_memory
from .networks import MIN_SIZE, SIZE_MULTIPLE, SaliencyFeatures, SaliencyNetwork, padded_size, shared_statistics

if TYPE_CHECKING:
    from .model import SDPGAN
    from .scene import Scene

BATCH_PIXELS = 512 * 512
"""Images of a batched tensor are painted together up to this many pixels; a larger image alone."""
WHOLE_BYTES = 2 * 2**30
"""With tile="auto", what takes less, and less than half of the free memory, is painted whole."""
TILE_BYTES = 5 * 2**26
"""What a tile of tile="auto" takes."""
SMALLEST_TILE = 64
"""That tile="auto" takes however little memory is free."""
ENLARGED_SIDE = 1024
"""Of the tiles in which a painting at `max_size` is brought to the photo's size."""
STATISTICS_SIZE = 512
"""The longer side, in pixels, of the copy that gives the tiles of models with instance norm their statistics."""


@dataclass(frozen=True)
class Options:
    """What is made of photos; the arguments of `SDPGAN.stylize` of the same names."""

    painting: bool = True
    saliency: bool = False
    max_size: int | None = None
    tile: int | str | None = "auto"
    brush: float = 1.0
    strength: float = 1.0
    keep_color: bool = False
    keep_detail: float = 0.0

    def __post_init__(self) -> None:
        if self.max_size is not None and (not isinstance(self.max_size, int) or self.max_size < MIN_SIZE):
            raise SDPGANError(
                f"max_size is {self.max_size!r}; give a whole number of pixels from {MIN_SIZE} up, or None."
            )
        whole = isinstance(self.tile, int) and not isinstance(self.tile, bool) and self.tile >= MIN_SIZE
        if not (whole or self.tile is None or self.tile == "auto"):
            raise SDPGANError(
                f'tile is {self.tile!r}; give "auto", None, or a whole number of pixels from {MIN_SIZE} up.'
            )
        if not is_number(self.brush) or self.brush <= 0:
            raise SDPGANError(f"brush is {self.brush!r}; give a number above 0, such as 2 for strokes twice as broad.")
        if not is_number(self.strength) or self.strength < 0:
            raise SDPGANError(f"strength is {self.strength!r}; give a number from 0 (the photo) up (1: the painting).")
        if not isinstance(self.keep_color, bool):
            raise SDPGANError(f"keep_color is {self.keep_color!r}; give True or False.")
        check_keep_detail(self.keep_detail)


def check_keep_detail(share: float) -> None:
    if not is_number(share) or not 0 <= share <= 1:
        raise SDPGANError(f"keep_detail is {share!r}; give a number from 0 (none of the photo's detail) to 1.")


def is_number(value: object) -> bool:
    """Whether it is an int or a float that float32 has."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(cast(float, value)) <= torch.finfo(torch.float32).max


class Photo:
    """Images of one size as the networks take them, converted part by part.

    Args:
        values: N x 1 or 3 x H x W.
        signed: they are in [-1, 1]; else from 0 to the white of their dtype.
        margin: pixels on each side where the photo is mirrored.

    Attributes:
        own_size: height and width.
        size: the sides that the networks take, with the margin; what is missing at the right and at the bottom is
            mirrored too. Boxes are counted from the margin's first pixel.
    """

    def __init__(self, values: Tensor, signed: bool = False, margin: int = 0):
        self.values, self.signed, self.margin = values, signed, margin
        self.own_size = _size_of(values)
        height, width = (padded_size(side + 2 * margin) for side in self.own_size)
        self.size = height, width
        self._places = [
            np.pad(np.arange(side), (margin, padded - side - margin), mode="reflect")
            for side, padded in zip(self.own_size, self.size, strict=True)
        ]

    def framed(self, brush_size: int) -> Photo:
        """The same with the margin that a style of this `brush_size` wants."""
        return Photo(self.values, self.signed, -(-min(self.own_size) // filters.MARGIN_SHARE) if brush_size else 0)

    def within(self, box: Box) -> Box:
        """What of a box is neither margin nor padding."""
        top, bottom, left, right = (
            min(max(place, self.margin), self.margin + side)
            for place, side in zip(box, np.repeat(self.own_size, 2).tolist(), strict=True)
        )
        return top, bottom, left, right

    def read(self, box: Box) -> Tensor:
        """A part at its own size, N x C x h x w in [-1, 1]."""
        top, bottom, left, right = box
        rows, columns = self._places[0][top:bottom], self._places[1][left:right]
        part = self.values[..., rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        for dim, places in ((-2, rows), (-1, columns)):
            if (np.diff(places) != 1).any():
                part = part.index_select(dim, torch.from_numpy(places - places.min()).to(part.device))
        return part if self.signed else imaging.to_signed(part)

    def part(self, size: tuple[int, int], box: Box) -> Tensor:
        """A part of the photo resized to `size`, N x 3 x h x w in [-1, 1]."""
        part = self.read(box) if size == self.size else filters.resized_part(self.read, self.size, size, box)
        return part.expand(-1, 3, -1, -1)

    def shrunk(self, size: tuple[int, int]) -> Photo:
        """A smaller one, float32."""
        whole = filters.resized_part(self.read, self.own_size, size, _whole(size), filters.cubic)
        return Photo(whole.clamp(-1, 1), signed=True)


@dataclass(frozen=True)
class Tile:
    """What is made of a part of the photo at one size: N x 3 and N x 1 x h x w in [-1, 1], float32."""

    photo: Tensor
    painting: Tensor | None
    saliency: Tensor | None


class Painter:
    """Paints photos of one size tile by tile, at a ladder of sizes, each over the one before.

    Args:
        model: its networks.
        photo: the photos.
        mask: where detail is kept in place of S's map, N x 1 x H x W; None: S's map.
        scene: what frames of a film share; the photos are one frame then, which the scene has entered.
    """

    def __init__(self, model: SDPGAN, photo: Photo, mask: Photo | None = None, scene: Scene | None = None):
        self.model, self.photo, self.mask, self.scene = model, photo, mask, scene
        self.dtype = next(model.parameters()).dtype
        self.saliency_size = model.config["saliency_size"]
        self.tiles_for_s = model.saliency_network is not None and not self.saliency_size

    def paint(self, write: Callable[[Box, Tensor | None, Tensor | None], None], options: Options) -> None:
        """Calls `write` with the box of each tile of the photo at its own size, its painting and its map.

        The box is counted from the photo's own first pixel; margin and padding are cut off.
        """
        below, tile = None, self.tile_side(options)
        sizes = self.sizes(options.brush) if options.painting else [self.photo.size]
        for step, size in enumerate(sizes, start=1):
            last = step == len(sizes)
            cores = tiles(size, tile)
            wanted = options if last else replace(options, saliency=False)
            finished = last or min(size) * filters.SMALLEST_STEP >= filters.VIEWED_SIZE
            if not finished:
                wanted = replace(wanted, keep_detail=0.0)  # from the viewed size on, each adds its own detail
            statistics = self.statistics(size, below, wanted, step > 2) if len(cores) > 1 else None
            differences = None if last else self.photo.values.new_empty(
                (len(self.photo.values), 3, *size), dtype=torch.float32, device=self.model.device
            )  # fmt: skip
            for core in cores:
                kept = self.photo.within(core) if last else core
                if kept[0] == kept[1] or kept[2] == kept[3]:
                    continue
                outer = _widened(core, tile, self.overlap(wanted), size)
                result = self.tile(size, outer, below, wanted, statistics, step > 2, finished)
                result = _cut(result, outer, kept)
                if differences is None:
                    top, bottom, left, right = (place - self.photo.margin for place in kept)
                    write((top, bottom, left, right), result.painting, result.saliency)
                else:
                    assert result.painting is not None
                    differences[_slices(core)] = result.painting - filters.luma(result.photo)
            below = differences

    def tile_side(self, options: Options) -> int | None:
        """The side of a tile, without what it shares with its neighbours; None: paint the photo whole."""
        if not isinstance(options.tile, str):
            return options.tile
        maps = 14 if self.tiles_for_s else 11  # of full resolution, at the peak
        a_pixel = len(self.photo.values) * maps * self.model.config["base_channels"] * self.dtype.itemsize
        free = free_memory(self.model.device)
        if self.photo.size[0] * self.photo.size[1] * a_pixel <= min(WHOLE_BYTES, free / 2):
            return None
        outer = math.isqrt(int(min(TILE_BYTES, free / 2) / a_pixel))
        return max(SMALLEST_TILE, outer - 2 * self.overlap(options))

    def sizes(self, brush: float) -> list[tuple[int, int]]:
        """The ladder: broader strokes start from a smaller copy of the photo."""
        shorter = self.model.config["brush_size"] or (min(self.photo.size) if brush > 1 else 0)
        return filters.coarse_to_fine(*self.photo.size, shorter / brush)

    def overlap(self, options: Options) -> int:
        """How far a result depends on the photo, in pixels."""
        reach = 0
        if options.painting:
            reach += self.model.generator.reach + filters.REFINED_REACH + max(self.model.config["clear_lines"])
            reach += filters.SHOCK_REACH * self.model.config["shock_filter"]
            reach += filters.DETAIL_REACH * (bool(options.keep_detail) + bool(self.model.config["clear_grain"]))
        if self.tiles_for_s:
            reach += self._saliency_network.reach
        return -(-reach // SIZE_MULTIPLE) * SIZE_MULTIPLE

    def statistics(self, size: tuple[int, int], below: Tensor | None, options: Options, refining: bool) -> dict:
        """Mean and variance for each instance or group norm that tiles pass, from a copy of `STATISTICS_SIZE`."""
        statistics: dict = {}
        if self.model.config["normalization"] == "pixel" and not self.tiles_for_s:
            return statistics
        scale = STATISTICS_SIZE / max(size)
        if scale < 1:
            height, width = (max(MIN_SIZE, SIZE_MULTIPLE * round(side * scale / SIZE_MULTIPLE)) for side in size)
            size = height, width
        self.tile(size, _whole(size), below, options, statistics, refining)
        return statistics

    def tile(
        self,
        size: tuple[int, int],
        box: Box,
        below: Tensor | None,
        options: Options,
        statistics: dict | None,
        refining: bool = False,
        finished: bool = True,
    ) -> Tile:
        """A part of the photo resized to `size`; `below` is the smaller painting less the luma of its photo.

        refining: the smaller painting stays, and gets fine structure alone.
        finished: grain goes, which enlarged becomes strokes, and contours get crisp.
        """
        photo = self.photo.part(size, box).to(self.model.device)
        guided = below is not None or options.keep_detail > 0
        wanted = options.saliency or (guided and self.mask is None)
        with shared_statistics(statistics):
            features, map_ = self._look(photo, size, box, wanted, options.painting)
            if not options.painting:
                return Tile(photo, None, map_)
            guide = map_ if self.mask is None else filters.luma(self.mask.part(size, box)).to(self.model.device)
            seen = photo
            if below is not None:
                enlarged = filters.resized_part(lambda part: below[_slices(part)], _size_of(below), size, box)
                enlarged = filters.without_lines(enlarged, photo, self.model.config["clear_lines"][refining])
                seen = filters.painted_over(enlarged, photo, guide)
            corner, whole = (torch.tensor(sides, device="cpu") for sides in ([[box[0], box[2]]], size))
            starts = corner - (self._origin * whole).round().long()
            result = self.model.generate(seen.to(self.dtype), features, starts).to(photo.dtype)
        if finished and below is not None:
            result = filters.without_grain(result, self.model.config["clear_grain"])
        if refining:
            fine = filters.refined(filters.painted_over(enlarged, photo, None), result)
            result = fine if self.mask is None or guide is None else torch.lerp(fine, result, (guide + 1) / 2)
        if options.keep_detail:
            assert guide is not None
            result = filters.keep_detail(result, photo, guide, options.keep_detail)
        if finished and self.model.config["shock_filter"]:
            result = filters.crisp(result, self.model.config["shock_filter"], guide, options.keep_detail)
        return Tile(photo, result, map_)

    def _look(
        self, photo: Tensor, size: tuple[int, int], box: Box, map_wanted: bool, painting: bool
    ) -> tuple[SaliencyFeatures | None, Tensor | None]:
        """S's features and, where wanted, its map of a part of the photo; neither where nothing needs S."""
        network = self.model.saliency_network
        features_wanted = painting and self.model.generator.feature_concatenation
        features: SaliencyFeatures | None = None
        map_: Tensor | None = None
        if network is None or not (features_wanted or map_wanted):
            return features, map_
        if not self.saliency_size:
            features = network.encode(photo.to(self.dtype))
            return features, network.decode(features).to(photo.dtype) if map_wanted else None
        top, bottom, left, right = box
        height, width = bottom - top, right - left
        shares = [top / size[0], left / size[1], height / size[0], width / size[1]]
        boxes = torch.tensor([shares] * len(photo), device=photo.device)
        if features_wanted:
            whole = box == _whole(size)  # then G resizes them by itself
            features = self._features if whole else tuple(
                filters.crop_and_resize(feature, boxes, height >> level, width >> level)
                for level, feature in enumerate(self._features)
            )  # fmt: skip
        if map_wanted:
            map_ = filters.along_lines(filters.crop_and_resize(self._lines, boxes, height, width), photo)
        return features, map_

    @property
    def _saliency_network(self) -> SaliencyNetwork:
        """S, of a model that has it."""
        assert self.model.saliency_network is not None
        return self.model.saliency_network

    @cached_property
    def _copy(self) -> Tensor:
        """What S sees of the whole photo."""
        size = (self.saliency_size, self.saliency_size)
        return self.photo.part(size, _whole(size)).to(self.model.device, self.dtype)

    @cached_property
    def _features(self) -> SaliencyFeatures:
        with shared_statistics(None):
            return self._saliency_network.encode(self._copy)

    @cached_property
    def _lines(self) -> Tensor:
        return filters.guided_lines(self._map, self._copy)

    @cached_property
    def _map(self) -> Tensor:
        """S's map of its copy."""
        with shared_statistics(None):
            map_ = self._saliency_network.decode(self._features)
        return map_ if self.scene is None else self.scene.eased(map_)

    @cached_property
    def _origin(self) -> Tensor:
        """Where the noise begins, as shares of height and width, on the CPU."""
        if not (self.saliency_size and self.model.saliency_network is not None and self.model.config["noise"]):
            return torch.zeros(1, 2)
        if self.scene is None:
            return filters.noise_origin(self._map).cpu()
        return self.scene.origin(self._map, self.photo.size)


def tiles(size: tuple[int, int], side: int | None) -> list[Box]:
    """Boxes of about equal size, `side` pixels at most, that cover `size`; their edges are multiples of 4."""
    if side is None:
        return [_whole(size)]
    side = side // SIZE_MULTIPLE * SIZE_MULTIPLE
    edges = []
    for length in size:
        count = -(-length // side)
        step = SIZE_MULTIPLE * math.ceil(length / count / SIZE_MULTIPLE)
        edges.append([(start, min(start + step, length)) for start in range(0, length, step)])
    return [(*rows, *columns) for rows in edges[0] for columns in edges[1]]


def run(
    model: SDPGAN,
    image: ImageLike | Sequence[ImageLike],
    options: Options,
    mask: ImageLike | Sequence[ImageLike] | None = None,
    scene: Scene | None = None,
) -> Iterator[tuple[Any, np.ndarray | None]]:
    """Each image's painting and map, as people get them.

    scene: of images that are frames of a film, in their order; they are painted one by one.

    Raises:
        SDPGANError: if an image or a mask cannot be read or does not fit, or memory runs out.
    """
    for picture, its_mask in _read_each(image, mask):
        yield _run_one(model, picture, its_mask, options, scene)


def _read_each(
    image: ImageLike | Sequence[ImageLike], mask: ImageLike | Sequence[ImageLike] | None
) -> Iterator[tuple[Picture, Tensor | None]]:
    """Each image and its mask's values."""
    if not isinstance(image, (list, tuple)):
        picture = imaging.read(cast("ImageLike", image))
        yield picture, _read_mask(cast("ImageLike | None", mask), picture)  # which refuses a list
        return
    masks = mask if isinstance(mask, (list, tuple)) else [mask] * len(image)
    if len(masks) != len(image):
        raise SDPGANError(
            f"There are {len(image)} images and {len(masks)} masks; give one mask, or one for each image."
        )
    for number, (item, its_mask) in enumerate(zip(image, masks, strict=True), start=1):
        try:
            picture = imaging.read(item)
            values = _read_mask(its_mask, picture)
        except SDPGANError as error:
            raise SDPGANError(f"Image {number} of {len(image)}: {error}") from error
        yield picture, values


def _read_mask(mask: ImageLike | None, picture: Picture) -> Tensor | None:
    if mask is None:
        return None
    if isinstance(mask, (np.ndarray, Tensor)) and str(mask.dtype).endswith("bool"):
        mask = mask * np.uint8(255) if isinstance(mask, np.ndarray) else mask.to(torch.uint8) * 255
    values = imaging.read(mask).mask
    (height, width), (tall, wide) = picture.values.shape[-2:], values.shape[-2:]
    if (height, width) != (tall, wide):
        raise SDPGANError(
            f"The mask is {wide} x {tall} pixels and the photo {width} x {height}; give a mask of the photo's size."
        )
    if len(values) not in (1, len(picture.values)):
        raise SDPGANError(
            f"There are {len(picture.values)} photos in the batch and {len(values)} masks; give one mask, or as many."
        )
    return values.expand(len(picture.values), -1, -1, -1)


def _run_one(
    model: SDPGAN, picture: Picture, masks: Tensor | None, options: Options, scene: Scene | None
) -> tuple[Any, np.ndarray | None]:
    values = picture.values
    count, size = len(values), _size_of(values)
    dtype = torch.float32 if picture.dtype.is_floating_point else picture.dtype
    paintings = values.new_empty((count, 3, *size), dtype=dtype) if options.painting else None
    maps = values.new_empty((count, 1, *size), dtype=torch.float32) if options.saliency else None
    step = max(1, BATCH_PIXELS // (size[0] * size[1])) if scene is None else 1
    for start in range(0, count, step):
        chunk = slice(start, start + step)
        photo, mask = Photo(values[chunk]), None if masks is None else Photo(masks[chunk])
        painting, map_ = (None if result is None else result[chunk] for result in (paintings, maps))
        if scene is not None:
            photo = Photo(scene.enter(photo.values), signed=True)
        _infer(model, photo, mask, options, painting, map_, scene)
        if scene is not None and painting is not None:
            signed = painting if painting.dtype.is_floating_point else imaging.to_signed(painting)
            _store(painting, _whole(size), scene.steady(signed))
    restored = None if paintings is None else picture.restore(paintings)
    if maps is None:
        return restored, None
    arrays = imaging.from_signed(maps, torch.float32)[:, 0].cpu().numpy()
    return restored, arrays if picture.batched else arrays[0]


@torch.inference_mode()
def _infer(
    model: SDPGAN,
    photo: Photo,
    mask: Photo | None,
    options: Options,
    painting: Tensor | None,
    saliency: Tensor | None,
    scene: Scene | None,
) -> None:
    """Fills `painting`, with whole numbers or [-1, 1], and `saliency`, with [-1, 1]; both are of the photo's size."""
    size = photo.own_size
    working = imaging.limited_size(*size, options.max_size)

    def write(box: Box, part: Tensor | None, map_: Tensor | None) -> None:
        if part is not None and (options.strength != 1 or options.keep_color):
            own = photo.part(photo.size, box).to(part.device)
            part = filters.blended(part, own, options.strength, options.keep_color)
        _store(painting, box, part)
        _store(saliency, box, map_)

    with _one_sentence_on_memory(model, size):
        if working == size:
            _painter(model, photo, mask, scene).paint(write, options)
            return
        small_painting, small_map = (
            None if result is None else torch.empty(*result.shape[:2], *working) for result in (painting, saliency)
        )

        def write_small(box: Box, part: Tensor | None, map_: Tensor | None) -> None:
            _store(small_painting, box, part)
            _store(small_map, box, map_)

        shrunk_mask = None if mask is None else mask.shrunk(working)
        _painter(model, photo.shrunk(working), shrunk_mask, scene).paint(write_small, options)
        for box in tiles(size, ENLARGED_SIDE):
            write(box, _enlarged(small_painting, size, box), _enlarged(small_map, size, box))


def _painter(model: SDPGAN, photo: Photo, mask: Photo | None, scene: Scene | None) -> Painter:
    brush_size = model.config["brush_size"]
    return Painter(model, photo.framed(brush_size), None if mask is None else mask.framed(brush_size), scene)


def _store(result: Tensor | None, box: Box, part: Tensor | None) -> None:
    """Writes a part in [-1, 1] into a result of any dtype."""
    if result is None:
        return
    assert part is not None
    if not torch.isfinite(part).all():
        raise SDPGANError("The model gave values that are not finite; use torch.float32 or bfloat16.")
    top, bottom, left, right = box
    part = part if result.dtype.is_floating_point else imaging.from_signed(part, result.dtype)
    result[..., top:bottom, left:right].copy_(part)


def _enlarged(small: Tensor | None, size: tuple[int, int], box: Box) -> Tensor | None:
    if small is None:
        return None
    enlarged = filters.resized_part(lambda part: small[_slices(part)], _size_of(small), size, box, filters.cubic)
    return enlarged.clamp(-1, 1)


@contextmanager
def _one_sentence_on_memory(model: SDPGAN, size: tuple[int, int]) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.cuda.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)):
            raise
        raise SDPGANError(
            f"An image of {size[1]} x {size[0]} pixels needs more memory than {model.device} has; give a smaller "
            "tile=, such as 256, or max_size=, such as 1024."
        ) from error


def _size_of(images: Tensor) -> tuple[int, int]:
    """Height and width of N x C x H x W."""
    height, width = images.shape[-2:]
    return height, width


def _whole(size: tuple[int, int]) -> Box:
    return 0, size[0], 0, size[1]


def _widened(core: Box, side: int | None, overlap: int, size: tuple[int, int]) -> Box:
    """The tile with its overlap, of one size at the border too, so that each tile reuses the memory of the last."""
    if side is None:
        return core

    def window(start: int, length: int) -> tuple[int, int]:
        wide = min(length, side // SIZE_MULTIPLE * SIZE_MULTIPLE + 2 * overlap)
        first = min(max(0, start - overlap), length - wide)
        return first, first + wide

    return *window(core[0], size[0]), *window(core[2], size[1])


def _cut(tile: Tile, outer: Box, core: Box) -> Tile:
    """The tile without its overlap."""
    inner = _slices((core[0] - outer[0], core[1] - outer[0], core[2] - outer[2], core[3] - outer[2]))
    painting, saliency = (None if part is None else part[inner] for part in (tile.painting, tile.saliency))
    return Tile(tile.photo[inner], painting, saliency)


def _slices(box: Box) -> tuple:
    top, bottom, left, right = box
    return ..., slice(top, bottom), slice(left, right)
