"""The data sets of the scripts, or what stands in for them with ``--smoke``; and their targets as a cohort has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import h2e
from h2e._sdata.cohort import Cohort, open_cohort
from h2e._sdata.keys import Keys
from h2e._sdata.target_spec import TargetSpec

if TYPE_CHECKING:
    from spatialdata import SpatialData


STAND_INS = ("her2st", "mob", "visium_mini")
"""Data sets, by the seed of what stands in for them."""


def load(name: str, *, smoke: bool, slides: Sequence[str] = ("C2", "A1", "B4"), side: int = 4) -> SpatialData:
    """Load a data set of ``h2e.datasets``; with ``smoke``, the synthetic cohort whose slides are called ``slides``."""
    if not smoke:
        return getattr(h2e.datasets, name)(progress=False)
    from spatialdata import SpatialData
    from spatialdata.models import TableModel

    seed = STAND_INS.index(name)
    toy = h2e.datasets.toy_cohort(n_slides=len(slides), n_donors=min(3, len(slides)), side=side, seed=seed)
    names = dict(zip(sorted(toy.shapes), slides, strict=True))
    toy.rename_coordinate_systems(names)
    table = toy["table"]
    table.obs["region"] = table.obs["region"].cat.rename_categories(names)
    table.obsm["major"] = table.obsm.pop("proportions")
    # This one holds log-normalized expression.
    table.X = table.X.log1p() if name == "visium_mini" else table.X
    del table.uns["spatialdata_attrs"]
    return SpatialData(
        images={f"{new}_image": toy[f"{old}_image"] for old, new in names.items()},
        shapes={new: toy[old] for old, new in names.items()},
        tables={"table": TableModel.parse(table, region=list(slides), region_key="region", instance_key="instance_id")},
    )


def cohort_of(sdata: SpatialData, group_key: str) -> Cohort:
    """Open the slides as ``h2e.tl.fit`` does."""
    return open_cohort(sdata, Keys(group_key=group_key))


def targets_of(cohort: Cohort, n_targets: int = 35) -> TargetSpec:
    """Choose and measure targets as ``h2e.tl.evaluate`` does."""
    return TargetSpec(cohort, None, n_targets, None, None, log_normalized=False)
