"""The multiscale network: a tile of 3 × 3 spot spacings in, one value per target out.

Three encoders look at the same 78-px tile: the whole, its nine 26-px subtiles (averaged), and the centre subtile.
A decoder reads the three of them together. The file is read from top to bottom; shapes are in the comments.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from h2e._warnings import refuse, refuse_if

Module = TypeVar("Module", bound=nn.Module)

ENCODERS = ("tile", "subtiles", "center")


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of the network; the defaults are the published one with 6,679,843 parameters.

    Examples
    --------
    >>> network = MultiscaleNetwork(NetworkConfig())
    >>> sum(p.numel() for p in network.parameters())
    6679843
    """

    n_targets: int = 35
    """Length of the output."""
    tile_px: int = 78
    """Side of the tile."""
    subtile_px: int = 26
    """Side of each of the nine subtiles, spread evenly over the tile; 78 = 3 × 26, so that by default they tile it."""
    dropout: float = 0.1
    encoders: tuple[str, ...] = ENCODERS
    """Which of the three to use (for ablations)."""
    residual: bool = True
    """Whether blocks have a shortcut (for ablations)."""
    pyramid_pooling: bool = True
    """Whether to pool at several scales, not only over everything (for ablations)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoders", tuple(self.encoders))
        refuse_if(self.n_targets < 1, f"n_targets must be at least 1, got {self.n_targets}.")
        if not 16 <= self.subtile_px <= self.tile_px or self.tile_px < 26 or (self.tile_px - self.subtile_px) % 2:
            msg = "tile_px must be at least 26, subtile_px at least 16 and no more than tile_px, and both even or both "
            msg += f"odd so that one subtile is central, got tile_px={self.tile_px}, subtile_px={self.subtile_px}."
            raise ValueError(msg)
        refuse_if(not 0 <= self.dropout < 1, f"dropout must be in [0, 1), got {self.dropout}.")
        if not self.encoders or not set(self.encoders) <= set(ENCODERS):
            refuse(f"encoders must be some of {list(ENCODERS)}, got {list(self.encoders)}.")


class Dropout(nn.Module):
    """Dropout that draws from a generator of its own: threads that train networks do not mix their randomness."""

    generator: torch.Generator | None = None

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Zero a share of the values and scale up the others, while training."""
        if not self.training or self.rate == 0:
            return x
        keep = torch.empty_like(x).bernoulli_(1 - self.rate, generator=self.generator)
        return x * keep / (1 - self.rate)


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions, and the shortcut added after the last activation."""

    def __init__(self, n_in: int, n_out: int, *, residual: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(n_in, n_out), *_convolution(n_out, n_out))
        self.residual = residual
        self.shortcut: nn.Module = nn.Identity()
        if residual and n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, h, w) → (B, n_out, h, w)."""
        return self.body(x) + self.shortcut(x) if self.residual else self.body(x)


class Encoder(nn.Module):
    """Convolutions, average pools at several scales, concatenated, and an MLP."""

    def __init__(
        self, widths: Sequence[int], pools: Sequence[int], hidden: Sequence[int], config: NetworkConfig
    ) -> None:
        super().__init__()
        self.pools = tuple(pools) if config.pyramid_pooling else (1,)
        block = partial(ResidualBlock, residual=config.residual)
        layers: list[nn.Module] = [*_convolution(3, 32)]
        for n_in, n_out in itertools.pairwise((32, *widths)):
            layers += [nn.MaxPool2d(2), block(n_in, n_out), block(n_out, n_out)]
        self.convolutions = nn.Sequential(*layers)
        n_pooled = widths[-1] * sum(n * n for n in self.pools)
        layers = []
        for n_in, n_out in itertools.pairwise((n_pooled, *hidden)):
            layers += [Dropout(config.dropout), nn.Linear(n_in, n_out), nn.LeakyReLU(0.01)]
        self.mlp = nn.Sequential(*layers)

    def forward(self, x: Tensor, n_images: int = 1) -> Tensor:
        """(B · n_images, 3, h, w) → (B, hidden[-1]); features are averaged over a sample's images before the MLP."""
        x = self.convolutions(x)
        # (B · n_images, channels × Σ pools²)
        x = torch.cat([functional.adaptive_avg_pool2d(x, n).flatten(1) for n in self.pools], dim=1)
        return self.mlp(x.unflatten(0, (-1, n_images)).mean(1))


class MultiscaleNetwork(nn.Module):
    """Tile, subtile and centre encoders and a decoder.

    The input is a tile of RGB values in 0 to 255, of any dtype; it is scaled to −1 … 1 here, and nowhere else.

    Examples
    --------
    >>> network = MultiscaleNetwork(NetworkConfig(n_targets=4)).eval()
    >>> network(torch.zeros(2, 3, 78, 78, dtype=torch.uint8)).shape
    torch.Size([2, 4])
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        # Convolutions are at 78² (32), then 39² (64), 19² (128), 9² (256); the pools have 256 + 2304 = 2560 values.
        if "tile" in config.encoders:
            self.tile = Encoder((64, 128, 256), (1, 3), (512, 256, 128), config)
        # Convolutions are at 26² (32), then 13² (64), 6² (128); the pools have 128 + 512 + 1152 = 1792 values.
        if "subtiles" in config.encoders:
            self.subtiles = Encoder((64, 128), (1, 2, 3), (256, 128), config)
        if "center" in config.encoders:
            self.center = Encoder((64, 128), (1, 2, 3), (256, 128), config)
        widths = (128 * len(config.encoders), 256, 128, 64)
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.LeakyReLU(0.01), Dropout(config.dropout)]
        self.decoder = nn.Sequential(*layers, nn.Linear(widths[-1], config.n_targets))

    def forward(self, tile: Tensor) -> Tensor:
        """(B, 3, 78, 78) → (B, n_targets)."""
        x = tile.to(torch.float32) / 127.5 - 1
        sub = subtiles(x, self.config.subtile_px)  # (B, 9, 3, 26, 26)
        encoded = []
        if "tile" in self.config.encoders:
            encoded.append(self.tile(x))  # (B, 128)
        if "subtiles" in self.config.encoders:
            encoded.append(self.subtiles(sub.flatten(0, 1), 9))  # (B · 9, 3, 26, 26) → (B, 128)
        if "center" in self.config.encoders:
            encoded.append(self.center(sub[:, 4]))  # (B, 128)
        return self.decoder(torch.cat(encoded, dim=1))  # (B, 384) → (B, n_targets)


def subtiles(tile: Tensor, side: int) -> Tensor:
    """Cut nine windows, row by row, spread evenly over the tile: (B, 3, p, p) → (B, 9, 3, side, side).

    Examples
    --------
    >>> tile = torch.arange(36).reshape(1, 1, 6, 6)
    >>> subtiles(tile, 2)[0, 4, 0]
    tensor([[14, 15],
            [20, 21]])
    """
    starts = [k * ((tile.shape[-1] - side) // 2) for k in range(3)]
    return torch.stack([tile[:, :, y : y + side, x : x + side] for y in starts for x in starts], dim=1)


def build(config: NetworkConfig, *, seed: int) -> MultiscaleNetwork:
    """A network with weights drawn from the seed; the global random state is neither used nor changed."""
    network = initialized(lambda: MultiscaleNetwork(config), seed=seed)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types leave it out


def initialized(make: Callable[[], Module], *, seed: int) -> Module:
    """What ``make`` makes, with weights drawn as PyTorch does, but from a generator of our own."""
    generator = torch.Generator().manual_seed(seed)
    # There are no weights yet, so nothing is drawn from the global generator.
    with torch.device("meta"):
        network = make()
    network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for parameter in module.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_parameters()
    return network


def seed_dropout(network: nn.Module, generator: torch.Generator) -> None:
    """Give all dropout layers one generator, which must be on their device."""
    for module in network.modules():
        if isinstance(module, Dropout):
            module.generator = generator


def fuse_batchnorm(network: MultiscaleNetwork) -> MultiscaleNetwork:
    """The network for prediction only: each batch normalization becomes part of the convolution before it.

    Examples
    --------
    >>> network = build(NetworkConfig(n_targets=2, tile_px=26, subtile_px=16), seed=0)
    >>> any(isinstance(module, nn.BatchNorm2d) for module in fuse_batchnorm(network).modules())
    False
    """
    with torch.device("meta"):
        same = MultiscaleNetwork(network.config).eval()
    # The tensors themselves, not copies.
    same.load_state_dict(network.state_dict(), assign=True)
    for part in same.modules():
        if isinstance(part, nn.Sequential):
            for i, (first, second) in enumerate(itertools.pairwise(part)):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    part[i], part[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return same


def _convolution(n_in: int, n_out: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """A 3 × 3 convolution, batch normalization and SiLU."""
    return nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.SiLU()
