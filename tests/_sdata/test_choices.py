"""``evaluate`` tells of choices that saw what is scored, and of no others."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

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


def test_targets_that_an_ensemble_chose_on_these_slides_are_told_of(two_slides: SpatialData):
    new = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6, seed=1)
    options = {"learners": "mean", "group_key": "donor", "progress": False}
    ensemble = h2e.tl.fit(two_slides, n_targets=3, **options)
    for sdata in (two_slides, new):
        h2e.tl.predict(sdata, ensemble, key_added="mine", progress=False)
    two_slides["table"].uns["of another tool"] = {"params": "x"}
    assert_told(evaluate(two_slides, targets=ensemble.targets), CHOSEN.format(by=r"the ensemble behind obsm\['mine'\]"))
    assert evaluate(new, targets=ensemble.targets) == []  # of the same names, but other slides
    named = h2e.tl.fit(two_slides, targets=ensemble.targets, **options)
    h2e.tl.predict(two_slides, named, key_added="mine", progress=False)
    assert evaluate(two_slides, targets=ensemble.targets) == []


# A stain reference that is kept.

KEPT = "the stain reference that images were normalized with was given, and is kept for all groups left out: it was "


def normalized_with(sdata: SpatialData, reference: h2e.pp.StainReference | None) -> list[str]:
    h2e.pp.normalize_stains(sdata, reference)
    return evaluate(sdata, targets="TOY01")


def test_a_reference_that_was_fitted_on_slides_that_are_scored_is_told_of(two_slides: SpatialData, tmp_path):
    of_all = KEPT + r"fitted on images \['toy_A1_image', 'toy_B1_image'\], groups \['A', 'B'\] among them"
    assert_told(normalized_with(two_slides, h2e.pp.fit_stain_reference(two_slides)), of_all)
    two_slides.write(tmp_path / "store.zarr")
    assert_told(evaluate(read_zarr(tmp_path / "store.zarr"), targets="TOY01"), of_all)
    of_one = KEPT + r"fitted on images \['toy_B1_image'\], groups \['B'\] among them"
    assert_told(normalized_with(two_slides, h2e.pp.fit_stain_reference(two_slides, image_key="toy_B1_image")), of_one)


def test_one_that_is_estimated_anew_or_was_fitted_on_other_slides_is_not(few: SpatialData):
    assert normalized_with(few, None) == []
    others = few.filter_by_coordinate_system([name for name in few.shapes if "_A" not in name])
    of_a = h2e.pp.fit_stain_reference(few, image_key="toy_A1_image")
    assert normalized_with(others, of_a) == []


def test_one_of_which_nobody_says_what_it_was_fitted_on_is(two_slides: SpatialData):
    typed = h2e.pp.StainReference("macenko", stains=((0.65, 0.70, 0.29), (0.07, 0.99, 0.11)), concentrations=(1.9, 1.0))
    assert_told(normalized_with(two_slides, typed), KEPT + "fitted on images that nobody names")
    assert normalized_with(two_slides, replace(typed, images=("another scan",))) == []


def test_joining_slides_does_not_hide_what_a_reference_saw(two_slides: SpatialData):
    a = two_slides.filter_by_coordinate_system("toy_A1")
    b = two_slides.filter_by_coordinate_system("toy_B1")
    reference = h2e.pp.fit_stain_reference(a)
    for sdata in (a, b):
        h2e.pp.normalize_stains(sdata, reference)
    told = evaluate(h2e.pp.join_slides({"one": a, "two": b}), targets="TOY01")
    assert_told(told, KEPT + "fitted on images that nobody names")


def test_references_are_equal_whatever_images_they_were_fitted_on(two_slides: SpatialData):
    reference = h2e.pp.fit_stain_reference(two_slides)
    bare = replace(reference, images=())
    assert bare == reference == h2e.pp.StainReference.from_dict(reference.to_dict())
    assert "images" not in bare.to_dict()
