"""Tables of spots, and the shapes that their rows are about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._slide.slide import Slide
from h2e._warnings import refuse, refuse_if, warn

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData


DERIVED = r"^qc_|_(tiles|tissue|tissues|grid)$|^(tiles|tissue|tissues)$"
"""Names of shapes that tools derive from images."""

ON_TISSUE = r"1( 0+)?|t|true|y|yes|in|inside|on|((in|on|under|inside) )?tissue|covered|foreground"
"""Spellings of yes in ``obs["in_tissue"]``, case and kinds of spaces, dots and dashes aside."""

BESIDE_TISSUE = r"0( 0+)?|f|false|n|no|out|outside|off|((not( in| on| under)?|no|non|off|outside|out of) )tissue"
BESIDE_TISSUE += r"|uncovered|background|bg"
"""Spellings of no."""


def check_sdata(sdata: object) -> None:
    """Refuse everything but a SpatialData."""
    if not hasattr(sdata, "tables"):
        msg = f"sdata must be a SpatialData, got {type(sdata).__name__}; h2e.pp.join_slides makes one of AnnData."
        raise TypeError(msg)


def get_table(sdata: SpatialData, table_key: str = _keys.TABLE) -> AnnData:
    """The table over all slides, or an error that lists what is there."""
    check_sdata(sdata)
    if table_key not in sdata.tables:
        names = sorted(sdata.tables)
        hint = f"Pass table_key={names[0]!r}" if names else "Make a table with h2e.pp.make_spots"
        if len(names) > 1:
            hint = "Pass table_key=, the one with the spots; slides get one table by h2e.pp.join_slides"
        refuse(f"{table_key!r} is not in sdata.tables; it has {names}. {hint}.", KeyError)
    return sdata.tables[table_key]


def table_of(data: SpatialData | AnnData, table_key: str) -> AnnData:
    """The table of a SpatialData, or the table that was given itself."""
    return get_table(data, table_key) if hasattr(data, "tables") else data


def region_keys(table: AnnData) -> tuple[str, str]:
    """Names of the ``obs`` columns that say which shapes element, and which of its instances, a row is about."""
    attrs = table.uns.get("spatialdata_attrs")
    if attrs is None:
        msg = "the table annotates no element: uns['spatialdata_attrs'] is missing. Make it with "
        refuse(msg + "spatialdata.models.TableModel.parse(table, region=..., region_key=..., instance_key=...).")
    return attrs["region_key"], attrs["instance_key"]


def unused_keys(region_key: str, instance_key: str, taken: set[str]) -> tuple[str, str]:
    """The same names for the columns that annotate shapes or, where other columns have them, longer ones."""
    while {region_key, instance_key} & taken:
        region_key, instance_key = f"slide_{region_key}", f"slide_{instance_key}"
    return region_key, instance_key


def labels_of(table: AnnData, key: str) -> np.ndarray:
    """A column of ``obs`` as strings, one per spot, none missing."""
    refuse_if(key not in table.obs, f"{key!r} is not in table.obs; it has {list(table.obs)}.", KeyError)
    if missing := int(table.obs[key].isna().sum()):
        refuse(f"table.obs[{key!r}] is missing for {missing} of {table.n_obs} spots; fill it, or drop these spots.")
    return table.obs[key].astype(str).to_numpy(dtype=object)


def in_tissue(obs: pd.DataFrame, slide: str) -> np.ndarray:
    """Which spots of a slide are not said to lie beside the tissue, as Space Ranger says with ``obs["in_tissue"]``."""
    if "in_tissue" not in obs or obs["in_tissue"].isna().all():
        return np.ones(len(obs), bool)
    words, spots = words_of(obs["in_tissue"]), f"of {len(obs)} spots of slide {slide!r}"
    no, yes = (words.str.fullmatch(pattern).to_numpy(bool) for pattern in (BESIDE_TISSUE, ON_TISSUE))
    gaps = obs["in_tissue"].isna().to_numpy()
    if (unknown := ~(no | yes | gaps)).any():
        values = sorted(set(obs["in_tissue"][unknown].astype(str)))
        msg = f"obs['in_tissue'] must say yes or no, such as 1 and 0, got {values[:10]} for {unknown.sum()} {spots}; "
        refuse(msg + "replace these values, or drop the column.")
    if gaps.any():
        msg = f"obs['in_tissue'] is missing for {gaps.sum()} {spots}: whether they are on tissue is read from the "
        warn(f"{msg}image alone. Fill it, with 0 or 1, to say so yourself.")
    return ~no | gaps


def words_of(column: pd.Series) -> pd.Series:
    """The words in a column of text in one spelling: of lower case, with one space for spaces, dots and dashes."""
    return column.astype(str).str.strip().str.lower().str.replace(r"[\s_.-]+", " ", regex=True)


def positions_of_instances(shapes: GeoDataFrame, region: str, instances: np.ndarray) -> np.ndarray:
    """Which of the shapes of a region the instances are, (n,)."""
    if not shapes.index.is_unique:
        twice = shapes.index[shapes.index.duplicated()][0]
        refuse(f"shapes {region!r} have several entries of one name, such as {str(twice)!r}; make their index unique.")
    named = pd.Index(instances)
    if not named.is_unique:
        msg = f"several rows of the table are about one of the shapes {region!r}, such as "
        refuse(msg + f"{str(named[named.duplicated()][0])!r}; keep one row of each spot.")
    index = shapes.index.get_indexer(instances)
    if (index < 0).any():
        msg = f"{(index < 0).sum()} rows of the table name instances that shapes {region!r} does not have, such as "
        msg += f"{instances[index < 0][0]!r}; they are {instances.dtype}, the index of the shapes {shapes.index.dtype}."
        raise ValueError(msg)
    return index


def radius_of(shapes: GeoDataFrame) -> float:
    """Radius of a spot in the unit of the shapes; of a bin, that of the circle of equal area."""
    return float(np.median(shapes["radius"]) if "radius" in shapes else np.sqrt(np.median(shapes.area) / np.pi))


def angle_of(shapes: GeoDataFrame, to_px: np.ndarray) -> float | None:
    """By how many degrees bins are turned on the image; ``None`` of shapes that are not squares."""
    if "radius" in shapes or shapes.geometry.iloc[0].geom_type != "Polygon":
        return None
    corners = np.asarray(shapes.geometry.iloc[0].exterior.coords)[:, :2] @ to_px[:2, :2].T
    sides = np.diff(corners, axis=0)
    lengths = np.linalg.norm(sides, axis=1)
    right = abs(sides[0] @ sides[1]) < 0.02 * lengths[0] * lengths[1]
    return turn_deg(sides[0]) if len(sides) == 4 and np.ptp(lengths) <= 0.02 * lengths[0] and right else None


def turn_deg(side: np.ndarray) -> float:
    """Of the four directions of a square's sides, the one between -45 and 45 degrees."""
    return float((np.degrees(np.arctan2(side[1], side[0])) + 45) % 90 - 45)


def array_of(obs: pd.DataFrame) -> np.ndarray | None:
    """Array coordinates (column, row) of spots, (n, 2), NaN where one has none; ``None`` without such columns."""
    if not {"array_row", "array_col"} <= set(obs):
        return None
    return obs[["array_col", "array_row"]].to_numpy(float, copy=True)


def is_derived(name: str, shapes: GeoDataFrame) -> bool:
    """Whether shapes are tiles, grids of quality control or outlines that h2e, squidpy or LazySlide made of an image."""
    return _keys.SPACING_UM in shapes or "tile_id" in shapes or re.search(DERIVED, name) is not None


def scalefactors_of(table: AnnData, name: str, region: str) -> Mapping[str, Any]:
    """What readers kept of Space Ranger's ``scalefactors_json.json`` about a slide, in ``uns["spatial"]``."""
    every = table.uns.get("spatial", {})
    alone = len(every) == 1 and table.obs[region_keys(table)[0]].nunique() == 1
    names = [name, region, *(every if alone else ())]
    facts: Mapping[str, Any] = next((every[key] for key in names if key in every), {})
    return facts.get("scalefactors", {})


def shapes_of(sdata: SpatialData, region: str) -> GeoDataFrame:
    """The shapes that the table calls ``region``."""
    if region not in sdata.shapes:
        msg = f"the table annotates region {region!r}, which is not in sdata.shapes; it has {sorted(sdata.shapes)}. "
        refuse(msg + "Drop these rows of the table, or add the shapes.", KeyError)
    return sdata.shapes[region]


def footprints(sdata: SpatialData, slide: Slide, instances: np.ndarray) -> np.ndarray:
    """The area of each spot as a polygon in pixels of level 0: of a circle one of 32 corners, else the shape."""
    import shapely

    shapes, matrix = sdata.shapes[slide.region], slide.to_px
    if "radius" in shapes:
        return shapely.buffer(shapely.points(slide.xy), slide.radius_px, quad_segs=8)
    placed = shapes.geometry.loc[instances].to_numpy()
    return shapely.transform(placed, lambda xy: xy @ matrix[:2, :2].T + matrix[:2, 2])
