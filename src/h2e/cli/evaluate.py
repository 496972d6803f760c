"""``h2e evaluate``: score the whole procedure."""

from __future__ import annotations

from typing import Any

import click

from h2e.cli import Lines
from h2e.cli.fit import TRAINING, on_cohort


@click.command(params=TRAINING)
@click.option("--n-folds", type=click.IntRange(2), help="Leave out groups of donors, so that many take less time.")
@click.pass_obj
def evaluate(lines: Lines, /, **given: Any) -> None:
    """Repeat all that fit does on INPUTS without each donor, predict that donor, and score it.

    INPUTS and options are those of h2e fit. Writes OUT/scores.csv, the scores of each target on each slide beside those
    of baselines, OUT/quality.csv and OUT/evaluate.json; h2e report OUT shows them.
    """
    on_cohort(lines, "evaluate", **given)
