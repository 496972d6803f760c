"""What ``fit`` and ``evaluate`` share: samples become one prepared cohort, and a record of what was done is left."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from h2e import pp
from h2e._sdata.images import check_image_key
from h2e._sdata.keys import TABLE, Keys
from h2e._sdata.scale import require_size
from h2e._sdata.slides import open_slides, require_inside
from h2e._sdata.table import region_keys
from h2e.cli.call import Call, Variable, script
from h2e.cli.inputs import common, keys_of, lines_of, opening, together
from h2e.cli.record import whole, write_record
from h2e.cli.sheet import Sample, samples_of


def _listed(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    """Names with commas between them, or on the lines of a file."""
    if value is None:
        return None
    text = Path(value).read_text(encoding="utf-8") if Path(value).is_file() else value
    return [name.strip() for name in re.split(r"[,\n]", text) if name.strip()]


training = together(
    common,
    click.option("--group-key", metavar="COLUMN", help="Groups to leave out.  [default: donor, if a sheet has it]"),
    click.option("--targets", callback=_listed, metavar="A,B|FILE", help="Genes, or columns of obsm or obs."),
    click.option("--n-targets", type=click.IntRange(1), help="Genes to choose where none are named.  [default: 35]"),
    click.option("--obsm", metavar="KEY", help="Predict the columns of a frame of obsm."),
    click.option("--layer", metavar="KEY", help="Layer with the counts.  [default: X]"),
    click.option("--log-normalized", is_flag=True, default=None, help="The values are log-normalized already."),
    click.option(
        "--learners", callback=_listed, metavar="A,B",
        help="Such as texture,knn, or an encoder such as lazyslide:uni2.  [default: texture,knn,pls,embedding]",
    ),
    click.option("--stack", help="How learners become one, as in h2e.tl.fit."),
    click.option("--transform", help="What is learned, as in h2e.tl.fit."),
    click.option("--device", help="For networks: cpu, cuda, mps."),
    click.option("--seed", type=int, help="The same seed gives the same result.  [default: 0]"),
    click.option("--normalize/--no-normalize", default=True, help="Find tissue and bring stains to one reference."),
    click.option("--strict", is_flag=True, help="Stop where a slide cannot be used; else go on without it."),
)  # fmt: skip
"""What ``fit`` and ``evaluate`` take."""


def run_on_cohort(
    command: str, name: str, save: Callable[[Any, Path], str], *, out: Path, inputs: list[Path], **given: Any
) -> None:
    """Call ``h2e.tl.fit`` or ``evaluate`` on a cohort; ``save`` writes the result, called ``name``, and says how."""
    started, lines = time.time(), lines_of()
    options = {key: value for key, value in given.items() if value is not None}
    normalize, strict = options.pop("normalize"), options.pop("strict")
    out.mkdir(parents=True, exist_ok=True)
    samples = samples_of(inputs, options.pop("um_per_px", None), options.pop("image_key", None))
    python, sdata, keys, donors = _join(samples, options.pop("table_key", TABLE), strict=strict)
    if donors:
        options.setdefault("group_key", "donor")
    if normalize:
        layer = {"layer": options["layer"]} if "layer" in options else {}
        call = Call("h2e.pp.normalize", sdata, **keys, **layer)
        python.append(repr(call))
        call(progress=not lines.json)
    if "learners" in options:
        encoders = {one: Call("h2e.tl.Embedding", encoder=one) for one in options["learners"] if ":" in one}
        options["learners"] = [encoders.get(one, one) for one in options["learners"]]
    call = Call(f"h2e.tl.{command}", sdata, **options, **keys, run_dir=str(out / "models"))
    result = call(progress=not lines.json)
    python.append(f"{name} = {call!r}")
    with whole(out, command) as part:
        python.append(save(result, part))
        if normalize:
            Call("h2e.get.report", sdata, **_only(keys, "table_key"))().to_csv(part / "quality.csv")
        settings = {"inputs": list(map(str, inputs))} | {
            key: value for key, value in given.items() if value is not None
        }
        settings |= {"left_out": lines.failed} if lines.failed else {}
        write_record(part / f"{command}.json", script(python), settings, started)
    click.echo(script(python))
    lines.finish(f"{command}: {len(samples) - len(lines.failed)} samples, in {out}")


def _only(keys: dict[str, Any], *names: str) -> dict[str, Any]:
    """Some of the keys."""
    return {name: keys[name] for name in names if name in keys}


def _join(samples: list[Sample], table_key: str, *, strict: bool) -> tuple[list[str], Variable, dict[str, Any], bool]:
    """The Python that makes one cohort of all samples that can be used, the cohort, its keys, and if it has donors."""
    lines, python, slides, about = lines_of(), ["slides = {"], {}, {}
    table = {} if table_key == TABLE else {"table_key": table_key}
    for sample in samples:
        with lines.of(sample.name):
            call = opening(sample)
            slide = call()
            about |= _check(slide, sample, keys_of(call, sample), table_key)
            slides[sample.name] = slide
            python.append(f"    {sample.name!r}: {call!r},")
    if lines.failed and (strict or len(slides) < 2):
        msg = f"{len(lines.failed)} of {len(samples)} samples cannot be used, and nothing was trained: mend them, or take "
        msg += "them out of the inputs."
        raise ValueError(msg)
    join = Call("h2e.pp.join_slides", Variable("slides", slides), **table)
    python += ["}", f"sdata = {join!r}"]
    sdata = Variable("sdata", join())
    facts = {key: {region: of[key] for region, of in about.items()} for key in ("donor", "um_per_px", "image_key")}
    donors, keys = facts.pop("donor"), dict(table)
    if any(donors.values()):
        if missing := [region for region, donor in donors.items() if not donor]:
            msg = f"each slide must have a donor, or none, got none of {missing}."
            raise ValueError(msg)
        obs, key = sdata.value[table_key].obs, region_keys(sdata.value[table_key])[0]
        python.append(f"obs = sdata[{table_key!r}].obs")
        python.append(f"obs['donor'] = obs[{key!r}].map({donors})")
        obs["donor"] = obs[key].map(donors)
    if sizes := {region: size for region, size in facts["um_per_px"].items() if size is not None}:
        keys["um_per_px"] = sizes
    if any(sample.image for sample in samples):
        keys["image_key"] = facts["image_key"]
    return python, sdata, keys, any(donors.values())


def _check(slide: Any, sample: Sample, keys: dict[str, Any], table_key: str) -> dict[str, dict[str, Any]]:
    """Refuse a sample that has no measurements or cannot be placed; of each region of it donor, scale and image."""
    joined = pp.join_slides({sample.name: slide}, table_key=table_key)
    if table_key not in joined.tables or not joined[table_key].n_vars:
        msg = f"it has no measurements to learn from: there are tables {sorted(joined.tables)}, needed is one with genes, "
        msg += f"{table_key!r} (--table-key). Slides with only an H&E are for h2e predict."
        raise ValueError(msg)
    if "image_key" in keys:
        check_image_key(slide if hasattr(slide, "images") else joined, keys["image_key"])
        names = dict(zip(getattr(slide, "images", joined.images), joined.images, strict=True))
        keys["image_key"] = names[keys["image_key"]]
    found = require_inside(require_size(open_slides(joined, Keys(table_key, **keys))))
    size = keys.get("um_per_px")
    return {one.name: {"donor": sample.donor, "um_per_px": size, "image_key": one.image.key} for one in found}
