"""Generators to measure against, with random weights, never shipped: the authors' release and other papers'."""

import torch
from torch import Tensor, nn


def normalized(*convolutions: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    """The convolutions, then instance norm and a ReLU."""
    return [*convolutions, nn.InstanceNorm2d(convolutions[-1].out_channels), nn.ReLU(inplace=True)]


class Residual(nn.Sequential):
    """x + layers(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def _first(c: int) -> nn.Sequential:
    return nn.Sequential(*normalized(nn.Conv2d(3, c, 7, 1, 3)))


def _down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*normalized(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)))


def _up(inputs: int, outputs: int) -> nn.Sequential:
    enlarge = nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, 1)
    return nn.Sequential(*normalized(enlarge, nn.Conv2d(outputs, outputs, 3, 1, 1)))


class AuthorsSaliencyNetwork(nn.Module):
    """N x 3 x H x W to the saliency map and the three encoder features."""

    def __init__(self, c: int):
        super().__init__()
        self.encoder = nn.ModuleList([_first(c), _down(c, 2 * c), _down(2 * c, 4 * c)])
        self.decoder = nn.Sequential(_up(4 * c, 2 * c), _up(2 * c, c), nn.Conv2d(c, 1, 7, 1, 3), nn.Tanh())

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = []
        for block in self.encoder:
            x = block(x)
            features.append(x)
        return self.decoder(x), features


class AuthorsGenerator(nn.Module):
    """N x 3 x H x W in [-1, 1] to the same, as the authors' release lays it out, written from its description.

    Down- and up-convolutions are doubled without a non-linearity between them, and the generator owns a private
    saliency network of the same doubled layout, decoder included. 72 GMAC (143 GFLOP) at 256 px and 64 channels.
    """

    def __init__(self, c: int = 64, residual_blocks: int = 8):
        super().__init__()

        def convolution() -> nn.Conv2d:
            return nn.Conv2d(4 * c, 4 * c, 3, 1, 1)

        self.saliency_network = AuthorsSaliencyNetwork(c)
        self.encoder = nn.ModuleList([_first(c), _down(2 * c, 2 * c), _down(4 * c, 4 * c)])
        self.join = nn.Conv2d(8 * c, 4 * c, 1)
        self.decoder = nn.Sequential(
            *(
                Residual(*normalized(convolution()), convolution(), nn.InstanceNorm2d(4 * c))
                for _ in range(residual_blocks)
            ),
            _up(4 * c, 2 * c),
            _up(2 * c, c),
            nn.Conv2d(c, 3, 7, 1, 3),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        _, features = self.saliency_network(x)
        for block, feature in zip(self.encoder, features, strict=True):
            x = torch.cat([block(x), feature], dim=1)
        return self.decoder(self.join(x))


def cyclegan() -> nn.Sequential:
    """c7s1-64, d128, d256, nine R256, u128, u64, c7s1-3 (Zhu et al., ICCV 2017, appendix); for 256 px and above."""

    def reflected(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect")

    return nn.Sequential(
        *normalized(reflected(3, 64, 7)),
        *normalized(nn.Conv2d(64, 128, 3, 2, 1)),
        *normalized(nn.Conv2d(128, 256, 3, 2, 1)),
        *(
            Residual(*normalized(reflected(256, 256, 3)), reflected(256, 256, 3), nn.InstanceNorm2d(256))
            for _ in range(9)
        ),
        *normalized(nn.ConvTranspose2d(256, 128, 3, 2, 1, 1)),
        *normalized(nn.ConvTranspose2d(128, 64, 3, 2, 1, 1)),
        reflected(64, 3, 7),
        nn.Tanh(),
    )


def animegan() -> nn.Sequential:
    """AnimeGANv2's (Chen et al., 2020): inverted residual blocks at a quarter of the resolution, layer norm."""

    def layers(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
        convolution = nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False, padding_mode="reflect"
        )
        return [convolution, nn.GroupNorm(1, outputs), nn.LeakyReLU(0.2, inplace=True)]

    def inverted(inputs: int, outputs: int) -> nn.Sequential:
        inside = 2 * inputs
        body = [
            *layers(inputs, inside, 1),
            *layers(inside, inside, groups=inside),
            nn.Conv2d(inside, outputs, 1, bias=False),
            nn.GroupNorm(1, outputs),
        ]
        return Residual(*body) if inputs == outputs else nn.Sequential(*body)

    enlarged = nn.Upsample(scale_factor=2, mode="bilinear")
    return nn.Sequential(
        *layers(3, 32, 7), *layers(32, 64, stride=2), *layers(64, 64),
        *layers(64, 128, stride=2), *layers(128, 128),
        *layers(128, 128), inverted(128, 256), inverted(256, 256), inverted(256, 256), inverted(256, 256),
        *layers(256, 128),
        enlarged, *layers(128, 128), *layers(128, 128),
        enlarged, *layers(128, 64), *layers(64, 64), *layers(64, 32, 7),
        nn.Conv2d(32, 3, 1, bias=False), nn.Tanh(),
    )  # fmt: skip
