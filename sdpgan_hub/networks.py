"""The three networks of SDP-GAN (Li et al., IEEE TIP 2021, Sec. III-A and Fig. 2), top to bottom.

Tensors are N x C x H x W. Images are RGB in [-1, 1]; a saliency map has one channel in [-1, 1], 1 where people look.
H and W are multiples of `SIZE_MULTIPLE` and at least `MIN_SIZE`. With c = `base_channels` (64 in the paper) and the
paper's notation k(ernel) n(umber of maps) s(tride):

    SaliencyNetwork  k7 n c s1 | k3 n 2c s2 | k3 n 4c s2                   | k3 n 2c s1/2 | k3 n c s1/2 | k7 n1 s1, tanh
                       |            |            |     features, concatenated to the generator's at the same level
    Generator        k7 n c s1 | k3 n 2c s2 | k3 n 4c s2 | k1 n 4c s1 | 8 x residual k3 n 4c s1
                                                                           | k3 n 2c s1/2 | k3 n c s1/2 | k7 n3 s1, tanh
    Discriminator    k3 n32 s1 | k3 n64 s2 | k3 n128 s2 | k3 n256 s1 | k3 n1 s1, logits

Every block is one convolution, instance normalisation and ReLU. The authors' release instead doubles the down- and
up-convolutions without a non-linearity between them (twice the cost of one linear map) and gives the generator a
private saliency network that no saliency loss ever trains; here the generator reads the features of the one
`SaliencyNetwork` that Eq. 7 trains.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .convolution import reflected_convolution, transposed_convolution
from .errors import SDPGANError

SIZE_MULTIPLE = 4
"""Two convolutions of stride 2: sides that are not multiples of 4 would not come back the same."""
MIN_SIZE = 16
"""Reflection padding of 3 px needs 4 px, at a quarter of the resolution."""
UPSAMPLING = ("transposed", "resize", "bilinear")

DETAIL_SIGMA = 4.0
"""Fine structure is what a Gaussian of this many pixels leaves out."""
_DETAIL_RADIUS = round(3 * DETAIL_SIGMA)

SaliencyFeatures = tuple[Tensor, Tensor, Tensor]


class ReflectedConvolution(nn.Conv2d):
    """A square convolution with reflection padding that keeps the size, or divides it by the stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False):
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=bias, padding_mode="reflect")

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return reflected_convolution(x, weight, bias, self.stride[0], self.padding)


class _InstanceNorm(nn.GroupNorm):
    """Instance norm without parameters as groups of one channel: InstanceNorm2d copies channels_last tensors.

    In float32 under autocast too: sums over an image are no place for bfloat16, whose backward pass is also three
    times slower on a CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


def _instance_norm(channels: int) -> nn.GroupNorm:
    return _InstanceNorm(channels, channels, affine=False)


def _down(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = ReflectedConvolution(inputs, outputs, kernel, stride)
    return nn.Sequential(convolution, _instance_norm(outputs), nn.ReLU(inplace=True))


class JoiningConvolution(ReflectedConvolution):
    """A convolution of two maps concatenated, N x C x H x W and N x C' x H x W, as the sum of one of each.

    The concatenated map, the largest of the generator, is never stored.
    """

    def forward(self, x: Tensor, joined: Tensor) -> Tensor:
        first, second = self.weight.split((x.shape[1], joined.shape[1]), dim=1)
        return self._conv_forward(x, first, self.bias).add_(self._conv_forward(joined, second, None))


class _JoiningDown(nn.Sequential):
    """k3 s2 of two maps concatenated, instance norm, ReLU."""

    def __init__(self, inputs: int, outputs: int):
        convolution = JoiningConvolution(inputs, outputs, 3, 2)
        super().__init__(convolution, _instance_norm(outputs), nn.ReLU(inplace=True))

    def forward(self, x: Tensor, joined: Tensor) -> Tensor:
        convolution, norm, activation = self
        return activation(norm(convolution(x, joined)))


class TransposedConvolution(nn.ConvTranspose2d):
    """The paper's k3 s1/2, N x C x H x W to N x C' x 2H x 2W."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return transposed_convolution(x, self.weight)


class ResizeConvolution(nn.Conv2d):
    """Nearest-neighbour resizing by 2 and a k3 convolution with reflection padding, in 4/9 of the multiplications.

    Of the 3 x 3 pixels that an output pixel sees, only 2 x 2 differ; which ones depends on whether its row and its
    column are even. So one 2 x 2 convolution with sums of the weights computes the four kinds before resizing.
    N x C x H x W to N x C' x 2H x 2W.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.stack([on_two for rows in _on_two(self.weight, 2) for on_two in _on_two(rows, 3)]).flatten(0, 1)
        kinds = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight).unflatten(1, (2, 2, -1))
        height, width = x.shape[-2:]
        rows = [
            torch.stack([kinds[:, a, b, :, a : a + height, b : b + width] for b in (0, 1)], dim=-1).flatten(-2)
            for a in (0, 1)
        ]
        return torch.stack(rows, dim=-2).flatten(-3, -2)


def _on_two(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """3 taps onto the 2 pixels that they meet in an image resized by 2, for even and for odd output pixels."""
    first, middle, last = weight.unbind(dim)
    return torch.stack([first, middle + last], dim), torch.stack([first + middle, last], dim)


class BilinearConvolution(nn.Conv2d):
    """Bilinear resizing by 2 and a k3 convolution with replication padding, computed before resizing.

    A resized row is 3/4 of the nearest row and 1/4 of the next, so the 3 rows that a tap row each see of it are 3 rows
    of the input, with weights that depend on whether the output's row is even; columns likewise. So one 3 x 3
    convolution with mixed weights computes the four kinds of output pixels, and no resized image is ever stored.
    Neighbouring kinds see nearly the same: unlike after nearest-neighbour resizing, a grid of 2 px has to be learnt.
    N x C x H x W to N x C' x 2H x 2W.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kinds = [on_three for rows in _on_three(self.weight, 2) for on_three in _on_three(rows, 3)]
        weight = torch.stack(kinds, dim=1).flatten(0, 1)
        return F.pixel_shuffle(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight), 2)


def _on_three(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """3 taps onto the 3 pixels that they meet in an image resized bilinearly by 2, for even and for odd output pixels.

    Around pixel x1 the resized rows are .. x0/4 + 3 x1/4, 3 x1/4 + x2/4 ..: the second and the third of those below.
    """
    first, middle, last = weight.unbind(dim)
    even = torch.stack([3 * first + middle, first + 3 * (middle + last), last], dim) / 4
    odd = torch.stack([first, 3 * (first + middle) + last, middle + 3 * last], dim) / 4
    return even, odd


def _up(inputs: int, outputs: int, upsampling: str) -> nn.Sequential:
    """k3 s1/2: the paper's transposed convolution, or resizing (nearest neighbour, or bilinear) and a convolution."""
    if upsampling == "transposed":
        layer = TransposedConvolution(inputs, outputs)
    else:
        layer = {"resize": ResizeConvolution, "bilinear": BilinearConvolution}[upsampling](inputs, outputs)
    return nn.Sequential(layer, _instance_norm(outputs), nn.ReLU(inplace=True))


class OutputConvolution(nn.Conv2d):
    """k7 s1 with reflection padding to a few maps: the kernel's columns first, as maps of their own, then their sum.

    A processor computes maps by the eight or sixteen: of 1 or 3 most of the work would be thrown away, of the 7 or 21
    columns little is. N x C x H x W to N x C' x H x W.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 7, padding=3, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        columns = self.weight.movedim(3, 1).flatten(0, 1).unsqueeze(3)
        each = reflected_convolution(x, columns, None, 1, (3, 0))
        each = F.pad(each, (3, 3, 0, 0), mode="reflect").unflatten(1, (self.out_channels, 7))
        result = self.bias.view(1, -1, 1, 1)
        for column in range(7):
            result = result + each[:, :, column, :, column : column + x.shape[-1]]
        return result


def _output(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(OutputConvolution(inputs, outputs), nn.Tanh())


class ResidualBlock(nn.Module):
    """k3 s1, instance norm, ReLU, k3 s1, instance norm, plus the input (He et al., CVPR 2016)."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            ReflectedConvolution(channels, channels, 3),
            _instance_norm(channels),
            nn.ReLU(inplace=True),
            ReflectedConvolution(channels, channels, 3),
            _instance_norm(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class SaliencyNetwork(nn.Module):
    """S: where people look in a photo, and the features that tell it (Sec. III-A, Fig. 2 (c)).

    Args:
        base_channels: feature maps at full resolution; 64 in the paper.
        upsampling: "transposed" (the paper), "resize" or "bilinear".
    """

    def __init__(self, base_channels: int = 64, upsampling: str = "transposed"):
        super().__init__()
        c = _checked_width(base_channels)
        _check_upsampling(upsampling)
        self.down1 = _down(3, c, 7, 1)
        self.down2 = _down(c, 2 * c, 3, 2)
        self.down3 = _down(2 * c, 4 * c, 3, 2)
        self.up = nn.Sequential(_up(4 * c, 2 * c, upsampling), _up(2 * c, c, upsampling))
        self.output = _output(c, 1)

    def encode(self, image: Tensor) -> SaliencyFeatures:
        """N x 3 x H x W to features of c, 2c and 4c channels at full, half and quarter resolution."""
        check_size(image)
        level1 = self.down1(image)
        level2 = self.down2(level1)
        return level1, level2, self.down3(level2)

    def decode(self, features: SaliencyFeatures) -> Tensor:
        """The features of `encode` to a saliency map, N x 1 x H x W in [-1, 1]."""
        return self.output(self.up(features[-1]))

    def forward(self, image: Tensor) -> tuple[Tensor, SaliencyFeatures]:
        features = self.encode(image)
        return self.decode(features), features


class Generator(nn.Module):
    """G: a photo and its saliency features to a painting (Sec. III-A, Fig. 2 (a)).

    Args:
        base_channels: feature maps at full resolution; 64 in the paper.
        residual_blocks: 8 in the paper.
        upsampling: "transposed" (the paper), "resize" or "bilinear".
        feature_concatenation: False leaves the saliency features out (the ablation of Fig. 11 (b)).
    """

    def __init__(
        self,
        base_channels: int = 64,
        residual_blocks: int = 8,
        upsampling: str = "transposed",
        feature_concatenation: bool = True,
    ):
        super().__init__()
        c = _checked_width(base_channels)
        _check_upsampling(upsampling)
        if not isinstance(residual_blocks, int) or residual_blocks < 0:
            raise SDPGANError(f"residual_blocks is {residual_blocks!r}; give a whole number from 0 up (the paper: 8).")
        self.feature_concatenation = feature_concatenation
        self.down1 = _down(3, c, 7, 1)
        if feature_concatenation:
            self.down2, self.down3 = _JoiningDown(2 * c, 2 * c), _JoiningDown(4 * c, 4 * c)
            self.join = JoiningConvolution(8 * c, 4 * c, 1, bias=True)
        else:
            self.down2, self.down3, self.join = _down(c, 2 * c, 3, 2), _down(2 * c, 4 * c, 3, 2), nn.Identity()
        self.residual = nn.Sequential(*(ResidualBlock(4 * c) for _ in range(residual_blocks)))
        self.up = nn.Sequential(_up(4 * c, 2 * c, upsampling), _up(2 * c, c, upsampling))
        self.output = _output(c, 3)

    def forward(self, image: Tensor, saliency_features: SaliencyFeatures | None = None) -> Tensor:
        """N x 3 x H x W and `SaliencyNetwork.encode` of the same image to the painting, N x 3 x H x W in [-1, 1]."""
        check_size(image)
        if self.feature_concatenation and saliency_features is None:
            raise SDPGANError("This generator was built with feature_concatenation; give it SaliencyNetwork.encode(x).")
        x = self.down1(image)
        for level, layer in enumerate((self.down2, self.down3, self.join)):
            x = layer(x, saliency_features[level]) if self.feature_concatenation else layer(x)
        return self.output(self.up(self.residual(x)))


class Discriminator(nn.Module):
    """D: is each patch a painting, or a photo, a generated or an edge-blurred one (Sec. III-A, Fig. 2 (b)).

    N x 3 x H x W to logits, N x 1 x H/4 x W/4, each judging a patch of `RECEPTIVE_FIELD` pixels. (The text of the
    paper speaks of 70 x 70 patches; Fig. 2 (b) draws the layers built here, which see 25.)

    Args:
        base_channels: feature maps of the first layer; 32 in the paper.
    """

    RECEPTIVE_FIELD = 25

    def __init__(self, base_channels: int = 32):
        super().__init__()
        c = _checked_width(base_channels)
        self.layers = nn.Sequential(
            ReflectedConvolution(3, c, 3, bias=True),
            nn.LeakyReLU(0.2, inplace=True),
            ReflectedConvolution(c, 2 * c, 3, stride=2, bias=True),
            nn.LeakyReLU(0.2, inplace=True),
            ReflectedConvolution(2 * c, 4 * c, 3, stride=2),
            _instance_norm(4 * c),
            nn.LeakyReLU(0.2, inplace=True),
            ReflectedConvolution(4 * c, 8 * c, 3),
            _instance_norm(8 * c),
            nn.LeakyReLU(0.2, inplace=True),
            ReflectedConvolution(8 * c, 1, 3, bias=True),
        )

    def forward(self, image: Tensor) -> Tensor:
        check_size(image)
        return self.layers(image)


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


def _checked_width(base_channels: int) -> int:
    if isinstance(base_channels, bool) or not isinstance(base_channels, int) or base_channels < 1:
        raise SDPGANError(f"base_channels is {base_channels!r}; give a whole number from 1 up (the paper: 64).")
    return base_channels


def _check_upsampling(upsampling: str) -> None:
    if upsampling not in UPSAMPLING:
        raise SDPGANError(f"upsampling is {upsampling!r}; choose one of {', '.join(UPSAMPLING)}.")


def keep_detail(painting: Tensor, photo: Tensor, saliency: Tensor, share: float) -> Tensor:
    """The painting with fine structure of the photo where people look, beyond the paper: a skip connection around G.

        G(x) + share (S(x) + 1) / 2 fine(Y(x) - Y(G(x)))

    Y is the luma (ITU-R BT.601) and fine(a) what a Gaussian of `DETAIL_SIGMA` px leaves of a. Hues, tones and what is
    broader than a few pixels stay the painting's everywhere, and all of it where the map is 0. The map is a constant:
    through it S could lower a loss by ceasing to detect.

    Args:
        painting: G(x), N x 3 x H x W in [-1, 1].
        photo: x, likewise. H and W are at least `MIN_SIZE`.
        saliency: S(x), N x 1 x H x W in [-1, 1].
        share: 0 (the painting as it is) to 1 (at the most salient places, all of the photo's fine luma).
    """
    difference = luma(photo - painting)
    fine = difference - _blurred(difference)
    return (painting + share * (saliency.detach() + 1) / 2 * fine).clamp(-1, 1)


def luma(image: Tensor) -> Tensor:
    """ITU-R BT.601's, N x 3 x H x W to N x 1 x H x W; linear, so of differences too."""
    red, green, blue = image.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _blurred(image: Tensor) -> Tensor:
    """One channel, after a Gaussian of `DETAIL_SIGMA` px, mirrored at the border."""
    places = torch.arange(-_DETAIL_RADIUS, _DETAIL_RADIUS + 1, device=image.device)
    taps = torch.exp(-0.5 * (places / DETAIL_SIGMA) ** 2)
    taps = (taps / taps.sum()).to(image.dtype)
    padded = F.pad(image, (_DETAIL_RADIUS,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))
