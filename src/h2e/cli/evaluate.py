"""``h2e evaluate``: score the whole procedure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from h2e.cli import Lines
from h2e.cli.fit import TRAINING, on_cohort


@click.command(
    params=[*TRAINING, click.Option(["--n-folds"], type=click.IntRange(2), help="Leave out groups of donors.")]
)
@click.pass_obj
def evaluate(lines: Lines, *, out: Path, **given: Any) -> None:
    """Repeat all that fit does on INPUTS without each donor, predict that donor, and score it.

    INPUTS and options are those of h2e fit. Writes OUT/scores.csv, the scores of each target on each slide beside those
    of baselines, OUT/quality.csv and OUT/evaluate.json; h2e report OUT shows them.
    """

    def save(scores: Any, part: Path) -> str:
        scores.to_csv(part / "scores.csv", index=False)
        return f"result.to_csv({str(out / 'scores.csv')!r}, index=False)"

    on_cohort(lines, "evaluate", save, out=out, **given)
