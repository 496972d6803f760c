"""A small synthetic cohort in which 35 genes depend on what the tissue looks like."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, NamedTuple

import dask.array as da
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import ndimage

from h2e.datasets._cohort import Section, assemble, multiscale_image, pyramid, spot_table

if TYPE_CHECKING:
    from spatialdata import SpatialData

PITCH_UM = 200.0
PITCH_PX = 32
RADIUS_PX = PITCH_PX / 4
"""Spots have half of the pitch as diameter, as in Spatial Transcriptomics (100 µm, every 200 µm)."""

MARGIN = 2
"""Pitches between the border of the image and the lattice."""

SHIFT = (0.65, -0.45)
"""How far the spots of the shifted slide are from where they were measured, in pitches (x, y)."""

N_BESIDE = 4
"""Spots beside the tissue on each slide."""

N_PLANTED = 35
N_GENES = 60
CELL_TYPES = ("toy_tumour", "toy_stroma", "toy_gland", "toy_immune")

HEMATOXYLIN = np.array([0.65, 0.70, 0.29])
EOSIN = np.array([0.07, 0.99, 0.11])


class Tissue(NamedTuple):
    """What a slide shows: fields over its pixels, (y, x) each."""

    mask: np.ndarray
    fields: np.ndarray  # (3, y, x): nuclear density, stroma, glands; about standard normal


def toy_cohort(*, n_slides: int = 4, n_donors: int = 3, side: int = 10, seed: int = 0) -> SpatialData:
    """Make a small synthetic cohort with a planted relation between tissue and expression.

    Three smooth random fields (density of nuclei, strength of the stroma, glands) draw the image of each slide and
    set the expression of 35 of the 60 genes (``var["planted"]``) and the proportions of four cell types; the other
    genes are noise. Slides differ in stain vectors, stain strength and light; donors differ a little in the level of
    each gene. Some spots lie beside the tissue and have few counts. The recorded spots of the second slide are off
    by 0.65 pitches in x and -0.45 in y: the transformation that undoes this is a translation by minus
    ``uns["toy"]["shift_px"]``. Nothing here was measured; it says nothing about accuracy on real tissue.

    Parameters
    ----------
    n_slides
        Number of slides, ``toy_A1``, ``toy_A2``, ``toy_B1``, …; after Z comes AA.
    n_donors
        Number of donors; the first ones have more slides if ``n_slides`` is larger.
    side
        Spots along a side of the lattice; the tissue covers about half of its square.
    seed
        Seed of everything random. The genes' relation to the tissue depends on it too.

    Returns
    -------
    Per slide ``X``: image ``X_image`` (lazy pyramid of three levels, 6.25 µm/px), circles ``X``, coordinate system
    ``X``. One table: sparse counts, ``obs`` columns ``region``, ``instance_id``, ``donor``, ``array_row``,
    ``array_col``, ``um_per_px`` and ``on_tissue``, ``obsm["proportions"]``.

    Raises
    ------
    ValueError
        There are fewer slides than donors, or too few spots.

    Examples
    --------
    >>> import h2e.datasets
    >>> sdata = h2e.datasets.toy_cohort()
    >>> sorted(sdata.shapes)
    ['toy_A1', 'toy_A2', 'toy_B1', 'toy_C1']
    >>> sdata["table"].shape[1], int(sdata["table"].var["planted"].sum())
    (60, 35)
    """
    if not 1 <= n_donors <= n_slides or side < 4:
        msg = f"toy_cohort needs 1 <= n_donors <= n_slides and side >= 4; got {n_donors=}, {n_slides=}, {side=}."
        raise ValueError(msg)
    donors = sorted(index % n_donors for index in range(n_slides))
    letters = [_letters(donor) for donor in donors]
    names = [f"toy_{donor}{letters[:i].count(donor) + 1}" for i, donor in enumerate(letters)]
    genes_rng = np.random.default_rng([seed, 0])
    weights = plant_genes(genes_rng)
    levels = genes_rng.normal(0, 0.15, (n_donors, N_GENES))
    sections, shift_px = [], {}
    for index, (name, donor) in enumerate(zip(names, donors, strict=True)):
        rng = np.random.default_rng([seed, 1, index])
        tissue = grow_tissue(side, rng)
        pixels = stain_tissue(tissue, rng)
        image = multiscale_image([da.from_array(level, chunks=(3, 128, 128)) for level in pyramid(pixels, 3)], name)
        shift_px[name] = np.array(SHIFT if index == 1 else (0.0, 0.0)) * PITCH_PX
        table, xy = measure(tissue, weights, levels[donor], rng, name=name, donor=letters[index])
        sections.append(Section(name, image, table, xy + shift_px[name], RADIUS_PX))
    sdata = assemble(sections)
    sdata["table"].var["planted"] = np.arange(N_GENES) < N_PLANTED
    sdata["table"].uns["toy"] = {"shift_px": shift_px}
    return sdata


def _letters(number: int) -> str:
    """Name of a donor.

    Examples
    --------
    >>> [_letters(number) for number in (0, 25, 26, 701, 702)]
    ['A', 'Z', 'AA', 'ZZ', 'AAA']
    """
    return (_letters(number // 26 - 1) if number >= 26 else "") + string.ascii_uppercase[number % 26]


def plant_genes(rng: np.random.Generator) -> np.ndarray:
    """Choose how the logarithm of each gene depends on each field, (fields, genes); the last genes do not."""
    weights = rng.normal(0, 0.15, (3, N_GENES))
    main = np.arange(N_PLANTED)
    weights[main % 3, main] = rng.choice([-1, 1], N_PLANTED) * rng.uniform(0.6, 1.0, N_PLANTED)
    weights[:, N_PLANTED:] = 0
    return weights


def smooth_noise(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a standardized smooth random field."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return (field - field.mean()) / field.std()


def grow_tissue(side: int, rng: np.random.Generator) -> Tissue:
    """Draw a wobbly blob of tissue in the middle of the image, and its fields."""
    size = (side - 1 + 2 * MARGIN) * PITCH_PX
    y, x = np.mgrid[:size, :size] + 0.5 - size / 2
    angle, distance = np.arctan2(y, x), np.hypot(y, x)
    phase = rng.uniform(0, 2 * np.pi, 3)
    wobble = sum(a * np.cos(k * angle + p) for a, k, p in zip((0.10, 0.06, 0.04), (2, 3, 5), phase, strict=True))
    mask = distance < 0.42 * side * PITCH_PX * (1 + wobble)
    return Tissue(mask, np.stack([smooth_noise((size, size), PITCH_PX, rng) for _ in range(3)]))


def stain_tissue(tissue: Tissue, rng: np.random.Generator) -> np.ndarray:
    """Draw the slide: nuclei as dark dots, stroma as pink, glands as lumens; absorbed light by Beer and Lambert."""
    shape, (density, stroma, gland) = tissue.mask.shape, tissue.fields
    nuclei = rng.poisson(0.02 * np.exp(0.7 * density)).astype(np.float32)
    dots = ndimage.gaussian_filter(nuclei, 1.2) * 2 * np.pi * 1.2**2
    lumens = 1 / (1 + np.exp(-6 * (smooth_noise(shape, 2.5, rng) + 0.9 * gland - 1.2)))
    hematoxylin = (0.10 + 0.9 * np.minimum(dots, 1.5)) * (1 - 0.9 * lumens)
    fibres = 0.35 + 0.45 / (1 + np.exp(-1.5 * stroma))
    eosin = fibres * (1 - 0.85 * lumens) * (1 + 0.1 * smooth_noise(shape, 1.0, rng))
    vectors = np.abs(np.stack([HEMATOXYLIN, EOSIN]) + rng.normal(0, 0.06, (2, 3)))
    vectors *= rng.uniform([[0.9], [0.7]], [[1.3], [1.3]]) / np.linalg.norm(vectors, axis=1, keepdims=True)
    edge = ndimage.gaussian_filter(tissue.mask.astype(np.float32), 1.0)
    absorbed = np.einsum("syx,sc->cyx", np.stack([hematoxylin, eosin]) * edge, vectors)
    light = rng.uniform(238, 250, (3, 1, 1)) * np.exp(-absorbed)
    return np.clip(light + rng.normal(0, 1.2, light.shape) + 0.5, 0, 255).astype(np.uint8)


def under_spots(field: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Average a field over the disc of each spot, (n,)."""
    reach = int(RADIUS_PX)
    disc = np.hypot(*(np.mgrid[-reach:reach, -reach:reach] + 0.5)) <= RADIUS_PX
    windows = np.lib.stride_tricks.sliding_window_view(field, disc.shape)
    x, y = xy.astype(int).T - reach
    return windows[y, x][:, disc].mean(axis=1)


def measure(
    tissue: Tissue, weights: np.ndarray, level: np.ndarray, rng: np.random.Generator, *, name: str, donor: str
) -> tuple[AnnData, np.ndarray]:
    """Count molecules under the spots of a slide; returns its table and the spots' true centres."""
    side = tissue.mask.shape[0] // PITCH_PX - 2 * MARGIN + 1
    row, column = np.mgrid[:side, :side].reshape(2, -1)
    spots = pd.DataFrame({"x": column, "y": row}, index=[f"{x}x{y}" for x, y in zip(column, row, strict=True)])
    xy = (spots.to_numpy() + MARGIN) * float(PITCH_PX)
    covered = under_spots(tissue.mask.astype(float), xy)
    beside = np.flatnonzero(covered == 0)
    beside = rng.choice(beside, min(N_BESIDE, len(beside)), replace=False)
    kept = np.sort(np.append(np.flatnonzero(covered > 0.5), beside))
    spots, xy, covered = spots.iloc[kept], xy[kept], covered[kept]

    seen = np.stack([under_spots(field, xy) for field in tissue.fields], axis=1)
    depth = np.where(covered > 0, np.exp(rng.normal(0, 0.3, len(kept))), 0.02)
    base = np.exp(np.linspace(0.5, 2.5, N_GENES)[np.arange(N_GENES) * 7 % N_GENES] + level)
    expected = depth[:, None] * base * np.exp(seen @ weights + rng.normal(0, 0.15, (len(kept), N_GENES)))
    counts = pd.DataFrame(rng.poisson(expected), columns=[f"TOY{index + 1:02d}" for index in range(N_GENES)])
    table = spot_table(counts, spots, region=name, donor=donor, um_per_px=PITCH_UM / PITCH_PX)
    table.obs["on_tissue"] = covered > 0
    share = np.exp(np.column_stack([seen, np.zeros(len(kept))]) + rng.normal(0, 0.2, (len(kept), len(CELL_TYPES))))
    share /= share.sum(axis=1, keepdims=True)
    table.obsm["proportions"] = pd.DataFrame(share, index=table.obs_names, columns=list(CELL_TYPES))
    return table, xy
