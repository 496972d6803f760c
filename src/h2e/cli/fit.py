"""``h2e fit``: train an ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from h2e.cli.cohort import run_on_cohort, training


@click.command()
@training
def fit(*, out: Path, **given: Any) -> None:
    """Train an ensemble on INPUTS, slides with measurements.

    INPUTS are stores of SpatialData (.zarr), folders of Space Ranger (Visium), AnnData (.h5ad), or one CSV sheet with
    the columns sample and path, and if you like donor, um_per_px and image (of a store the name of an image, of Space
    Ranger the file of the full resolution); paths are relative to the sheet.

    Writes OUT/ensemble, OUT/quality.csv (what was found on each slide) and OUT/fit.json; OUT/models keeps finished
    models, so that a run that was interrupted goes on. A slide that cannot be used is told and left out, and the exit
    code is 1; with --strict, or where fewer than two are left, nothing is trained.
    """

    def save(ensemble: Any, _: Path) -> str:
        ensemble.save(out / "ensemble")
        return f"ensemble.save({str(out / 'ensemble')!r})"

    run_on_cohort("fit", "ensemble", save, out=out, **given)
