"""What can be taken back: what a step wrote that failed, and corrections of where spots lie.

A correction is a transformation before those that the shapes have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.provenance import get_provenance, set_provenance
from h2e._warnings import log

if TYPE_CHECKING:
    from spatialdata import SpatialData


@contextmanager
def all_or_nothing(sdata: SpatialData, table_key: str = _keys.TABLE) -> Iterator[None]:
    """Put elements, placements, records and the table's columns and layers back as they were if the block raises."""
    from spatialdata.transformations import get_transformation, set_transformation

    before = {kind: dict(getattr(sdata, kind)) for kind in ("images", "labels", "shapes", "tables")}
    placed = {key: dict(get_transformation(shapes, get_all=True)) for key, shapes in sdata.shapes.items()}
    # Records are kept in new dicts, so shallow copies of attrs and uns stay as they are.
    attrs = sdata.attrs
    table = sdata.tables.get(table_key)
    if table is not None:
        obs, layers, uns = table.obs.copy(), dict(table.layers), dict(table.uns)
    try:
        yield
    except BaseException:
        for kind, elements in before.items():
            _put_back(getattr(sdata, kind), elements)
        for key, transformations in placed.items():
            set_transformation(sdata.shapes[key], transformations, set_all=True)
        sdata.attrs = attrs
        if table is not None:
            table.obs, table.uns = obs, uns
            _put_back(table.layers, layers)
        raise


def _put_back(group: MutableMapping[str, object], elements: dict[str, object]) -> None:
    """Drop the elements that are new, and return those that were replaced."""
    for key in [key for key, element in group.items() if elements.get(key) is not element]:
        del group[key]
    group.update({key: element for key, element in elements.items() if key not in group})


def apply_correction(sdata: SpatialData, region: str, matrix: np.ndarray) -> None:
    """Apply a matrix to the shapes before each of their transformations."""
    from spatialdata.transformations import Affine, Sequence, get_transformation, set_transformation

    first = Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))
    placed = get_transformation(sdata.shapes[region], get_all=True)
    set_transformation(sdata.shapes[region], {s: Sequence([first, to]) for s, to in placed.items()}, set_all=True)


def remove_corrections(sdata: SpatialData, table: AnnData) -> None:
    """Take the corrections of earlier calls away; the transformations are then those of before, not equivalents."""
    for region, earlier in get_provenance(table, _keys.REALIGN).items():
        if region not in sdata.shapes or not earlier["moved"]:
            continue
        if is_in_place(sdata, region, earlier):
            _remove_correction(sdata, region, np.asarray(earlier["matrix"]))
            log.info("region %r: the earlier realignment was taken away", region)
        else:
            what = "region %r: the spots are on record as moved, but their transformations do not move them (stored "
            log.warning(what + "without them?); the record is dropped", region)
        set_provenance(table, _keys.REALIGN, region, {**earlier, "moved": False})


def _remove_correction(sdata: SpatialData, region: str, matrix: np.ndarray) -> None:
    """Take a matrix away that is the first thing that each transformation of the shapes does."""
    from spatialdata.transformations import Affine, Sequence, get_transformation, set_transformation

    placed = get_transformation(sdata.shapes[region], get_all=True)
    back = Affine(np.linalg.inv(matrix), input_axes=("x", "y"), output_axes=("x", "y"))
    before = {}
    for system, to in placed.items():
        ours = isinstance(to, Sequence) and len(to.transformations) == 2 and isinstance(to.transformations[0], Affine)
        before[system] = to.transformations[1] if ours else Sequence([back, to])
    set_transformation(sdata.shapes[region], before, set_all=True)


def is_in_place(sdata: SpatialData, region: str, earlier: Mapping[str, Any]) -> bool:
    """Whether the correction that was noted is the first thing that each transformation of the shapes does.

    It is not where a store holds the table, with the note, and the shapes as they were before.
    """
    from spatialdata.transformations import Affine, Sequence, get_transformation

    for to in get_transformation(sdata.shapes[region], get_all=True).values():
        while isinstance(to, Sequence):
            to = to.transformations[0]
        if not (isinstance(to, Affine) and np.allclose(to.matrix, np.asarray(earlier["matrix"]))):
            return False
    return True
