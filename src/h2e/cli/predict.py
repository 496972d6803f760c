"""``h2e predict``: predict slide by slide."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import click

from h2e._sdata.keys import TABLE, Keys
from h2e._sdata.slides import open_images
from h2e._sdata.table import labels_of, region_keys
from h2e.cli.call import Call, Variable, script
from h2e.cli.inputs import common, keys_of, lines_of, opening
from h2e.cli.log import log
from h2e.cli.record import bytes_of, read_record, remove, state_of, whole, write_record
from h2e.cli.sheet import Sample, samples_of

SUFFIXES = (".json", ".zarr", ".h5ad", ".geojson")
"""Of what is written of a sample."""


def _shard(_: click.Context, __: click.Parameter, text: str) -> tuple[int, int]:
    """The first sample and the step of a part."""
    first, slash, step = text.partition("/")
    if not (slash and first.isdecimal() and step.isdecimal() and 1 <= int(first) <= int(step)):
        msg = f"must be I/N with 1 <= I <= N, such as 3/16, got {text!r}."
        raise click.BadParameter(msg)
    return int(first), int(step)


@click.command()
@common
@click.option("--ensemble", "folder", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="What h2e fit wrote to OUT/ensemble, or Ensemble.save.")  # fmt: skip
@click.option("--h5ad", is_flag=True, help="Write the table alone, as AnnData, in place of a store.")
@click.option("--geojson", is_flag=True, help="Write the spots for QuPath beside it.")
@click.option(
    "--shard", default="1/1", callback=_shard, metavar="I/N", help="Every Nth sample from the Ith on, for array jobs."
)
@click.option("--allow-download", is_flag=True, help="Fetch encoders that the ensemble names.")
@click.option("--overwrite", is_flag=True, help="Predict again what is done; replace predictions that are not of h2e.")
def predict(*, inputs: list[Path], out: Path, folder: Path, um_per_px: float | None, image_key: str | None,
            shard: tuple[int, int], overwrite: bool, **settings: Any) -> None:  # fmt: skip
    """Predict INPUTS, slides with spots or only an H&E, with an ensemble.

    INPUTS are those of h2e fit, and whole-slide files (.svs, .ndpi, .tif, …); they are never changed. An H&E without
    spots gets a grid of them.

    Of each sample OUT/slides/SAMPLE.zarr holds the table with the predictions, in obsm["h2e"], and the spots, but no
    image other than a small one in the table's uns["spatial"]. SAMPLE.json is written last: what is done with the same
    settings and not changed since is not done again. A slide that fails is told, with its reason in SAMPLE.json, and
    the others go on; the exit code is then 1.
    """
    lines, slides = lines_of(), out / "slides"
    loading = {"allow_download": True} if settings["allow_download"] else {}
    load = Call("h2e.Ensemble.load", str(folder), **loading)
    ensemble = Variable("ensemble", load())
    settings["ensemble"] = hashlib.sha256((folder / "ensemble.json").read_bytes()).hexdigest()
    samples, scripts, n_skipped = samples_of(inputs, um_per_px, image_key)[shard[0] - 1 :: shard[1]], [], 0
    for sample in samples:
        started, python, name = time.time(), [f"ensemble = {load!r}"], f"{sample.name}.json"
        about = {"sample": sample.name, "source": str(sample.path.absolute())}
        about["given"] = {"um_per_px": sample.um_per_px, "image": sample.image}
        with lines.of(sample.name):
            about["state"], old = state_of(sample.path), read_record(slides / name)
            if not overwrite and _is_done(old, about | {"settings": settings}, slides):
                n_skipped += 1
                scripts.append(old["python"])
                continue
            for suffix in SUFFIXES:
                remove(slides / f"{sample.name}{suffix}")
            with whole(slides, sample.name) as part:
                found = _predict(sample, ensemble, part, python, settings, overwrite=overwrite)
                about["outputs"] = {path.name: bytes_of(path) for path in part.iterdir()}
                write_record(part / name, script(python), settings, started, **about, **found)
            scripts.append(script(python))
            log.info("predicted %d spots", found["n_spots"])
        if sample.name in lines.failed:
            with whole(slides, sample.name) as part:
                write_record(part / name, script(python), settings, started, **about, error=lines.failed[sample.name])
    if scripts:
        click.echo(scripts[0] + f"\n# and {len(scripts) - 1} others, as their records say" * (len(scripts) > 1))
    lines.finish(f"predict: {len(scripts)} of {len(samples)} samples, {n_skipped} of them done before, in {slides}")


def _is_done(record: dict[str, Any], wanted: dict[str, Any], slides: Path) -> bool:
    """Whether a record is of the same source and settings, and its outputs are whole."""
    same = "error" not in record and all(record.get(key) == value for key, value in wanted.items())
    return same and all(bytes_of(slides / name) == size for name, size in record["outputs"].items())


def _predict(
    sample: Sample, ensemble: Variable, part: Path, python: list[str], settings: dict[str, Any], *, overwrite: bool
) -> dict[str, Any]:
    """Predict one sample and write its results; the Python is added line by line, so that it ends where it fails."""
    table_key, target = settings["table_key"] or TABLE, str(part.parent / sample.name)
    read = opening(sample)
    named = {} if table_key == TABLE else {"table_key": table_key}
    keys = named | keys_of(read, sample)
    if read.function == "anndata.read_h5ad":
        read = Call("h2e.pp.join_slides", {sample.name: read}, **named)
    python.append(f"sdata = {read!r}")
    sdata = Variable("sdata", read())
    known = list(open_images(sdata.value, Keys(**keys)).values())
    known = [slide for slide in known if slide.region is not None] or known
    call = Call("h2e.tl.predict", sdata, ensemble, **keys, **({"overwrite": True} if overwrite else {}))
    python.append(repr(call))
    call(progress=not lines_of().json)
    keys.pop("um_per_px", None)
    view = Call("h2e.get.predictions", sdata, drop_missing=False, **keys)
    python += [f"table, view = sdata[{table_key!r}], {view!r}"]
    python += ["table.obsm['spatial'], table.uns['spatial'] = view.obsm['spatial'], view.uns['spatial']"]
    table, shown = sdata.value[table_key], view()
    table.obsm["spatial"], table.uns["spatial"] = shown.obsm["spatial"], shown.uns["spatial"]
    regions = sorted(set(labels_of(table, region_keys(table)[0])))
    if settings["h5ad"]:
        python.append(f"table.write_h5ad({target + '.h5ad'!r})")
        table.write_h5ad(part / f"{sample.name}.h5ad")
    else:
        python.append(f"sdata.subset({[*regions, table_key]}).write({target + '.zarr'!r})")
        sdata.value.subset([*regions, table_key]).write(part / f"{sample.name}.zarr")
    for region in regions if settings["geojson"] else ():
        file = f"{sample.name}.geojson" if len(regions) == 1 else f"{sample.name}.{region}.geojson"
        (part / file).write_text(Call("h2e.get.geojson", sdata, region, **keys)(), encoding="utf-8")
    sizes = {slide.um_per_px for slide in known}
    sources = ", ".join(sorted({slide.um_per_px_from for slide in known}))
    return {"um_per_px": sizes.pop() if len(sizes) == 1 else None, "um_per_px_from": sources, "n_spots": table.n_obs}
