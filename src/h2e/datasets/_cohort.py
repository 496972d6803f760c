"""What every data set becomes: lazy pyramids, circles and one table; each slide has its own coordinate system."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from h2e._sdata import keys as _keys

if TYPE_CHECKING:
    from spatialdata import SpatialData
    from xarray import DataTree


def halve(pixels: np.ndarray) -> np.ndarray:
    """Average blocks of 2 × 2 pixels and round; a last odd row or column is left out. (c, y, x) ``uint8``."""
    height, width = (size // 2 * 2 for size in pixels.shape[1:])
    total = np.zeros((len(pixels), height // 2, width // 2), np.uint16)
    for corner in range(4):
        total += pixels[:, corner // 2 : height : 2, corner % 2 : width : 2]
    return ((total + 2) // 4).astype(np.uint8)


def pyramid(pixels: np.ndarray, n_levels: int) -> list[np.ndarray]:
    """Halve an image (c, y, x) again and again.

    It is first cut at the right and the bottom to a multiple of the coarsest factor, so that a pixel of any level
    is exactly a block of pixels of the finest one: the origin is shared and no level is stretched.
    """
    factor = 2 ** (n_levels - 1)
    height, width = (size // factor * factor for size in pixels.shape[1:])
    levels = [pixels[:, :height, :width]]
    while len(levels) < n_levels:
        levels.append(halve(levels[-1]))
    return levels


def multiscale_image(levels: Sequence[da.Array], system: str) -> DataTree:
    """Make an image element of the levels of a pyramid."""
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Identity, set_transformation
    from xarray import DataArray, Dataset, DataTree

    elements = {}
    for index, pixels in enumerate(levels):
        # Coordinates are pixel centres of the finest level.
        y, x = ((np.arange(n) + 0.5) * m / n for n, m in zip(pixels.shape[1:], levels[0].shape[1:], strict=True))
        array = DataArray(pixels, dims=("c", "y", "x"), coords={"c": ["r", "g", "b"], "y": y, "x": x})
        elements[f"scale{index}"] = Dataset({"image": array})
    image = DataTree.from_dict(elements)
    set_transformation(image, {system: Identity()}, set_all=True)
    Image2DModel().validate(image)
    return image


def spot_table(counts: pd.DataFrame, spots: pd.DataFrame, *, region: str, donor: str, um_per_px: float) -> AnnData:
    """Make the table of one slide from the counts of its spots and their columns ``x`` and rows ``y`` of the array."""
    names = pd.Index([f"{region}_{spot}" for spot in spots.index], dtype=object)
    obs = pd.DataFrame({"region": region, "instance_id": np.arange(len(spots)), "donor": donor}, index=names)
    obs["array_row"], obs["array_col"] = spots["y"].to_numpy(), spots["x"].to_numpy()
    obs[_keys.UM_PER_PX] = float(um_per_px)
    values = csr_matrix(counts.to_numpy(dtype=np.float32))
    return ad.AnnData(values, obs=obs, var=pd.DataFrame(index=pd.Index(counts.columns.astype(str), dtype=object)))


class Section(NamedTuple):
    """What is known of one slide."""

    name: str
    image: DataTree
    table: AnnData
    xy: np.ndarray  # (n, 2) centres of the spots in pixels
    radius_px: float


def assemble(sections: Sequence[Section]) -> SpatialData:
    """Put slides together: a gene that a slide's table does not list was not seen there, which is a count of 0."""
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity

    images = {f"{one.name}_image": one.image for one in sections}
    shapes = {}
    for one in sections:
        options = {"radius": float(one.radius_px), "transformations": {one.name: Identity()}}
        shapes[one.name] = ShapesModel.parse(np.asarray(one.xy, dtype=np.float64), geometry=0, **options)
    table = ad.concat([one.table for one in sections], join="outer", fill_value=0, merge="first")
    table.X.sort_indices()
    table.obs["region"] = pd.Categorical(table.obs["region"], categories=list(shapes))
    table.obs["donor"] = pd.Categorical(table.obs["donor"])
    table = TableModel.parse(table, region=list(shapes), region_key="region", instance_key="instance_id")
    return SpatialData(images=images, shapes=shapes, tables={_keys.TABLE: table})


def fit_pitch(xy: np.ndarray, array: np.ndarray) -> float:
    """Fit pixels linearly on array coordinates: the side of the square that has the area of a cell of the array.

    Neighbours' distances would be too small where spots are jittered; a fit over all spots is not.
    """
    design = np.column_stack([array, np.ones(len(array))])
    linear = np.linalg.lstsq(design, xy, rcond=None)[0][:2]
    return float(np.sqrt(abs(np.linalg.det(linear))))


def read_spots(path: Path) -> pd.DataFrame:
    """Read a table of spots, which are named by column and row of the array as in tables of counts."""
    spots = pd.read_csv(path, sep="\t")
    return spots.set_index(spots["x"].astype(str) + "x" + spots["y"].astype(str))


def read_counts(path: Path) -> pd.DataFrame:
    """Read a table of counts, spots × genes, as text with tabs (gzipped or not); columns of one gene are added up."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        genes = next(lines).rstrip("\n").split("\t")[1:]
        rows = [line.partition("\t") for line in lines]
    # numpy parses whole numbers ten times faster than pandas does a table of 15,000 columns, and refuses fractions.
    values = np.stack([np.fromstring(row[2], dtype=np.int32, sep="\t") for row in rows]).astype(np.float32)
    counts = pd.DataFrame(values, index=[row[0] for row in rows], columns=genes)
    return counts if counts.columns.is_unique else counts.T.groupby(level=0, sort=False).sum().T
