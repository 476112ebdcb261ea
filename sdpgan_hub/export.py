"""A style as one ONNX file that does to a photo what `SDPGAN.stylize` does, with nothing of this package or of torch.

    photo -> Start -> the photo as the networks take it, what S says of it, and the sizes at which it is painted
                   -> a Loop of Step over these sizes: G over the painting of the size before
                   -> End -> painting, saliency

torch traces the three parts for any height and width, and they are joined here: how often a photo is painted depends on
its size, and a trace has no loops. What resizes is a product with matrices that the graph makes from the sizes, since
not every runtime resizes without aliasing. It needs ``pip install "sdpgan_hub[onnx]"``; importing this module does not.
"""

from __future__ import annotations

import copy
import math
import os
import tempfile
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import __version__, filters
from .errors import SDPGANError, one_line
from .files import write_whole
from .networks import MIN_SIZE, SIZE_MULTIPLE, SaliencyFeatures

if TYPE_CHECKING:
    import onnx
    import onnxruntime

    from .model import SDPGAN

OPSET = 17
"""The newest that ONNX Runtime from 1.12 (2022) on reads, and the oldest exporter knows."""
TOLERANCE = 1e-3
"""By how much, in [0, 1], the file may differ from torch: a quarter of a grey level of 8 bit."""
LOOPED = ("difference", "map")
"""What each step hands to the next."""
KNOWN = ("features_1", "features_2", "features_3", "lines", "origin")
"""What S says of its copy of the photo, where it sees one."""
_AXES: dict[str, dict[int, str]] = {
    "turn": {},
    "size": {},
    "sizes": {0: "turns"},
    "origin": {0: "n"},
    **{name: {0: "n", 2: "height", 3: "width"} for name in ("photo", "painting", "saliency")},
}
"""Those that are not of one length always; all else has a height and a width of its own."""
DESCRIPTION = """SDP-GAN (Li et al., IEEE TIP 2021), {style}. Input: photo, N x 3 x H x W, float32, sRGB in [0, 1].
Outputs: painting, N x 3 x H x W in [0, 1]; with a saliency network, saliency, N x 1 x H x W in [0, 1], 1 where people
look. Any height and width from 1 up; the photo is painted whole, so memory grows with it."""


def export(model: SDPGAN, path: str | os.PathLike, style: str = "a style") -> float:
    """Writes `model` as one ONNX file, after ONNX Runtime has painted with it what torch paints.

    The file takes photo, N x 3 x H x W, float32 RGB in [0, 1], of any height and width. It gives painting, of the same
    shape and range, and, where the model has S, saliency, N x 1 x H x W in [0, 1]: what
    `stylize(photo, return_saliency=True, tile=None)` gives for a tensor. The other options of `stylize` are not in it.

    Args:
        model: it stays as it is.
        path: of the file, which is replaced where it exists.
        style: what the file says it paints.

    Returns:
        The largest difference of painting and map from torch's, in [0, 1], for photos painted once and over.

    Raises:
        SDPGANError: if onnx or onnxruntime is not installed, this torch cannot write the model, the file would differ
            from torch by more than `TOLERANCE`, or it cannot be written. Nothing is written then.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise SDPGANError(f'Export needs {error.name}: pip install "sdpgan_hub[onnx]".') from error
    model = copy.deepcopy(model).to("cpu", torch.float32).eval()
    model.generator.bf16 = False  # the file is float32
    content = _graph(model, style).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    brush = model.config["brush_size"]
    over = [(11 * brush // 4 + 3, 3 * brush + 2)] if brush else []  # painted at three sizes
    difference = float(np.max([_difference(model, session, size) for size in [(75, 97), *over]]))
    if not difference <= TOLERANCE:
        raise SDPGANError(
            f"{os.fspath(path)} is not written: ONNX Runtime's result differs from torch's by {difference:.2g} where "
            f"{TOLERANCE:g} is allowed; try other versions of torch and onnxruntime."
        )
    write_whole(path, content)
    return difference


def _graph(model: SDPGAN, style: str) -> onnx.ModelProto:
    """The whole file."""
    side = model.config["saliency_size"]
    photo = torch.zeros(1, 3, MIN_SIZE + 5, side + MIN_SIZE + 6)  # not S's size, nor a multiple of 4
    with torch.no_grad():
        sizes, difference, map_, x, *known = Start(model)(photo)
        turn = torch.tensor(len(sizes) - 1)
        first, after, last = ([f"{when}_{name}" for name in LOOPED] for when in ("first", "next", "last"))
        names = ["x", *KNOWN[: len(known)]]
        outputs = ["painting", "saliency"] if model.saliency_network is not None else ["painting"]
        start = _traced(Start(model), (photo,), ["photo"], ["sizes", *first, *names])
        step = _traced(
            Step(model), (turn, sizes[-1], difference, map_, x, *known), ["turn", "size", *LOOPED, *names], after
        )
        end = _traced(End(model), (photo, difference, map_, x), ["photo", *last, "x"], outputs)
    whole = _joined(start, step, end)
    whole.doc_string = DESCRIPTION.format(style=style)
    whole.producer_name, whole.producer_version = "sdpgan_hub", __version__
    card = model.source and model.source.card()
    if card:  # it names the licence of a style, and whose paintings it learnt from
        whole.metadata_props.add(key="model_card", value=card)
    return whole


class Start(nn.Module):
    """The photo, N x 3 x H x W in [0, 1], to what the steps need.

    Returns the sizes at which it is painted, one a row, what the first step paints over, the photo in [-1, 1] as the
    networks take it, and where S sees a copy: its features, three, its map as lines of the guided filter, and where the
    noise begins.
    """

    def __init__(self, model: SDPGAN):
        super().__init__()
        self.network = model.saliency_network
        self.saliency_size, self.brush_size = model.config["saliency_size"], model.config["brush_size"]

    def forward(self, photo: Tensor) -> tuple[Tensor, ...]:
        height, width = photo.shape[-2:]
        edge = margin(height, width, self.brush_size)
        rows, columns = (mirrored(side, edge) for side in (height, width))
        x = (2 * photo - 1)[:, :, rows][:, :, :, columns]
        looped = x - filters.luma(x), x[:, :1]  # over this, the first step paints the photo itself
        height, width = x.shape[-2:]
        result = coarse_to_fine(height, width, self.brush_size), *looped, x
        if self.network is None or not self.saliency_size:
            return result
        seen = resized(x, self.saliency_size, self.saliency_size)
        features = self.network.encode(seen)
        saliency = self.network.decode(features)
        return *result, *features, filters.guided_lines(saliency, seen), filters.noise_origin(saliency)


class Step(nn.Module):
    """One size of `pipeline.Painter.paint`, over the size before.

    Takes its number, from 0, the size, 2, and from the step before the painting less the luma of its photo,
    N x 3 x h x w, and the map, N x 1 x h x w, and then the rest of what `Start` gives. Returns the painting less luma
    and the map of this size.
    """

    def __init__(self, model: SDPGAN):
        super().__init__()
        self.network, self.generator = model.saliency_network, model.generator
        self.noise, self.keep_detail = model.config["noise"], model.config["keep_detail"]
        self.clear_second, self.clear_later = model.config["clear_lines"]
        self.clear_grain, self.shock_filter = model.config["clear_grain"], model.config["shock_filter"]
        self.layers = [(enlarging(scale), values) for scale, values in filters.noise_layers()]

    def forward(
        self, turn: Tensor, size: Tensor, difference: Tensor, map_: Tensor, x: Tensor, *known: Tensor
    ) -> tuple[Tensor, ...]:
        photo, broad = (resized(image, size[0], size[1]) for image in (x, difference))
        features: SaliencyFeatures | None = None
        saliency, origin = None, torch.zeros(1, 2)
        if known:
            features, (lines, origin) = known[:3], known[3:]
            saliency = filters.along_lines(F.interpolate(lines, photo.shape[-2:], mode="bilinear"), photo)
        elif self.network is not None:
            features = self.network.encode(photo)
            saliency = self.network.decode(features)
        cleared = filters.without_lines(broad, photo, self.clear_second)
        if self.clear_later != self.clear_second:
            cleared = torch.where(turn > 1, filters.without_lines(broad, photo, self.clear_later), cleared)
        broad = cleared
        seen = filters.painted_over(broad, photo, saliency)
        if self.noise:
            height, width = photo.shape[-2:]
            seen = seen + self.noise * self.smooth_noise(height, width, (origin * size).round().long())
        painting = self.generator(seen, features if self.generator.feature_concatenation else None)
        last = torch.as_tensor(x.shape[-2]) == size[0]
        finished = last | (size.min() * filters.SMALLEST_STEP >= filters.VIEWED_SIZE)
        cleared = filters.without_grain(painting, self.clear_grain)
        painting = torch.where((turn > 0) & finished, cleared, painting)
        painting = torch.where(turn > 1, filters.refined(filters.painted_over(broad, photo, None), painting), painting)
        if self.keep_detail and saliency is not None:
            painting = filters.keep_detail(painting, photo, saliency, self.keep_detail * finished)
        if self.shock_filter:
            crisp = filters.crisp(painting, self.shock_filter, saliency, self.keep_detail)
            painting = torch.where(finished, crisp, painting)
        return painting - filters.luma(photo), map_ if saliency is None else saliency

    def smooth_noise(self, height: int, width: int, origin: Tensor) -> Tensor:
        """That of `filters`, whose places are counted from `origin`, N x 2."""
        rows, columns = (
            (places(length) - first) % filters.NOISE_PERIOD
            for length, first in ((height, origin[:, :1]), (width, origin[:, 1:]))
        )
        layers = [
            larger[rows][:, None] @ values @ larger[columns][:, None].transpose(-2, -1)
            for larger, values in self.layers
        ]
        return sum(layers[1:], start=layers[0])


class End(nn.Module):
    """The photo and the last step's results to the painting and, where the model has S, the map, in [0, 1]."""

    def __init__(self, model: SDPGAN):
        super().__init__()
        self.has_map = model.saliency_network is not None
        self.brush_size = model.config["brush_size"]

    def forward(self, photo: Tensor, difference: Tensor, map_: Tensor, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        height, width = photo.shape[-2:]
        edge = margin(height, width, self.brush_size)
        painting = difference + filters.luma(x)
        results = (painting, map_) if self.has_map else (painting,)
        rows, columns = (edge + places(side) for side in (height, width))
        return tuple((image[:, :, rows][:, :, :, columns].clamp(-1, 1) + 1) / 2 for image in results)


def places(length: Any) -> Tensor:
    """0 to `length` - 1; a trace gives lengths as tensors."""
    return torch.arange(length)


def margin(height: int, width: int, brush_size: int) -> Tensor:
    """That of `pipeline.Photo.framed`."""
    shorter = torch.minimum(torch.as_tensor(height), torch.as_tensor(width))
    return (shorter + filters.MARGIN_SHARE - 1) // filters.MARGIN_SHARE if brush_size else torch.zeros_like(shorter)


def mirrored(side: int, edge: Tensor) -> Tensor:
    """For each row or column of `pipeline.Photo` with a margin of `edge` pixels, the one of the photo that it shows."""
    length = torch.as_tensor(side)
    padded = ((length + 2 * edge + SIZE_MULTIPLE - 1) // SIZE_MULTIPLE * SIZE_MULTIPLE).clamp(min=MIN_SIZE)
    period = (2 * length - 2).clamp(min=1)
    place = (places(padded) - edge) % period
    return torch.minimum(place, period - place)


def coarse_to_fine(height: int, width: int, brush_size: int) -> Tensor:
    """`filters.coarse_to_fine` as a tensor, one size a row."""
    own = torch.stack([torch.as_tensor(height), torch.as_tensor(width)])
    ratio = own.min().double() / brush_size if brush_size else torch.ones((), dtype=torch.float64)
    viewed = filters.VIEWED_SIZE / brush_size if brush_size else 0.0
    if viewed <= filters.SMALLEST_STEP * filters.SECOND_STEP:
        viewed = math.inf  # no photo is that large
    takes_it = ratio > filters.SMALLEST_STEP * viewed
    either = torch.tensor([viewed, filters.SECOND_STEP], dtype=torch.float64)
    last = torch.where(takes_it, either[0], either[1])
    later = torch.ceil(torch.log(ratio / last) / math.log(filters.LARGEST_STEP)) * (ratio > filters.LARGEST_STEP)
    step = places((later + takes_it + (ratio > filters.SMALLEST_STEP)).long()).double() - takes_it.double()
    shares = torch.where(step < 1, filters.SECOND_STEP / ratio, (ratio / last) ** ((step - 1) / later - 1))
    shares = torch.where(step + takes_it.double() == 0, 1 / ratio, shares)
    smaller = (4 * torch.round(shares[:, None] * own.double() / 4 - filters.TIE)).clamp(min=16).long()
    return torch.cat([smaller, own[None]])


def resized(image: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
    """`filters.resized`, for sides that are known when the graph runs."""
    return resizing(image.shape[-2], height) @ image @ resizing(image.shape[-1], width).transpose(-2, -1)


def resizing(before: int, after: int | Tensor) -> Tensor:
    """`after` x `before`: what each pixel of a side counts in those of the resized one."""
    step = torch.as_tensor(before).double() / torch.as_tensor(after).double()
    centres = (places(after).double() + 0.5) * step
    weights = filters.triangle((places(before).double() + 0.5 - centres[:, None]) / step.clamp(min=1))
    return (weights / weights.sum(1, keepdim=True)).float()


def enlarging(scale: int) -> Tensor:
    """`NOISE_PERIOD` x n: what each random value of a side counts in the rows or columns of the noise."""
    one = F.pad(torch.eye(filters.NOISE_PERIOD // scale)[None, None], (0, 0, 2, 2), mode="circular")
    tall = F.interpolate(one, (one.shape[2] * scale, one.shape[3]), mode="bicubic")
    return tall[0, 0, 2 * scale : -2 * scale]


def _traced(part: nn.Module, arguments: tuple[Tensor, ...], inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    """One part as ONNX, for any number of photos of any size; only `inputs` and `outputs` have these names."""
    import onnx

    axes = {name: _AXES.get(name, {0: "n", 2: f"{name}_height", 3: f"{name}_width"}) for name in (*inputs, *outputs)}
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of shapes that its checks of sizes compare
            path = os.path.join(folder, "part.onnx")
            torch.onnx.export(
                part, arguments, path, dynamo=False, opset_version=OPSET,
                input_names=inputs, output_names=outputs, dynamic_axes=axes,
            )  # fmt: skip
            model = onnx.load(path)
    except Exception as error:
        raise SDPGANError(f"torch {torch.__version__} cannot write this model as ONNX: {one_line(error)}") from error
    prefix = f"{type(part).__name__}/"
    return onnx.compose.add_prefix(model, prefix, rename_inputs=False, rename_outputs=False)


def _joined(start: onnx.ModelProto, step: onnx.ModelProto, end: onnx.ModelProto) -> onnx.ModelProto:
    """`start`, a Loop of `step` over the sizes, and `end`; the parts know each other's values by their names."""
    from onnx import TensorProto, helper

    parts = [part.graph for part in (start, step, end)]
    scalars = {"turn": TensorProto.INT64, "go_on": TensorProto.BOOL}
    looped = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", None, None, None]) for name in LOOPED]
    body = helper.make_graph(
        [
            helper.make_node("Gather", ["sizes", "turn"], ["size"], axis=0),
            *step.graph.node,
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
        ],
        "step",
        [*(helper.make_tensor_value_info(name, kind, []) for name, kind in scalars.items()), *looped],
        [helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []), *step.graph.output],
    )
    loop = [
        helper.make_node("Shape", ["sizes"], ["turns"], start=0, end=1),
        helper.make_node(
            "Loop", ["turns", "", *(f"first_{name}" for name in LOOPED)], [f"last_{name}" for name in LOOPED], body=body
        ),
    ]
    graph = helper.make_graph(
        [*start.graph.node, *loop, *end.graph.node],
        "sdpgan",
        start.graph.input,
        end.graph.output,
        [values for part in parts for values in part.initializer],
    )
    return helper.make_model(graph, opset_imports=start.opset_import, ir_version=start.ir_version)


def _difference(model: SDPGAN, session: onnxruntime.InferenceSession, size: tuple[int, int]) -> float:
    """The largest between torch's and ONNX Runtime's painting and map of a photo of this size, in [0, 1]."""
    photo = F.interpolate(torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(1)), size, mode="bilinear")
    has_map = model.saliency_network is not None
    expected = model.stylize(photo, return_saliency=has_map, tile=None)
    wanted = [expected[0].numpy(), expected[1][:, None]] if has_map else [expected.numpy()]
    given = session.run(None, {"photo": photo.numpy()})
    return float(np.max([abs(one - other).max() for one, other in zip(given, wanted, strict=True)]))
