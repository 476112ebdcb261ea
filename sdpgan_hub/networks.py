"""The three networks of SDP-GAN (Li et al., IEEE TIP 2021, Sec. III-A and Fig. 2), top to bottom.

Tensors are N x C x H x W. Images are RGB in [-1, 1]; a saliency map has one channel in [-1, 1], 1 where people look.
H and W are multiples of `SIZE_MULTIPLE` and at least `MIN_SIZE`. With c = `base_channels` (64 in the paper) and the
paper's notation k(ernel) n(umber of maps) s(tride):

    SaliencyNetwork  k7 n c s1 | k3 n 2c s2 | k3 n 4c s2                   | k3 n 2c s1/2 | k3 n c s1/2 | k7 n1 s1, tanh
                       |            |            |     features, concatenated to the generator's at the same level
    Generator        k7 n c s1 | k3 n 2c s2 | k3 n 4c s2 | k1 n 4c s1 | 8 x residual k3 n 4c s1
                                                                           | k3 n 2c s1/2 | k3 n c s1/2 | k7 n3 s1, tanh
    Discriminator    k3 n32 s1 | k3 n64 s2 | k3 n128 s2 | k3 n256 s1 | k3 n1 s1, logits

Every block is one convolution, instance normalisation and ReLU. The defaults are the paper's. Four options depart from
it; training/README.md ("Departures from the paper") says why the shipped styles take them:

    context_blocks   S gets dilated bottleneck blocks at a quarter of the resolution, to see whole objects
    normalization    "pixel": G normalises inside its residual blocks alone, over the channels of each pixel
    antialiasing     a binomial filter before every convolution of stride 2
    upsampling       "bilinear": resizing and a convolution in place of a transposed convolution

The authors' release doubles the down- and up-convolutions without a non-linearity between them (twice the cost of one
linear map) and gives the generator a private saliency network that no saliency loss ever trains; here the generator
reads the features of the one `SaliencyNetwork` that Eq. 7 trains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from .errors import SDPGANError

SIZE_MULTIPLE = 4
"""Two convolutions of stride 2: sides that are not multiples of 4 would not come back the same."""
MIN_SIZE = 16
"""Reflection padding of 3 px needs 4 px, at a quarter of the resolution."""
UPSAMPLING = ("transposed", "bilinear")
NORMALIZATION = ("instance", "pixel")
DILATIONS = (1, 2, 4, 8, 16)
"""Of S's context blocks, in turn."""

_REACH = 24
"""Of encoder and decoder: 3 for k7, 3 and 6 for a blur and k3 s2, 4 and 2 for k3 s1/2, 3 for k7, and the rounding."""

SaliencyFeatures = Sequence[Tensor]  # three


class ReflectedConvolution(nn.Conv2d):
    """A square convolution with reflection padding that keeps the size, or divides it by the stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False):
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=bias, padding_mode="reflect")


class Blur(nn.Module):
    """The binomial filter 1 4 6 4 1 along rows and columns, mirrored at the border; N x C x H x W.

    Before a convolution of stride 2 it keeps frequencies from aliasing that the smaller map cannot hold (Zhang, ICML
    2019). Filter and convolution commute, so this costs less than filtering the convolution's output at stride 1.

    Args:
        margin: pixels by which the result is larger on each side, mirrored: the padding of the convolution after it.
    """

    def __init__(self, margin: int = 0):
        super().__init__()
        self.margin = margin

    def forward(self, x: Tensor) -> Tensor:
        taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=x.device, dtype=x.dtype) / 16
        channels = int(x.shape[1])  # a number where ONNX is traced too, which wants kernels of known shapes
        x = F.pad(x, (2 + self.margin,) * 4, mode="reflect")
        return F.conv2d(x, torch.outer(taps, taps).expand(channels, 1, 5, 5), groups=channels)


_STATISTICS: ContextVar[dict[nn.Module, tuple[Tensor, Tensor]] | None] = ContextVar("statistics", default=None)


@contextmanager
def shared_statistics(statistics: dict[nn.Module, tuple[Tensor, Tensor]] | None) -> Iterator[None]:
    """Instance and group norms take mean and variance from `statistics`; those that are not in it add their input's.

    So a first run, of a small copy of the photo, fills an empty dictionary, and tiles of the photo then share its
    statistics (URST: Chen et al., AAAI 2022). With None each input is normalised by its own.
    """
    token = _STATISTICS.set(statistics)
    try:
        yield
    finally:
        _STATISTICS.reset(token)


class _GroupNorm(nn.GroupNorm):
    """Group norm that heeds `shared_statistics`."""

    def forward(self, x: Tensor) -> Tensor:
        shared = _STATISTICS.get()
        if shared is None:
            return super().forward(x)
        groups = x.unflatten(1, (self.num_groups, -1))
        if self not in shared:
            shared[self] = torch.var_mean(groups, (2, 3, 4), correction=0, keepdim=True)
        variance, mean = shared[self]
        normalised = ((groups - mean) * torch.rsqrt(variance + self.eps)).flatten(1, 2)
        return normalised * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1) if self.affine else normalised


class _InstanceNorm(_GroupNorm):
    """Instance norm without parameters as groups of one channel: InstanceNorm2d copies channels_last tensors.

    In float32 under autocast too: sums over an image are no place for bfloat16, whose backward pass is also three
    times slower on a CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class PixelNorm(nn.Module):
    """Each pixel's features over their root mean square (Karras et al., ICLR 2018, Sec. 4.2); N x C x H x W.

    Unlike instance norm it needs nothing beyond the pixel: a crop is painted like the whole, and a dark photo is not
    turned into a mean one.
    """

    def forward(self, x: Tensor) -> Tensor:
        exact = x.float()  # bfloat16 is for convolutions: rounded once here, not three times
        return (exact * torch.rsqrt(exact.square().mean(1, keepdim=True) + 1e-6)).to(x.dtype)


def _instance_norm(channels: int) -> nn.GroupNorm:
    return _InstanceNorm(channels, channels, affine=False)


def _block(convolution: nn.Module, channels: int, normalization: str = "instance") -> list[nn.Module]:
    """A convolution and what follows it outside the residual blocks: with "pixel", no norm."""
    norm = [_instance_norm(channels)] if normalization == "instance" else []
    return [convolution, *norm, nn.ReLU(inplace=True)]


class Down(nn.Sequential):
    """A convolution, of stride 2 after a `Blur` where there is `antialiasing`, norm and ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        normalization: str = "instance",
        antialiasing: bool = False,
    ):
        blur = [Blur(kernel // 2)] if antialiasing and stride > 1 else []
        layer = nn.Conv2d if blur else ReflectedConvolution
        convolution = layer(inputs, outputs, kernel, stride, bias=normalization == "pixel")
        super().__init__(*blur, *_block(convolution, outputs, normalization))

    def forward(self, x: Tensor, joined: Tensor | None = None) -> Tensor:
        """Of x, or of x and `joined` as if concatenated: convolved apart, since copying them takes a CPU longer."""
        for layer in self:
            if joined is None:
                x = layer(x)
            elif isinstance(layer, nn.Conv2d):
                weights = layer.weight.split([x.shape[1], joined.shape[1]], dim=1)
                x = layer._conv_forward(x, weights[0], layer.bias) + layer._conv_forward(joined, weights[1], None)
                joined = None
            else:
                x, joined = layer(x), layer(joined)
        return x


class BilinearConvolution(nn.Conv2d):
    """Bilinear resizing by 2 and a k3 convolution with replication padding, computed before resizing.

    A resized row is 3/4 of the nearest row and 1/4 of the next. So the 3 rows under a filter all come from 3 rows of
    the input, with weights that depend on whether the output's row is even. One 3 x 3 convolution with mixed weights
    gives all four phases of the output, and the resized image is never stored. N x C x H x W to N x C' x 2H x 2W.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = False):
        super().__init__(inputs, outputs, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        phases = [taps for rows in _fold_taps(self.weight, 2) for taps in _fold_taps(rows, 3)]
        weight = torch.stack(phases, dim=1).flatten(0, 1)
        bias = None if self.bias is None else self.bias.repeat_interleave(4)
        return F.pixel_shuffle(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight, bias), 2)


def _fold_taps(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """3 taps on an image resized bilinearly by 2 as 3 taps on the image itself, for even and for odd output pixels.

    Around pixel x1 the resized rows are .. x0/4 + 3 x1/4, 3 x1/4 + x2/4 ..: the second and the third of those below.
    """
    first, middle, last = weight.unbind(dim)
    even = torch.stack([3 * first + middle, first + 3 * (middle + last), last], dim) / 4
    odd = torch.stack([first, 3 * (first + middle) + last, middle + 3 * last], dim) / 4
    return even, odd


def _up(inputs: int, outputs: int, upsampling: str, normalization: str = "instance") -> nn.Sequential:
    """k3 s1/2: the paper's transposed convolution, or bilinear resizing and a convolution; norm and ReLU."""
    bias = normalization == "pixel"
    layer: nn.Module
    if upsampling == "bilinear":
        layer = BilinearConvolution(inputs, outputs, bias)
    else:
        layer = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=bias)
    return nn.Sequential(*_block(layer, outputs, normalization))


class OutputConvolution(nn.Conv2d):
    """k7 s1 with reflection padding to one or three maps; N x C x H x W to N x C' x H x W.

    Each column of the kernel is convolved on its own and the results are added. A CPU computes 8 or 16 maps at a time,
    so 7 or 21 maps of columns waste less of it than 1 or 3 maps. In bfloat16 adding costs more than that saves.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 7, padding=3, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.bfloat16:
            return super().forward(x)
        columns = self.weight.movedim(3, 1).flatten(0, 1).unsqueeze(3)
        each = F.conv2d(F.pad(x, (0, 0, 3, 3), mode="reflect"), columns)
        each = F.pad(each, (3, 3, 0, 0), mode="reflect").unflatten(1, (self.out_channels, 7))
        assert self.bias is not None
        result = self.bias.view(1, -1, 1, 1)
        for column in range(7):
            result = result + each[:, :, column, :, column : column + x.shape[-1]]
        return result


class ResidualBlock(nn.Module):
    """k3 s1, norm, ReLU, k3 s1 and, with "instance", norm again, plus the input (He et al., CVPR 2016)."""

    def __init__(self, channels: int, normalization: str = "instance"):
        super().__init__()
        pixel = normalization == "pixel"
        self.body = nn.Sequential(
            ReflectedConvolution(channels, channels, 3, bias=pixel),
            PixelNorm() if pixel else _instance_norm(channels),
            nn.ReLU(inplace=True),
            ReflectedConvolution(channels, channels, 3, bias=pixel),
            *([] if pixel else [_instance_norm(channels)]),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ContextBlock(nn.Module):
    """k1, dilated k3, k1 at half of the channels with group norm of one group, plus the input: S sees further."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        inner = channels // 2
        self.body = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            _GroupNorm(1, inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation, bias=False),
            _GroupNorm(1, inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class SaliencyNetwork(nn.Module):
    """S: where people look in a photo, and the features that tell it (Sec. III-A, Fig. 2 (c)).

    The arguments are those of `SDPGAN`.

    Attributes:
        reach: how far, in pixels, a result depends on the image, the norms' statistics aside.
    """

    def __init__(
        self,
        base_channels: int = 64,
        upsampling: str = "transposed",
        context_blocks: int = 0,
        antialiasing: bool = False,
    ):
        super().__init__()
        c = _checked_count("base_channels", base_channels, least=1)
        _check_choice("upsampling", upsampling, UPSAMPLING)
        blocks = _checked_count("context_blocks", context_blocks)
        dilations = [DILATIONS[n % len(DILATIONS)] for n in range(blocks)]
        self.down1 = Down(3, c, 7, 1)
        self.down2 = Down(c, 2 * c, 3, 2, antialiasing=antialiasing)
        self.down3 = Down(2 * c, 4 * c, 3, 2, antialiasing=antialiasing)
        self.context = nn.Sequential(*(ContextBlock(4 * c, dilation) for dilation in dilations))
        self.up = nn.Sequential(_up(4 * c, 2 * c, upsampling), _up(2 * c, c, upsampling))
        self.output = nn.Sequential(OutputConvolution(c, 1), nn.Tanh())
        self.reach = _REACH + 4 * sum(dilations)

    def encode(self, image: Tensor) -> SaliencyFeatures:
        """N x 3 x H x W to features of c, 2c and 4c channels at full, half and quarter resolution."""
        check_size(image)
        level1 = self.down1(image)
        level2 = self.down2(level1)
        return level1, level2, self.context(self.down3(level2))

    def logits(self, features: SaliencyFeatures) -> Tensor:
        """The features of `encode` to the saliency map before its tanh, N x 1 x H x W."""
        return self.output[0](self.up(features[-1]))

    def decode(self, features: SaliencyFeatures) -> Tensor:
        """The features of `encode` to a saliency map, N x 1 x H x W in [-1, 1]."""
        return self.output[1](self.logits(features))

    def forward(self, image: Tensor) -> tuple[Tensor, SaliencyFeatures]:
        features = self.encode(image)
        return self.decode(features), features


class Generator(nn.Module):
    """G: a photo and its saliency features to a painting (Sec. III-A, Fig. 2 (a)).

    The arguments are those of `SDPGAN`. With normalization "pixel", G is local and knows how dark a photo is.

    Attributes:
        reach: how far, in pixels, a result depends on the image, the norms' statistics aside.
        bf16: whether the convolutions of residual blocks, up-sampling and output take bfloat16 on a CPU, in evaluation
            mode and without gradients. By default where the processor has AMX, which takes half of the time so. False
            gives float32 on every machine.
    """

    def __init__(
        self,
        base_channels: int = 64,
        residual_blocks: int = 8,
        upsampling: str = "transposed",
        feature_concatenation: bool = True,
        normalization: str = "instance",
        antialiasing: bool = False,
    ):
        super().__init__()
        c = _checked_count("base_channels", base_channels, least=1)
        _check_choice("upsampling", upsampling, UPSAMPLING)
        _check_choice("normalization", normalization, NORMALIZATION)
        blocks = _checked_count("residual_blocks", residual_blocks)
        self.feature_concatenation = feature_concatenation
        wide = 2 if feature_concatenation else 1
        self.down1 = Down(3, c, 7, 1, normalization)
        self.down2 = Down(wide * c, 2 * c, 3, 2, normalization, antialiasing)
        self.down3 = Down(wide * 2 * c, 4 * c, 3, 2, normalization, antialiasing)
        self.join = ReflectedConvolution(8 * c, 4 * c, 1, bias=True) if feature_concatenation else nn.Identity()
        self.residual = nn.Sequential(*(ResidualBlock(4 * c, normalization) for _ in range(blocks)))
        self.up = nn.Sequential(_up(4 * c, 2 * c, upsampling, normalization), _up(2 * c, c, upsampling, normalization))
        self.output = nn.Sequential(OutputConvolution(c, 3), nn.Tanh())
        self.reach = _REACH + 8 * blocks
        self.bf16 = has_amx()
        if normalization == "pixel":
            self._scale_weights()

    @torch.no_grad()
    def _scale_weights(self) -> None:
        """Without norms, first weights that keep the features' variance (He et al., ICCV 2015) and small residuals."""
        for name, module in self.named_modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and not name.startswith("output"):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        blocks = [block for block in self.residual if isinstance(block, ResidualBlock)]
        for layer in (*(block.body[-1] for block in blocks), self.output[0]):
            assert isinstance(layer, nn.Conv2d)
            layer.weight.mul_(0.1)  # of the output too: where a first image is grey, tanh has its full slope

    def forward(self, image: Tensor, saliency_features: SaliencyFeatures | None = None) -> Tensor:
        """N x 3 x H x W and `SaliencyNetwork.encode` of the same image to the painting, N x 3 x H x W in [-1, 1].

        Features of another resolution, those of a smaller copy of the image, are resized bilinearly.
        """
        check_size(image)
        if self.feature_concatenation and saliency_features is None:
            raise SDPGANError("This generator was built with feature_concatenation; give it SaliencyNetwork.encode(x).")
        features = saliency_features if self.feature_concatenation and saliency_features is not None else [None] * 3
        x = self.down1(image)
        for layer, joined in zip((self.down2, self.down3), features, strict=False):
            x = layer(x, _resized_to(x, joined))
        joined = _resized_to(x, features[2])
        x = self.join(x if joined is None else torch.cat([x, joined], dim=1))
        plain = x.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        if self.bf16 and plain and not (self.training or torch.is_grad_enabled()):
            # the sums of the residual blocks stay float32, and so do all layers that feed them: rounded there, single
            # pixels of a painting differ by 50 grey levels
            with torch.autocast("cpu", torch.bfloat16):
                x = self.output[0](self.up(self.residual(x))).float()
        else:
            x = self.output[0](self.up(self.residual(x)))
        return self.output[1](x)


def _resized_to(x: Tensor, features: Tensor | None) -> Tensor | None:
    """Features of a smaller copy at the size and in the dtype of x."""
    if features is not None:
        features = features.to(x.dtype)
        if features.shape[-2:] != x.shape[-2:]:
            features = F.interpolate(features, x.shape[-2:], mode="bilinear")
    return features


class Discriminator(nn.Module):
    """D: is each patch a painting, or a photo, a generated or an edge-blurred one (Sec. III-A, Fig. 2 (b)).

    N x 3 x H x W to logits, N x 1 x H/4 x W/4, each judging a patch of `RECEPTIVE_FIELD` pixels. (The text of the
    paper speaks of 70 x 70 patches; Fig. 2 (b) draws the layers built here, which see 25.)

    Args:
        base_channels: feature maps of the first layer; 32 in the paper.
        spectral: spectral norm on every convolution (Miyato et al., ICLR 2018) in place of instance norm; not in the
            paper.
    """

    RECEPTIVE_FIELD = 25

    def __init__(self, base_channels: int = 32, spectral: bool = False):
        super().__init__()
        c = _checked_count("base_channels", base_channels, least=1)

        def block(inputs: int, outputs: int, stride: int = 1, normalized: bool = False) -> list[nn.Module]:
            layer = ReflectedConvolution(inputs, outputs, 3, stride, bias=spectral or not normalized)
            norm = [_instance_norm(outputs)] if normalized and not spectral else []
            return [spectral_norm(layer) if spectral else layer, *norm, nn.LeakyReLU(0.2, inplace=True)]

        self.layers = nn.Sequential(
            *block(3, c),
            *block(c, 2 * c, stride=2),
            *block(2 * c, 4 * c, stride=2, normalized=True),
            *block(4 * c, 8 * c, normalized=True),
            *block(8 * c, 1)[:-1],
        )

    def forward(self, image: Tensor) -> Tensor:
        check_size(image)
        return self.layers(image)


def has_amx() -> bool:
    """Whether this processor multiplies bfloat16 matrices in tiles; without them, bfloat16 is slower than float32."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)  # not in every version of torch
    return supported is not None and supported()


def check_size(image: Tensor) -> None:
    """Refuses what the networks cannot take, with the size to pad to; `SDPGAN.stylize` pads by itself."""
    if image.ndim != 4 or image.shape[1] != 3:
        raise SDPGANError(f"The networks take N x 3 x H x W; this tensor is {' x '.join(map(str, image.shape))}.")
    height, width = image.shape[-2:]
    padded = tuple(padded_size(side) for side in (height, width))
    if padded != (height, width):
        raise SDPGANError(
            f"The image is {height} x {width}; sides must be multiples of {SIZE_MULTIPLE} and at least {MIN_SIZE}: "
            f"pad it to {padded[0]} x {padded[1]}, or call SDPGAN.stylize, which pads and crops by itself."
        )


def padded_size(side: int) -> int:
    """The smallest side, in pixels, from `side` up that the networks take."""
    return max(MIN_SIZE, -(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE)


def _checked_count(name: str, count: int, least: int = 0) -> int:
    if type(count) is not int or count < least:
        raise SDPGANError(f"{name} is {count!r}; give a whole number from {least} up.")
    return count


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SDPGANError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")
