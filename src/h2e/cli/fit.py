"""``h2e fit``: train an ensemble; and what ``h2e evaluate`` does before and after as well."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from h2e import get, pp, tl
from h2e._sdata.keys import TABLE, Keys
from h2e._sdata.scale import require_size
from h2e._sdata.slides import open_slides, require_inside
from h2e.cli import Lines
from h2e.cli.inputs import COMMON, read
from h2e.cli.record import arguments, script, whole, write_record
from h2e.cli.sheet import samples_of


def _listed(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    """Names with commas between them, or on the lines of a file."""
    text = Path(value).read_text(encoding="utf-8") if value and Path(value).is_file() else value or ""
    return re.findall(r"[^,\s][^,\n]*(?<!\s)", text) or None


TRAINING: list[click.Parameter] = [
    *COMMON,
    click.Option(["--group-key"], metavar="COLUMN", help="Groups to leave out.  [default: donor, if a sheet has it]"),
    click.Option(["--targets"], callback=_listed, metavar="A,B|FILE", help="Genes, or columns of obsm or obs."),
    click.Option(["--n-targets"], type=click.IntRange(1), help="Genes to choose where none are named.  [default: 35]"),
    click.Option(["--obsm"], metavar="KEY", help="Predict the columns of a frame of obsm."),
    click.Option(["--layer"], metavar="KEY", help="Layer with the counts.  [default: X]"),
    click.Option(["--learners"], callback=_listed, metavar="A,B", help="[default: texture,knn,pls,embedding]"),
    click.Option(["--device"], help="For networks: cpu, cuda, mps."),
    click.Option(["--seed"], type=int, help="The same seed gives the same result.  [default: 0]"),
    click.Option(["--normalize/--no-normalize"], default=True, help="Find tissue, bring stains to one reference."),
    click.Option(["--strict"], is_flag=True, help="Train nothing if a slide cannot be used; else go on without it."),
]
"""What ``fit`` and ``evaluate`` take."""


@click.command(params=TRAINING)
@click.pass_obj
def fit(lines: Lines, *, out: Path, **given: Any) -> None:
    """Train an ensemble on INPUTS, slides with measurements.

    INPUTS are stores of SpatialData (.zarr), folders of Space Ranger (Visium), AnnData (.h5ad), or one CSV sheet with
    the columns sample and path, and if you like donor, um_per_px and image (of a store the name of an image, of Space
    Ranger the file of the full resolution). Paths are relative to the sheet.

    Writes OUT/ensemble, OUT/quality.csv (what was found on each slide) and OUT/fit.json; OUT/models keeps finished
    models, so that an interrupted run goes on. A slide that cannot be used is told and left out, and the exit code is
    1; with --strict, or where fewer than two are left, nothing is trained.
    """

    def save(ensemble: Any, _: Path) -> str:
        ensemble.save(out / "ensemble")
        return f"result.save({str(out / 'ensemble')!r})"

    on_cohort(lines, "fit", save, out=out, **given)


def on_cohort(
    lines: Lines, command: str, save: Callable[[Any, Path], str], *, inputs: list[Path], out: Path,
    um_per_px: float | None, image_key: str | None, normalize: bool, strict: bool, **given: Any,
) -> None:  # fmt: skip
    """Call ``h2e.tl.fit`` or ``evaluate`` on a cohort of all samples; ``save`` writes the result and says how."""
    started, samples = time.time(), samples_of(inputs, um_per_px, image_key)
    out.mkdir(parents=True, exist_ok=True)
    python, slides, sizes = ["slides = {}"], dict[str, Any](), dict[str, float]()
    for sample in samples:
        with lines.of(sample.sample):
            sdata, code, size = read(sample)
            joined = pp.join_slides({sample.sample: sdata})
            if TABLE not in joined.tables or not joined[TABLE].n_vars:
                msg = (
                    f"it must have measurements in {TABLE!r}, got the tables {sorted(sdata.tables)}; slides with only "
                )
                msg += "an H&E are for h2e predict."
                raise ValueError(msg)
            regions = open_slides(joined, Keys())
            own = {} if size is None else {slide.name: size for slide in regions}
            require_inside(require_size(open_slides(joined, Keys(um_per_px=own or None))))
            if sample.donor:
                sdata[TABLE].obs["donor"] = sample.donor
                code.append(f"sdata[{TABLE!r}].obs['donor'] = {sample.donor!r}")
            slides[sample.sample] = sdata
            sizes |= own
            python += [*code, f"slides[{sample.sample!r}] = sdata"]
    if lines.failed and (strict or len(slides) < 2):
        msg = f"nothing was trained, for {len(lines.failed)} of {len(samples)} samples cannot be used: {list(lines.failed)}."
        raise ValueError(msg)
    options = {key: value for key, value in given.items() if value is not None}
    if any(sample.donor for sample in samples):
        options.setdefault("group_key", "donor")
    settings = options | {"inputs": inputs, "um_per_px": um_per_px, "image_key": image_key, "normalize": normalize}
    shared = {"um_per_px": sizes} if sizes else {}
    sdata, progress = pp.join_slides(slides), not lines.json
    python.append("sdata = h2e.pp.join_slides(slides)")
    if normalize:
        prepare = shared | {key: options[key] for key in ("layer",) if key in options}
        pp.normalize(sdata, **prepare, progress=progress)
        python.append(f"h2e.pp.normalize(sdata{arguments(prepare)})")
    options |= shared | {"run_dir": str(out / "models")}
    result = getattr(tl, command)(sdata, **options, progress=progress)
    python.append(f"result = h2e.tl.{command}(sdata{arguments(options)})")
    with whole(out, command) as part:
        python.append(save(result, part))
        if normalize:
            get.report(sdata).to_csv(part / "quality.csv")
        settings |= {"left_out": lines.failed} if lines.failed else {}
        write_record(part / f"{command}.json", script(python), started, settings=settings)
    click.echo(script(python))
    lines.finish(f"{command}: {len(slides)} of {len(samples)} samples, in {out}")
