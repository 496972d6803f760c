"""The correction of where spots lie: a transformation before those that their shapes have."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from h2e._sdata import keys as _keys
from h2e._sdata.provenance import get_provenance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from spatialdata import SpatialData

log = logging.getLogger(__name__)


def apply_correction(sdata: SpatialData, region: str, matrix: np.ndarray) -> None:
    """Apply a matrix to the shapes before each of their transformations."""
    from spatialdata.transformations import Affine, Sequence, get_transformation, set_transformation

    first = Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))
    placed = get_transformation(sdata.shapes[region], get_all=True)
    set_transformation(sdata.shapes[region], {s: Sequence([first, to]) for s, to in placed.items()}, set_all=True)


def remove_correction(sdata: SpatialData, table: AnnData, region: str) -> None:
    """Take the correction of an earlier call away; the transformations are then those of before, not equivalents."""
    from spatialdata.transformations import Affine, Sequence, get_transformation, set_transformation

    earlier = get_provenance(table, _keys.REALIGN).get(region)
    if earlier is None or not earlier["moved"]:
        return
    if not is_in_place(sdata, region, earlier):
        what = "region %r: that spots were moved is noted, but is not in the transformations (stored without them?); the note is dropped"
        log.warning(what, region)
        earlier["moved"] = False
        return
    matrix = np.asarray(earlier["matrix"])
    placed = get_transformation(sdata.shapes[region], get_all=True)
    back = Affine(np.linalg.inv(matrix), input_axes=("x", "y"), output_axes=("x", "y"))
    before = {}
    for system, to in placed.items():
        ours = isinstance(to, Sequence) and len(to.transformations) == 2 and isinstance(to.transformations[0], Affine)
        before[system] = to.transformations[1] if ours else Sequence([back, to])
    set_transformation(sdata.shapes[region], before, set_all=True)
    earlier["moved"] = False
    log.info("region %r: the earlier realignment was taken away", region)


def is_in_place(sdata: SpatialData, region: str, earlier: Mapping[str, object]) -> bool:
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
