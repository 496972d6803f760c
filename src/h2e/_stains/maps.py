"""From the stains of a slide and those wanted to the tables of a colour map, and the map applied to a lazy pyramid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from h2e._slide.image import Image
from h2e._slide.tissue import Tissue
from h2e._stains.kernels import boxes_of, colour_map, polynomials
from h2e._stains.reference import StainReference
from h2e._stains.spaces import SPACES

TABLE = 1 << 13
"""Entries of the tables of nonlinear functions: they err by less than a level and stay in the first caches."""

FARTHEST = 20.0
"""Degrees that a stain of a slide may lie from that of the reference; farther ones are artefacts."""

ENOUGH = 5_000
"""Pixels from which the estimate of a slide is taken as it is; below it is shrunk towards the reference."""


def weights(background: float, beta: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """How much of a change pixels get, by their darkest channel and by their brightest.

    Nothing below an optical density of ``beta`` in every channel, everything from twice that on; nothing up to
    level 16 in every channel (black borders), everything from 48 on.
    """
    level = np.arange(256)
    with np.errstate(divide="ignore"):
        od = -np.log((level + 1) / background)
    pale = np.clip((od - beta) / beta, 0, 1) if beta > 0 else np.ones(256)
    dark = np.clip((level - 16) / 32, 0, 1) if beta > 0 else np.ones(256)
    return pale.astype(np.float32), dark.astype(np.float32)


def density_map(slide: StainReference, reference: StainReference, *, keep_residual: bool) -> np.ndarray:
    """3 × 3 matrix that takes the optical density (a row) of a slide's pixel to the reference's stains."""
    gain = np.array([1.0, 1.0, float(keep_residual)])
    if slide.concentrations is not None and reference.concentrations is not None:
        gain[:2] = np.clip(np.array(reference.concentrations) / slide.concentrations, 1 / 3, 3)
    if keep_residual and slide.stains == reference.stains and (gain == 1).all():
        return np.eye(3)
    return np.linalg.solve(slide.matrix, gain[:, None] * reference.matrix)


def density_settings(matrix: np.ndarray, background: float, beta: float) -> tuple[np.ndarray, ...]:
    """``map_density``'s arguments for such a matrix: in log2(intensity + 1), with the ramps of ``weights``."""
    offset = np.log2(background) * (1 - matrix.sum(axis=0))
    ramps = np.array([np.log(background) / beta - 1, np.log(2) / beta, 0.5, 1 / 32] if beta > 0 else [1, 0, -1, 0])
    settings = np.ascontiguousarray(matrix.T), offset, ramps, *polynomials()
    return tuple(array.astype(np.float32) for array in settings)


def lab_tables(slide: StainReference, reference: StainReference) -> dict[str, np.ndarray]:
    """``map_lab``'s tables of the map that gives tissue the reference's mean and spread."""
    space = SPACES[reference.space or "cielab"]
    gain = np.clip(np.array(reference.std) / slide.std, 1 / 3, 3)
    back = np.linalg.inv(space.to_lab)
    offset = back @ (gain * (space.shift - slide.mean) + reference.mean - space.shift)
    affine = np.column_stack([back @ (gain[:, None] * space.to_lab), offset])
    steps = (TABLE - 1) / (space.highest * 1.001)
    sums = space.to_response[:, :, None] * space.linear(np.arange(256.0)) * steps
    # So that truncation rounds.
    sums[:, 0] += 0.5
    low, high = space.forward(np.array([0.0, space.highest * 1.5]))
    light = space.linear(np.array(255.0))
    tables = {
        "sums": sums,
        "forward": space.forward(np.arange(TABLE) / steps),
        "affine": affine,
        "backward": space.backward(np.linspace(low, high, TABLE)),
        "limits": np.array([low, (TABLE - 1) / (high - low)]),
        "mix": np.linalg.inv(space.to_response) * (TABLE - 1) / light,
        "display": space.display(np.linspace(0, light, TABLE)),
    }
    return {name: np.ascontiguousarray(table, dtype=np.float32) for name, table in tables.items()}


def shrink_to_reference(slide: StainReference, reference: StainReference) -> StainReference:
    """A slide's stains, shrunk towards the reference where few pixels speak for them or the colour is implausible."""
    trust = min(1.0, slide.n_pixels / ENOUGH)
    if slide.stains is None:
        if trust == 1:
            return slide
        of_reference, of_slide = (np.array([stains.mean, stains.std], float) for stains in (reference, slide))
        mean, std = of_reference + trust * (of_slide - of_reference)
        return replace(slide, mean=tuple(mean), std=tuple(std))
    own, wanted = slide.matrix[:2], reference.matrix[:2]
    cosine = np.clip((own * wanted).sum(axis=1), -1, 1)
    share = np.minimum(trust, np.radians(FARTHEST) / np.maximum(np.arccos(cosine), 1e-9))
    if (share == 1).all():
        return slide
    stains = wanted + share[:, None] * (own - wanted)
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    amounts = slide.concentrations
    if amounts is not None and reference.concentrations is not None:
        typical = np.array(reference.concentrations)
        amounts = tuple(np.exp(np.log(typical) + trust * np.log(amounts / typical)))
    return replace(slide, stains=tuple(stains), concentrations=amounts)


def map_image(
    image: Image, slide: StainReference | None, reference: StainReference, tissue: Tissue, *, keep_residual: bool
) -> Image:
    """The image with the colours of its tissue mapped, lazily, level by level; unchanged if ``slide`` is ``None``."""
    mask, mask_scale = tissue
    if slide is None or not mask.any():
        return image
    settings = settings_of(shrink_to_reference(slide, reference), reference, keep_residual=keep_residual)
    levels = []
    for level, scale in zip(image.levels, image.scales, strict=True):
        about = {"settings": settings, "mask": mask, "ratio": scale / mask_scale}
        levels.append(level.rechunk({0: -1}).map_blocks(map_block, **about, dtype=np.uint8, meta=level._meta))
    return replace(image, levels=tuple(levels))


def settings_of(
    slide: StainReference, reference: StainReference, *, keep_residual: bool = True, beta: float = 0.15
) -> tuple[str, tuple[np.ndarray, ...]]:
    """Which kernel a map needs, and its tables."""
    if reference.method == "reinhard":
        return "lab", (*lab_tables(slide, reference).values(), *weights(reference.background, beta))
    matrix = density_map(slide, reference, keep_residual=keep_residual)
    return "density", density_settings(matrix, reference.background, beta)


def map_block(
    block: np.ndarray,
    settings: tuple[str, tuple[np.ndarray, ...]],
    mask: np.ndarray | None = None,
    ratio: float = 1.0,
    block_info: dict | None = None,
) -> np.ndarray:
    """Map the tissue of a block (3, y, x); a block without any is returned as it is."""
    origin = (0, 0) if not block_info else tuple(start for start, _ in block_info[0]["array-location"][1:])
    boxes = boxes_of(mask, ratio, origin, block.shape[1:])
    if len(boxes) == 0:
        return block
    kind, tables = settings
    block = np.ascontiguousarray(block)
    whole = boxes[0].tolist() == [0, block.shape[1], 0, block.shape[2]]
    out = np.empty_like(block) if whole else block.copy()
    colour_map(kind)(block, out, boxes, tables)
    return out
