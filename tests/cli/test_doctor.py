"""What ``h2e doctor`` finds, and that it fails where h2e does not work."""

from __future__ import annotations

import json
import logging
import platform
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

module = import_module("h2e.cli.doctor")


def run(*arguments: str) -> Result:
    """Run the command with a log, as the shell does."""
    return CliRunner().invoke(module.doctor, arguments, obj=logging.StreamHandler())


def test_it_says_what_is_here_and_that_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("H2E_DATA", str(tmp_path))
    (tmp_path / "mob").mkdir()
    result = run("--json")
    assert result.exit_code == 0, result.output
    found = {part: of for line in result.stdout.splitlines() for part, of in json.loads(line).items()}
    assert found["versions"]["python"] == platform.python_version()
    assert {name: found["versions"][name] for name in ("h2e", "torch")} == {
        "h2e": version("h2e"),
        "torch": version("torch"),
    }
    assert str(tmp_path / "mob") in found["machine"]["data"]
    assert found["self-test"]["ok"].startswith("Pearson 0.")


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare, learn and predict nothing."""
    for name in ("datasets.toy_cohort", "pp.normalize", "tl.fit", "tl.predict"):
        monkeypatch.setattr(f"h2e.{name}", lambda *_, **__: {"table": None})


@pytest.mark.parametrize("value", [-0.5, float("nan")])
@pytest.mark.usefixtures("no_work")
def test_predictions_no_better_than_chance_or_missing_are_a_failure(value: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("h2e.metrics.score_adata", lambda *_, **__: pd.DataFrame({"value": [0.9, value, 0.1]}))
    result = run()
    assert result.exit_code == 1
    assert "must have a Pearson above 0.3" in result.output
    assert "versions\n  python  " in result.output


def test_what_breaks_is_shown(monkeypatch: pytest.MonkeyPatch):
    def broken(**_: object) -> None:
        raise RuntimeError("no numba here")

    monkeypatch.setattr("h2e.datasets.toy_cohort", broken)
    result = run()
    assert result.exit_code == 1
    assert str(result.exception) == "no numba here"
