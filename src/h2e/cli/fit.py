"""``h2e fit``: train an ensemble; and what ``h2e evaluate`` does as well."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import click

from h2e import get, pp, tl
from h2e._sdata.keys import TABLE, Keys
from h2e._sdata.scale import require_size
from h2e._sdata.slides import open_slides, require_inside
from h2e._warnings import refuse_if
from h2e.cli import Lines
from h2e.cli.inputs import COMMON, Sample, read, samples_of
from h2e.cli.record import arguments, script, whole, write_record


def _names(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    """Names with commas between them, or on the lines of a file."""
    text = Path(value).read_text(encoding="utf-8") if value and Path(value).is_file() else value or ""
    return re.split(r"\s*[,\n]\s*", text.strip()) if text.strip() else None


TRAINING: list[click.Parameter] = [
    *COMMON,
    click.Option(["--group-key"], metavar="COLUMN", help="Groups to leave out.  [default: donor, if a sheet has it]"),
    click.Option(["--targets"], callback=_names, metavar="A,B|FILE", help="Genes, or columns of obsm or obs."),
    click.Option(["--n-targets"], type=click.IntRange(1), help="Genes to choose where none are named.  [default: 35]"),
    click.Option(["--obsm"], metavar="KEY", help="Predict the columns of a frame of obsm."),
    click.Option(["--layer"], metavar="KEY", help="Layer with the counts.  [default: X]"),
    click.Option(["--learners"], callback=_names, metavar="A,B", help="[default: texture,knn,pls,embedding]"),
    click.Option(["--device"], help="For networks: cpu, cuda, mps."),
    click.Option(["--seed"], type=int, help="The same seed gives the same result.  [default: 0]"),
    click.Option(["--normalize/--no-normalize"], default=True, help="Find tissue, bring stains to one reference."),
    click.Option(["--strict"], is_flag=True, help="Train nothing if a slide cannot be used; else go on without it."),
]
"""What ``fit`` and ``evaluate`` take."""


@click.command(params=TRAINING)
@click.pass_obj
def fit(lines: Lines, /, **given: Any) -> None:
    """Train an ensemble on INPUTS, slides with measurements.

    INPUTS are stores of SpatialData (.zarr), folders of Space Ranger (Visium), AnnData (.h5ad), or one CSV sheet with
    the columns sample and path, and if you like donor, um_per_px and image (of a store the name of an image, of Space
    Ranger the file of the full resolution). Paths are relative to the sheet.

    Writes OUT/ensemble, OUT/quality.csv (what was found on each slide) and OUT/fit.json; OUT/models keeps finished
    models, so that an interrupted run goes on. A slide that cannot be used is told and left out, and the exit code is
    1; with --strict, or where fewer than two are left, nothing is trained.
    """
    on_cohort(lines, "fit", **given)


def on_cohort(
    lines: Lines, command: str, *, inputs: list[Path], out: Path, um_per_px: float | None, image_key: str | None,
    normalize: bool, strict: bool, **given: Any,
) -> None:  # fmt: skip
    """Call ``h2e.tl.fit`` or ``evaluate`` on a cohort of all samples that can be used."""
    started, samples = time.time(), samples_of(inputs, um_per_px, image_key)
    python, slides, sizes = ["slides = {}"], dict[str, Any](), dict[str, float]()
    for sample in samples:
        with lines.of(sample.sample):
            slides[sample.sample] = _measured(sample, python, sizes)
    msg = f"nothing was trained, as {len(lines.failed)} of {len(samples)} samples cannot be used: {list(lines.failed)}."
    refuse_if(lines.failed and (strict or len(slides) < 2), msg)
    sdata, options = pp.join_slides(slides), {key: value for key, value in given.items() if value is not None}
    python.append("sdata = h2e.pp.join_slides(slides)")
    options |= {"um_per_px": sizes} if sizes else {}
    if any(sample.donor for sample in samples):
        options.setdefault("group_key", "donor")
    if normalize:
        prepare = {key: value for key, value in options.items() if key in {"layer", "um_per_px"}}
        pp.normalize(sdata, **prepare, progress=not lines.json)
        python.append(f"h2e.pp.normalize(sdata{arguments(prepare)})")
    options["run_dir"] = str(out / "models")
    result = getattr(tl, command)(sdata, **options, progress=not lines.json)
    python.append(f"result = h2e.tl.{command}(sdata{arguments(options)})")
    with whole(out, command) as part:
        if command == "fit":
            result.save(out / "ensemble")
            python.append(f"result.save({str(out / 'ensemble')!r})")
        else:
            result.to_csv(part / "scores.csv", index=False)
            python.append(f"result.to_csv({str(out / 'scores.csv')!r}, index=False)")
        if normalize:
            get.report(sdata).to_csv(part / "quality.csv")
        settings = options | {"inputs": inputs, "normalize": normalize, "left_out": lines.failed}
        write_record(part / f"{command}.json", python, started, settings=settings)
    click.echo(script(python))
    lines.finish(f"{command}: {len(slides)} of {len(samples)} samples, in {out}")


def _measured(sample: Sample, python: list[str], sizes: dict[str, float]) -> Any:
    """A sample with its donor, and what was said of its pixels, unless it cannot be trained on."""
    name, (sdata, code, size) = sample.sample, read(sample)
    joined = pp.join_slides({name: sdata})
    msg = f"it must have measurements in {TABLE!r}, got tables {sorted(sdata.tables)}; an H&E alone is for h2e predict."
    refuse_if(TABLE not in joined.tables or not joined[TABLE].n_vars, msg)
    own = {} if size is None else {slide.name: size for slide in open_slides(joined, Keys())}
    require_inside(require_size(open_slides(joined, Keys(um_per_px=own or None))))
    if sample.donor:
        sdata[TABLE].obs["donor"] = sample.donor
        code.append(f"sdata[{TABLE!r}].obs['donor'] = {sample.donor!r}")
    sizes.update(own)
    python += [*code, f"slides[{name!r}] = sdata"]
    return sdata
