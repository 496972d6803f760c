"""Warnings name the line of the user, however deep in h2e they arise, and long calls say first what they will do."""

import logging
import warnings

import pytest

import h2e
from h2e._ensemble.fitting import announce_models


def test_a_warning_from_deep_inside_names_the_line_of_the_call():
    sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        h2e.tl.fit(sdata, targets=["TOY01"], learners="mean", progress=False)
    (about_groups,) = [one for one in said if "group_key" in str(one.message)]
    assert about_groups.filename == __file__


@pytest.mark.parametrize("progress", [True, False])
def test_long_calls_say_first_how_much_there_is_to_do(progress: bool, caplog, capsys):
    caplog.set_level(logging.INFO, "h2e")
    sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
    options = {"learners": "mean", "targets": ["TOY01"], "group_key": "donor", "progress": progress}
    h2e.pp.normalize(sdata, progress=progress)
    ensemble = h2e.tl.fit(sdata, **options)
    h2e.tl.evaluate(sdata, **options, baselines=[], metrics="pearson")
    h2e.tl.predict(sdata, ensemble, progress=progress)
    logged = [record.getMessage() for record in caplog.records if record.name == "h2e"]
    bars = capsys.readouterr().err
    said = [line for line in bars.replace("\r", "\n").splitlines() if "about a" in line] if progress else logged
    of = f"{sdata['table'].n_obs} spots of 2 slides"
    begins = ["normalize: tissue, stains and spots of 2 slides:", f"fit: {of}, 3 models:"]
    begins += [f"evaluate: {of}, 2 models:", f"predict: {of}, 3 models:"]
    assert [begin in line for line, begin in zip(said, begins, strict=True)] == [True] * 4
    assert not (logged if progress else bars)


def test_what_the_estimate_does_not_know_is_said(capsys):
    few, network = h2e.tl.Embedding(lambda images: images.mean((2, 3))), h2e.tl.Multiscale(epochs=30)
    announce_models("fit", 1000, 1, [few], 5, progress=True)
    announce_models("fit", 1000, 1, [network], 5, progress=True)
    with_own, on_processor = capsys.readouterr().err.splitlines()
    assert with_own.startswith("fit: 1,000 spots of 1 slide, 5 models, and what other features take: ")
    assert on_processor == "fit: 1,000 spots of 1 slide, 5 models without a GPU: about 2 hours"
