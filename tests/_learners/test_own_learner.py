"""Learners of users take part in everything, and what they lack is said at once."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import h2e
from h2e._learners.registry import LEARNERS, NAMES, LearnerName, from_json, learner_of, to_json

PAGE = Path(__file__).parents[2] / "docs" / "learners.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
OPTIONS = {"targets": ["TOY01", "TOY05"], "group_key": "donor", "progress": False}


@dataclass(frozen=True)
class Constant(h2e.tl.Model):
    """The same values everywhere."""

    mean: np.ndarray

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.tile(self.mean, (len(x), 1))

    def arrays(self) -> dict[str, np.ndarray]:
        return {"mean": self.mean}


@dataclass(frozen=True)
class Own(h2e.tl.Learner):
    """A learner with every kind of setting."""

    name = "own"
    uses = "xy"
    depth: int = 2
    widths: tuple[int, ...] = (3, 4)
    shapes: tuple[tuple[int, ...], ...] = ((1, 2), (3,))
    cache: str | None = None
    device: str | None = None

    def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, **_: Any) -> Constant:
        return Constant(y.mean(axis=0))

    def restore(self, arrays: dict[str, np.ndarray]) -> Constant:
        return Constant(**arrays)


def of_tiles(**parts: object) -> h2e.tl.Learner:
    """A learner of tiles with other parts."""
    usual = {
        "name": "own",
        "uses": "tiles",
        "views": (h2e.tl.View(1, 8),),
        "extract_features": lambda _, tiles: tiles[0],
    }
    return type("Other", (Own,), usual | parts)()


def test_the_example_of_the_documentation_is_trained_evaluated_saved_loaded_and_predicts(
    few, new, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example", "sdata": few, "new": new}
    for number, block in enumerate(BLOCKS, start=1):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec", dont_inherit=True), names)
    table = names["table"].set_index(["method", "metric"])["mean"]
    assert {"ensemble", "texture", "kernel_ridge", "without kernel_ridge"} <= set(
        table.index.get_level_values("method")
    )
    assert table["kernel_ridge", "pearson"] > 0.1  # of few spots; 0 if it had learned nothing
    assert names["loaded"].learners == names["ensemble"].learners
    assert names["loaded"].learners[1].alpha == 1.0
    h2e.tl.predict(new, names["ensemble"], key_added="before", progress=False)
    pd.testing.assert_frame_equal(new["table"].obsm["h2e"], new["table"].obsm["before"])
    assert new["table"].obsm["h2e"].notna().to_numpy().mean() > 0.9
    written = ["README.md", "ensemble.json", "weights.safetensors"]
    assert sorted(path.name for path in (tmp_path / "ensemble").iterdir()) == written


def test_features_in_obsm_reach_a_learner_of_ones_own(cohort):
    table = cohort["table"]
    table.obsm["X_mine"] = np.random.default_rng(0).normal(size=(table.n_obs, 3)).astype(np.float32)
    seen = []

    class Reading(Own):
        uses, obsm = "obsm", "X_mine"

        def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, **_: Any) -> Constant:
            seen.append(x)
            return super().fit(x, y, groups)

    h2e.tl.fit(cohort, learners=[Reading()], **OPTIONS)
    assert len(seen[-1]) == 230
    assert np.isin(seen[-1], table.obsm["X_mine"]).all()


# What is lacking


@pytest.mark.parametrize(
    ("parts", "lacking"),
    [
        ({"views": ()}, "must have views, since its uses is 'tiles'"),
        (
            {"extract_features": h2e.tl.Learner.extract_features},
            "must have extract_features, since its uses is 'tiles'",
        ),
        ({"uses": "obsm"}, "must have obsm, since its uses is 'obsm'"),
        ({"views": [h2e.tl.View(1, 8)]}, None),
        ({"uses": "pixels"}, r"uses of learner 'own' must be one of \['tiles', 'xy', 'obsm'\], got 'pixels'"),
        ({"name": "my learner"}, "must be an identifier other than 'ensemble', got 'my learner'"),
        ({"name": "ensemble"}, "must be an identifier other than 'ensemble', got 'ensemble'"),
        ({"name": "texture"}, "name of learner Other must be one that no learner of h2e has, got 'texture'"),
        ({"name": "knn"}, "name of learner Other must be one that no learner of h2e has, got 'knn'"),
        ({"settings": lambda _: {"model": object()}}, "settings of learner 'own' must be numbers, strings.*got object"),
    ],
)
def test_a_learner_is_refused_with_what_it_lacks(parts: dict, lacking: str | None):
    if lacking is None:
        assert learner_of(of_tiles(**parts)).name == "own"
        return
    with pytest.raises((TypeError, ValueError), match=lacking):
        learner_of(of_tiles(**parts))


def test_a_method_that_is_not_there_is_named_by_python_and_a_name_by_h2e(cohort):
    class Half(h2e.tl.Learner):
        name, uses = "half", "xy"

        def fit(self, *_: object, **__: object) -> None:
            """Train nothing."""

    with pytest.raises(TypeError, match="abstract method '?restore"):
        Half()

    @dataclass(frozen=True)
    class Nameless(h2e.tl.Learner):
        uses = "xy"
        fit, restore = Own.fit, Own.restore

    with pytest.raises(ValueError, match="name of learner Nameless must be an identifier.*got None"):
        h2e.tl.fit(cohort, learners=[Nameless()], **OPTIONS)


def test_a_learner_that_is_no_frozen_dataclass_or_holds_lists_is_refused():
    class Plain(h2e.tl.Learner):
        name, uses = "plain", "xy"
        fit, restore = Own.fit, Own.restore

    @dataclass
    class Changeable(Plain):
        depth: int = 2

    for learner in (Plain(), Changeable(), Own(widths=[3, 4])):
        with pytest.raises(TypeError, match="must be a frozen dataclass.*such as tuples in place of lists"):
            learner_of(learner)
    with pytest.raises(TypeError, match=r"instance of h2e.tl.Learner, got Constant"):
        learner_of(Constant(np.zeros(2)))


@pytest.mark.parametrize(
    ("method", "gives", "complaint"),
    [
        ("fit", lambda *_, **__: 3, "fit of learner 'own' must return an h2e.tl.Model, got int"),
        (
            "extract_features",
            lambda _, tiles: tiles[0][:1].mean((2, 3)),
            r"a row for each of \d+ spots, got float64 \(1, 3",
        ),
        ("extract_features", lambda _, tiles: np.full((len(tiles[0]), 2), np.nan), "must return finite numbers"),
    ],
)
def test_what_a_learner_gives_is_checked(cohort, method: str, gives: object, complaint: str):
    with pytest.raises((TypeError, ValueError), match=complaint):
        h2e.tl.fit(cohort, learners=[of_tiles(**{method: gives})], **OPTIONS)


@pytest.mark.parametrize(
    ("mean", "complaint"),
    [
        (np.zeros(3), r"must be finite numbers of shape \(\d+, 4\), got shape \(\d+, 3\)"),
        (np.full(4, np.nan), r"must be finite numbers of shape \(\d+, 4\), got NaN or infinite values"),
        (np.array(list("abcd")), r"must be numpy arrays of numbers, but \['mean'\] are not"),
    ],
)
def test_what_a_model_gives_is_checked(cohort, mean: np.ndarray, complaint: str):
    learner = of_tiles(uses="xy", fit=lambda *_, **__: Constant(mean))
    with pytest.raises((TypeError, ValueError), match=complaint):
        h2e.tl.fit(cohort, learners=[learner], **OPTIONS)


def test_a_learner_that_changes_its_input_cannot_disturb_the_others(cohort):
    class Careless(Own):
        def fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, **_: Any) -> Constant:
            x -= x.mean(axis=0)
            return super().fit(x, y, groups)

    with pytest.raises(ValueError, match="read-only"):
        h2e.tl.fit(cohort, learners=[Careless(), "coordinates"], **OPTIONS)


# Files


@pytest.fixture(scope="module")
def saved(cohort_source, tmp_path_factory) -> Path:
    """An ensemble of two learners of ones own and one of h2e."""
    folder = tmp_path_factory.mktemp("saved") / "ensemble"
    learners = [Own(cache="here", device="cpu"), Own(depth=7), "mean"]
    h2e.tl.fit(cohort_source, learners=learners, **OPTIONS).save(folder)
    return folder


def test_settings_come_from_the_file_and_code_from_the_user(saved: Path):
    loaded = h2e.Ensemble.load(saved, learners={"own": Own})
    assert loaded.learners[:2] == (Own(), Own(depth=7))
    assert {member.learner for member in loaded.members} == {"own", "own 2", "mean"}
    deeper = h2e.Ensemble.load(saved, learners={"own": lambda depth, **settings: Own(depth=depth + 1, **settings)})
    assert deeper.learners[1] == Own(depth=8)


def test_a_file_does_not_choose_the_code_that_is_run(saved: Path):
    with pytest.raises(
        ValueError, match=r"or be passed, got 'own' in the file.*load\(folder, learners=\{'own': its class\}\)"
    ):
        h2e.Ensemble.load(saved)
    with pytest.raises(ValueError, match=r"learners\['own'\] must make a learner of that name, got 'texture'"):
        h2e.Ensemble.load(saved, learners={"own": lambda **_: h2e.tl.Texture()})


def test_what_a_file_says_of_the_machine_is_ignored():
    harm = {"name": "multiscale", "device": "cuda:7"}
    assert from_json(json.dumps(harm)).device is None
    harm = {"name": "own", "cache": "/home/somebody/.ssh", "device": "meta"}
    assert from_json(json.dumps(harm), {"own": Own}) == Own()


# The learners of h2e


def test_each_learner_of_h2e_implements_the_interface_and_has_a_name_that_editors_complete():
    assert sorted(LearnerName.__args__) == NAMES
    for name in NAMES:
        learner = learner_of(name)
        assert isinstance(learner, h2e.tl.Learner)
        assert learner.label == name
        assert from_json(to_json(learner)) == learner
    assert all(kind.name == name for name, kind in LEARNERS.items())


def test_learners_that_differ_in_the_head_alone_share_their_features():
    assert h2e.tl.Texture("knn", k=5).feature_key == h2e.tl.Texture().feature_key == h2e.tl.Texture()
    assert replace(h2e.tl.Embedding(), head="pls").feature_key == h2e.tl.Embedding().feature_key
    assert Own(depth=3).feature_key == Own(depth=3) != Own().feature_key
