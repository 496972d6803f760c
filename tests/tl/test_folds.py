"""Which donors evaluate leaves out together, and what it says of that."""

from __future__ import annotations

import logging

import h2e
from h2e._ensemble import held_out


def test_folds_of_several_donors_score_each_donor_and_train_fewer_models(few, monkeypatch):
    few["table"].obs["donor"] = few["table"].obs["region"].astype(str)
    seen = []
    real = held_out.train

    def train(features, spec, spots, folds, *args, **options):
        seen.append((set(spec.cohort.groups[spots]), [fold.name for fold in folds]))
        return real(features, spec, spots, folds, *args, **options)

    monkeypatch.setattr(held_out, "train", train)
    options = {"learners": "texture", "baselines": "mean", "targets": ["TOY01"], "metrics": "pearson"}
    scores = h2e.tl.evaluate(few, group_key="donor", n_folds=2, progress=False, **options)
    donors = set(few["table"].obs["donor"])
    assert set(scores["group"]) == donors
    trained = [groups for groups, _ in seen]
    assert [len(groups) for groups in trained] == [2, 2]
    assert trained[0] | trained[1] == donors
    assert all(len(folds) == 2 for _, folds in seen)


def test_what_is_to_be_trained_is_said_before_with_its_number(few, caplog):
    caplog.set_level(logging.INFO, "h2e")
    few["table"].obs["donor"] = few["table"].obs["region"].astype(str)
    options = {"learners": "mean", "baselines": [], "targets": ["TOY01"], "metrics": "pearson", "progress": False}
    counts = {}
    for n_folds, begins in {None: "evaluate: ", 2: "evaluate, 4 groups in 2 folds: "}.items():
        caplog.clear()
        h2e.tl.evaluate(few, group_key="donor", n_folds=n_folds, **options)
        said = next(r.getMessage() for r in caplog.records if r.name == "h2e")
        assert said.startswith(begins)
        counts[n_folds] = int(said.split(" models")[0].split()[-1].replace(",", ""))
    # Each part of the others is left out in turn, and a model is trained on all of them.
    assert counts == {None: 4 * (3 + 1), 2: 2 * (2 + 1)}
