"""What h2e may replace, and what it must not."""

from __future__ import annotations

import numpy as np
import pytest

import h2e
from h2e._sdata.provenance import settings_of
from h2e._slide.tiles import View


@pytest.fixture(scope="module")
def ensemble() -> h2e.Ensemble:
    sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
    learner = h2e.tl.Texture(views=(View(1, 8),))
    return h2e.tl.fit(sdata, learners=learner, targets=["TOY01"], group_key="donor", progress=False)


@pytest.fixture
def small():
    return h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6, seed=1)


WRITERS = {
    "detect_tissue": lambda s, e, key: h2e.pp.detect_tissue(s, image_key="toy_A1_image", key_added=key),
    "normalize_stains": lambda s, e, key: h2e.pp.normalize_stains(s, image_key="toy_A1_image", key_added=key),
    "tissue_fraction": lambda s, e, key: h2e.pp.tissue_fraction(s, key_added=key),
    "make_spots": lambda s, e, key: h2e.pp.make_spots(
        s, image_key="toy_A1_image", um_per_px=6.25, spacing_um=200, table_key="grid", key_added=key
    ),
    "rank_transform": lambda s, e, key: h2e.pp.rank_transform(s["table"], key_added=key),
    "select_targets": lambda s, e, key: h2e.pp.select_targets(s["table"], n_targets=2, key_added=key),
    "predict": lambda s, e, key: h2e.tl.predict(s, e, key_added=key, progress=False),
}


@pytest.mark.parametrize("key", ["a b", "a/b", "", "..", "ü"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_key_that_a_store_could_not_hold_is_refused(name: str, key: str, small, ensemble):
    with pytest.raises(ValueError, match="key_added must consist of letters, digits"):
        WRITERS[name](small, ensemble, key or " ")


@pytest.mark.parametrize("name", WRITERS)
def test_every_function_that_writes_takes_a_plain_key(name: str, small, ensemble, tmp_path):
    WRITERS[name](small, ensemble, "Mine_1.a-b")
    small.write(tmp_path / "store.zarr")


def test_a_column_of_the_user_is_not_replaced_because_h2e_would_call_one_so(small):
    table = small["table"]
    table.var["h2e_target"] = True
    with pytest.raises(ValueError, match=r"adata.var\['h2e_target'\] is there, and there is no record"):
        h2e.pp.select_targets(table, n_targets=2)
    assert table.var["h2e_target"].all()
    h2e.pp.select_targets(table, n_targets=2, overwrite=True)
    h2e.pp.select_targets(table, n_targets=3)
    assert table.var["h2e_target"].sum() == 3


def test_a_record_of_a_layer_says_nothing_of_a_column_of_that_name(small):
    h2e.pp.rank_transform(small["table"], key_added="mine")
    small["table"].obs["mine"] = 1.0
    with pytest.raises(ValueError, match=r"adata.obs\['mine'\] is there"):
        h2e.pp.tissue_fraction(small, key_added="mine")


def test_names_that_differ_in_case_only_are_one(small):
    small["table"].obs["Tissue_Fraction"] = 1.0
    with pytest.raises(ValueError, match=r"adata.obs\['Tissue_Fraction'\] is there"):
        h2e.pp.tissue_fraction(small)


def test_records_that_are_not_a_dict_are_told_before_anything_is_written(small, ensemble):
    small["table"].uns["h2e"] = ["mine"]
    before = set(small["table"].obs), set(small["table"].layers)
    for call in (
        lambda: h2e.pp.tissue_fraction(small),
        lambda: h2e.pp.rank_transform(small["table"]),
        lambda: h2e.pp.normalize(small),
        lambda: h2e.tl.predict(small, ensemble, progress=False),
    ):
        with pytest.raises(TypeError, match=r"uns\['h2e'\] must be a dict"):
            call()
    assert (set(small["table"].obs), set(small["table"].layers)) == before
    assert small["table"].uns["h2e"] == ["mine"]


def test_settings_of_predictions_do_not_mix_with_records_of_keys(small, ensemble):
    table = small["table"]
    h2e.pp.rank_transform(table, key_added="stack")
    h2e.tl.predict(small, ensemble, progress=False)
    assert table.uns["h2e"]["params"]["stack"]["axis"] == "gene"
    assert settings_of(table, "h2e")["stack"] == "mean"
    h2e.pp.rank_transform(table, key_added="stack")


def test_settings_that_version_0_1_kept_among_the_records_are_read(small):
    small["table"].uns["h2e"] = {"params": {"left_out": "donor", "rank": {"axis": "gene"}}}
    assert settings_of(small["table"], "h2e") == {"left_out": "donor"}


def test_an_image_that_was_normalized_under_another_key_is_what_models_see(small):
    fit = {"learners": h2e.tl.Texture(views=(View(1, 8),)), "targets": ["TOY01"], "group_key": "donor"}
    fit["progress"] = False
    reference = h2e.pp.fit_stain_reference(small)
    for name in ("toy_A1", "toy_B1"):
        h2e.pp.normalize_stains(small, reference, image_key=f"{name}_image", key_added=f"{name}_mine")
    assert h2e.tl.fit(small, **fit).reference == reference
    other = h2e.pp.fit_stain_reference(small, method="reinhard")
    for name in ("toy_A1", "toy_B1"):
        h2e.pp.normalize_stains(small, other, image_key=f"{name}_image", key_added=f"{name}_other")
    with pytest.raises(
        ValueError, match=r"was normalized to \['toy_A1_mine', 'toy_A1_other'\]; say with normalized_key"
    ):
        h2e.tl.fit(small, **fit)
    chosen = {f"{name}_image": f"{name}_other" for name in ("toy_A1", "toy_B1")}
    assert h2e.tl.fit(small, **fit, normalized_key=chosen).reference == other
    with pytest.warns(UserWarning, match="the stain reference that images were normalized with was given"):
        scores = h2e.tl.evaluate(small, **fit, normalized_key=chosen, baselines=["mean"], metrics="pearson")
    assert np.isfinite(scores["value"]).any()
    with pytest.raises(ValueError, match=r"normalized_key='nope' was not made from image 'toy_A1_image'"):
        h2e.tl.fit(small, **fit, normalized_key="nope")
