"""What every data set here ends as: lazy pyramids, circles and one table, each slide in a coordinate system of its own."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from h2e._sdata import keys as _keys

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData
    from xarray import DataTree


def halve(pixels: np.ndarray, *, strip: int = 512) -> np.ndarray:
    """Average blocks of 2 × 2 pixels and round; a last odd row or column is left out. (c, y, x) ``uint8``."""
    channels, height, width = pixels.shape
    halved = np.empty((channels, height // 2, width // 2), dtype=np.uint8)
    for top in range(0, height // 2, strip):  # in strips: sums need 16 bits, which the whole slide need not have
        into = halved[:, top : top + strip]
        block = pixels[:, 2 * top : 2 * (top + into.shape[1]), : width // 2 * 2]
        total = block[:, 0::2, 0::2].astype(np.uint16)
        for odd in (block[:, 1::2, 0::2], block[:, 0::2, 1::2], block[:, 1::2, 1::2]):
            total += odd
        into[:] = (total + 2) // 4
    return halved


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
    """Make an image element of the levels of a pyramid, each half of the one before."""
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Identity, set_transformation
    from xarray import DataArray, Dataset, DataTree

    def level_of(index: int) -> Dataset:
        """Name the axes of one level; coordinates are pixel centres of the finest level."""
        pixels = levels[index]
        y, x = ((np.arange(size) + 0.5) * 2.0**index for size in pixels.shape[1:])
        return Dataset(
            {"image": DataArray(pixels, dims=("c", "y", "x"), coords={"c": ["r", "g", "b"], "y": y, "x": x})}
        )

    image = DataTree.from_dict({f"scale{index}": level_of(index) for index in range(len(levels))})
    set_transformation(image, {system: Identity()}, set_all=True)
    Image2DModel().validate(image)
    return image


def circles(xy: np.ndarray, radius_px: float, system: str) -> GeoDataFrame:
    """Make a shapes element of spots; their index is 0, 1, 2, …"""
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Identity

    return ShapesModel.parse(
        np.asarray(xy, dtype=np.float64), geometry=0, radius=float(radius_px), transformations={system: Identity()}
    )


def spot_table(
    counts: pd.DataFrame, *, region: str, donor: str, array: np.ndarray, um_per_px: float, names: Iterable[str]
) -> AnnData:
    """Make the table of one slide; ``array`` holds row and column of each spot on the array."""
    obs = pd.DataFrame(
        {
            "region": region,
            "instance_id": np.arange(len(counts)),
            "donor": donor,
            "array_row": array[:, 0],
            "array_col": array[:, 1],
            _keys.UM_PER_PX: float(um_per_px),
        },
        index=pd.Index(list(names), dtype=object),
    )
    values = csr_matrix(counts.to_numpy(dtype=np.float32))
    return ad.AnnData(values, obs=obs, var=pd.DataFrame(index=pd.Index(counts.columns.astype(str), dtype=object)))


def assemble(images: dict[str, DataTree], shapes: dict[str, GeoDataFrame], tables: Sequence[AnnData]) -> SpatialData:
    """Put slides together: a gene that a slide's table does not list was not seen there, which is a count of 0."""
    from spatialdata import SpatialData
    from spatialdata.models import TableModel

    table = ad.concat(tables, join="outer", fill_value=0, merge="first")
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


def read_counts(path: Path) -> pd.DataFrame:
    """Read a table of counts, spots × genes, as text with tabs (gzipped or not); columns of one gene are added up."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt") as lines:
        genes = next(lines).rstrip("\n").split("\t")[1:]
        rows = [line.partition("\t") for line in lines]
    # numpy parses whole numbers ten times faster than pandas does a table of 15,000 columns, and refuses fractions
    values = np.stack([np.fromstring(row[2], dtype=np.int32, sep="\t") for row in rows]).astype(np.float32)
    counts = pd.DataFrame(values, index=[row[0] for row in rows], columns=genes)
    return counts if counts.columns.is_unique else counts.T.groupby(level=0, sort=False).sum().T
