"""Augmentation of a batch: the eight symmetries of a square and stain jitter, each tile by its own draw."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from h2e._learners.texture_features import STAINS


def augment(tiles: Tensor, generator: torch.Generator, *, symmetries: bool = True, stain_jitter: float = 0.1) -> Tensor:
    """Turn and flip each tile of a batch, and scale its stains, each by its own draw.

    Examples
    --------
    >>> white = torch.full((2, 3, 4, 4), 255, dtype=torch.uint8)
    >>> bool((augment(white, torch.Generator().manual_seed(0)) > 240).all())
    True
    """
    n, side = len(tiles), tiles.shape[-1]
    if symmetries:
        symmetry = torch.randint(8, (n,), generator=generator).to(tiles.device)
        turns = symmetry_table(side).to(tiles.device)[symmetry]  # (n, p²)
        tiles = tiles.flatten(2).gather(2, turns[:, None].expand(-1, 3, -1)).reshape(tiles.shape)
    if stain_jitter > 0:
        draws = torch.randn((n, 2, 3), generator=generator).to(tiles.device)
        stains = functional.normalize(torch.tensor(STAINS, dtype=torch.float32, device=tiles.device), dim=1)
        factor = torch.diag_embed(1 + stain_jitter * draws[:, 0].clamp(-2, 2))
        # Density is stainsᵀ · concentration. The shift is a tenth of what the factors change: white stays near white.
        matrix = stains.T @ factor @ torch.linalg.inv(stains.T)  # (n, 3, 3)
        shift = (0.1 * stain_jitter * draws[:, 1].clamp(-2, 2))[:, :, None]
        levels = torch.arange(256, device=tiles.device, dtype=torch.float32)
        density = -torch.log((levels + 1) / 256)[tiles.flatten(2).long()]  # (n, 3, p²)
        tiles = (256 * torch.exp(-(matrix @ density + shift)) - 1).clamp(0, 255).reshape(tiles.shape)
    return tiles


def symmetry_table(side: int) -> Tensor:
    """The eight symmetries of a square as indices into its pixels, (8, side²); the first changes nothing.

    Examples
    --------
    >>> symmetry_table(2)[:3]
    tensor([[0, 1, 2, 3],
            [1, 3, 0, 2],
            [3, 2, 1, 0]])
    """
    square = torch.arange(side * side).reshape(side, side)
    turned = [torch.rot90(square, k) for k in range(4)]
    return torch.stack([*turned, *(t.T for t in turned)]).flatten(1)
