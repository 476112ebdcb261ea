"""Generators of other papers as their authors publish them, with random weights, to measure against (never shipped)."""

import torch.nn.functional as F
from torch import Tensor, nn


def cyclegan() -> nn.Sequential:
    """c7s1-64, d128, d256, nine R256, u128, u64, c7s1-3 (Zhu et al., ICCV 2017, appendix); for 256 px and above."""

    def block(convolution: nn.Module, channels: int) -> list[nn.Module]:
        return [convolution, nn.InstanceNorm2d(channels), nn.ReLU(inplace=True)]

    return nn.Sequential(
        *block(nn.Conv2d(3, 64, 7, padding=3, padding_mode="reflect"), 64),
        *block(nn.Conv2d(64, 128, 3, 2, 1), 128),
        *block(nn.Conv2d(128, 256, 3, 2, 1), 256),
        *(
            Residual(
                *block(nn.Conv2d(256, 256, 3, padding=1, padding_mode="reflect"), 256),
                nn.Conv2d(256, 256, 3, padding=1, padding_mode="reflect"),
                nn.InstanceNorm2d(256),
            )
            for _ in range(9)
        ),
        *block(nn.ConvTranspose2d(256, 128, 3, 2, 1, 1), 128),
        *block(nn.ConvTranspose2d(128, 64, 3, 2, 1, 1), 64),
        nn.Conv2d(64, 3, 7, padding=3, padding_mode="reflect"),
        nn.Tanh(),
    )


class Residual(nn.Sequential):
    """x + layers(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Enlarged(nn.Module):
    """Bilinear resizing by 2."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="bilinear")


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

    return nn.Sequential(
        *layers(3, 32, 7), *layers(32, 64, stride=2), *layers(64, 64),
        *layers(64, 128, stride=2), *layers(128, 128),
        *layers(128, 128), inverted(128, 256), inverted(256, 256), inverted(256, 256), inverted(256, 256),
        *layers(256, 128),
        Enlarged(), *layers(128, 128), *layers(128, 128),
        Enlarged(), *layers(128, 64), *layers(64, 64), *layers(64, 32, 7),
        nn.Conv2d(32, 3, 1, bias=False), nn.Tanh(),
    )  # fmt: skip
