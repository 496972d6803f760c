"""``evaluate`` tells of choices that saw what is scored, and of no others."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

import pytest
from spatialdata import read_zarr

import h2e

if TYPE_CHECKING:
    from spatialdata import SpatialData

CHOSEN = r"targets were chosen on groups \['A', 'B'\], which are scored here \(by {by}\): scores are too good"
SELECTED = CHOSEN.format(by=r"h2e.pp.select_targets, var\['h2e_target'\]")


def evaluate(sdata: SpatialData, **options: object) -> list[str]:
    """Give what is warned of."""
    usual = {"learners": "mean", "baselines": [], "metrics": "pearson", "n_targets": 3, "group_key": "donor"}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        h2e.tl.evaluate(sdata, **usual | options, progress=False)
    return [str(one.message) for one in told]


def selected(sdata: SpatialData, **options: object) -> list[str]:
    """Choose targets, and give their names."""
    table = sdata["table"]
    h2e.pp.select_targets(table, n_targets=3, group_key="donor", **options)
    return table.var_names[table.var["h2e_target"]].tolist()


def assert_told(told: list[str], pattern: str) -> None:
    assert len(told) == 1
    assert re.search(pattern, told[0])


def test_targets_that_were_chosen_on_all_groups_are_told_of(two_slides: SpatialData):
    chosen = selected(two_slides)
    assert_told(evaluate(two_slides, targets=chosen), SELECTED + r"\. Pass targets=None")
    assert_told(evaluate(two_slides, targets=chosen[1]), SELECTED)  # one of them alone is as much of a choice


def test_only_groups_that_had_a_say_are_named(few: SpatialData):
    chosen = selected(few, groups=["A"])
    assert_told(evaluate(few, targets=chosen), r"on groups \['A'\], which")


def test_other_targets_and_other_slides_are_not_told_of(few: SpatialData):
    chosen = selected(few, groups=["A"])
    assert evaluate(few) == []
    other = next(name for name in few["table"].var_names if name not in chosen)
    assert evaluate(few, targets=[*chosen, other]) == []
    others = few.filter_by_coordinate_system([name for name in few.shapes if "_A" not in name])
    assert evaluate(others, targets=chosen) == []


def test_a_choice_by_another_column_of_slides_is_mapped_to_groups(few: SpatialData):
    few["table"].obs["block"] = "block " + few["table"].obs["donor"].astype(str)
    table = few["table"]
    h2e.pp.select_targets(table, n_targets=3, library_key="block", groups=["block B"])
    chosen = table.var_names[table.var["h2e_target"]]
    assert_told(evaluate(few, targets=chosen), r"on groups \['B'\], which")


def test_the_record_of_a_choice_is_stored(two_slides: SpatialData, tmp_path):
    chosen = selected(two_slides)
    two_slides.write(tmp_path / "store.zarr")
    assert_told(evaluate(read_zarr(tmp_path / "store.zarr"), targets=chosen), SELECTED)


@pytest.mark.parametrize("in_sample", [False, True])
def test_targets_that_an_ensemble_chose_on_these_slides_are_told_of(two_slides: SpatialData, in_sample: bool):
    new = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6, seed=1)
    options = {"learners": "mean", "group_key": "donor", "progress": False}
    ensemble = h2e.tl.fit(two_slides, n_targets=3, **options)
    for sdata in (two_slides, new):
        h2e.tl.predict(sdata, ensemble, key_added="mine", in_sample=in_sample, progress=False)
    assert_told(evaluate(two_slides, targets=ensemble.targets), CHOSEN.format(by=r"the ensemble behind obsm\['mine'\]"))
    assert evaluate(new, targets=ensemble.targets) == []  # of the same names, but other slides
    named = h2e.tl.fit(two_slides, targets=ensemble.targets, **options)
    h2e.tl.predict(two_slides, named, key_added="mine", progress=False)
    assert evaluate(two_slides, targets=ensemble.targets) == []
