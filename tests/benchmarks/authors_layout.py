"""The generator as the authors' release lays it out, written from its description, to measure against (never shipped).

Down- and up-convolutions are doubled without a non-linearity between them, and the generator owns a private saliency
network of the same doubled layout, decoder included. 72 GMAC (143 GFLOP) at 256 px and 64 channels.
"""

import torch
from torch import Tensor, nn


def _down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, 2, 1),
        nn.Conv2d(outputs, outputs, 3, 1, 1),
        nn.InstanceNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, 1),
        nn.Conv2d(outputs, outputs, 3, 1, 1),
        nn.InstanceNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _first(c: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, c, 7, 1, 3), nn.InstanceNorm2d(c), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1),
            nn.InstanceNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, 1, 1),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


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
    """N x 3 x H x W in [-1, 1] to the same, with a private saliency network inside."""

    def __init__(self, c: int = 64, residual_blocks: int = 8):
        super().__init__()
        self.saliency_network = AuthorsSaliencyNetwork(c)
        self.encoder = nn.ModuleList([_first(c), _down(2 * c, 2 * c), _down(4 * c, 4 * c)])
        self.join = nn.Conv2d(8 * c, 4 * c, 1)
        self.decoder = nn.Sequential(
            *(_Residual(4 * c) for _ in range(residual_blocks)),
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
