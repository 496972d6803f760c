"""``h2e predict``: predict slide by slide."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from h2e import Ensemble, get, tl
from h2e._sdata.keys import TABLE, Keys
from h2e._sdata.slides import open_images
from h2e._sdata.table import labels_of, region_keys
from h2e.cli import Lines, log
from h2e.cli.inputs import COMMON, FOLDER, Sample, read, samples_of
from h2e.cli.record import arguments, read_record, state_of, whole, write_record


def _shard(_: click.Context, __: click.Parameter, text: str) -> slice:
    """Which of the sorted samples are those of a part."""
    first, _slash, n = text.partition("/")
    if not (first.isdecimal() and n.isdecimal() and 1 <= int(first) <= int(n)):
        msg = f"must be I/N with 1 <= I <= N, such as 3/16, got {text!r}."
        raise click.BadParameter(msg)
    return slice(int(first) - 1, None, int(n))


@click.command(params=COMMON)
@click.option("--ensemble", "folder", required=True, type=FOLDER, help="Folder that h2e fit or Ensemble.save wrote.")
@click.option("--h5ad", is_flag=True, help="Write the table alone, as AnnData, in place of a store.")
@click.option("--geojson", is_flag=True, help="Write the spots for QuPath beside it.")
@click.option("--shard", default="1/1", callback=_shard, metavar="I/N", help="Every Nth sample from the Ith on.")
@click.option("--allow-download", is_flag=True, help="Fetch encoders that the ensemble names.")
@click.option("--overwrite", is_flag=True, help="Predict again what is done; replace predictions that are not of h2e.")
@click.pass_obj
def predict(
    lines: Lines, /, *, inputs: list[Path], out: Path, folder: Path, um_per_px: float | None, image_key: str | None,
    shard: slice, allow_download: bool, overwrite: bool, **settings: Any,
) -> None:  # fmt: skip
    """Predict INPUTS, slides with spots or only an H&E, with an ensemble.

    INPUTS are those of h2e fit, and whole-slide files (.svs, .ndpi, .tif, …); they are never changed. An H&E without
    spots gets a grid of them.

    Of each sample OUT/slides/SAMPLE.zarr holds the table with the predictions, in obsm["h2e"], and the spots, but no
    image other than a small one in the table's uns["spatial"]. SAMPLE.json is written last: what is done with the same
    ensemble and settings, and has not changed since, is not done again. A slide that fails is told, with its reason in
    SAMPLE.json, and the others go on; the exit code is then 1.
    """
    load, slides = f"ensemble = h2e.Ensemble.load({str(folder)!r}, allow_download={allow_download})", out / "slides"
    ensemble = Ensemble.load(folder, allow_download=allow_download)
    settings |= {"ensemble_sha256": read_record(folder / "ensemble.json").get("sha256")}
    samples, done, n_before = samples_of(inputs, um_per_px, image_key)[shard], [], 0
    for sample in samples:
        name, record, started, python = sample.sample, slides / f"{sample.sample}.json", time.time(), [load]
        about: dict[str, Any] = {"sample": name, "source": str(sample.path.absolute()), "settings": settings}
        about["given"] = [sample.um_per_px, sample.image]
        with lines.of(name):
            about["source_state"] = state_of(sample.path)
            if not overwrite and _is_done(read_record(record), about, slides):
                n_before += 1
            else:
                with whole(slides, name) as part:
                    how = settings | {"overwrite": overwrite, "progress": not lines.json}
                    about |= _predict(sample, ensemble, part, python, **how)
                    about["outputs"] = {path.name: state_of(path)[0] for path in part.iterdir()}
                    write_record(part / record.name, python, started, **about)
                log.info("predicted %d spots", about["n_spots"])
            done.append(record)
        if name in lines.failed:
            with whole(slides, name) as part:
                write_record(part / record.name, python, started, **about, error=lines.failed[name])
    if done:
        click.echo(read_record(done[0])["python"] + "\n# of the others as their records say" * (len(done) > 1))
    lines.finish(f"predict: {len(done)} of {len(samples)} samples, {n_before} of them before, in {slides}")


def _is_done(record: dict[str, Any], wanted: dict[str, Any], slides: Path) -> bool:
    """Whether a record is of the same source and settings, and its outputs are whole."""
    same = "error" not in record and all(record.get(key) == value for key, value in wanted.items())
    sizes = record.get("outputs", {}).items() if same else ()
    return same and all((slides / name).exists() and state_of(slides / name)[0] == size for name, size in sizes)


def _predict(
    sample: Sample, ensemble: Ensemble, part: Path, python: list[str], *,
    overwrite: bool, progress: bool, h5ad: bool, geojson: bool, **_: Any,
) -> dict[str, Any]:  # fmt: skip
    """Predict one sample and write its results; the Python is added line by line, so that it ends where it fails."""
    sdata, code, size = read(sample)
    options: dict[str, Any] = {"um_per_px": size} if size else {}
    known = open_images(sdata, Keys(um_per_px=size)).values()
    options |= {"overwrite": True} if overwrite else {}
    python += [*code, f"h2e.tl.predict(sdata, ensemble{arguments(options)})"]
    tl.predict(sdata, ensemble, **options, progress=progress)
    table, view = sdata[TABLE], get.predictions(sdata, drop_missing=False)
    table.obsm["spatial"], table.uns["spatial"] = view.obsm["spatial"], view.uns["spatial"]
    python.append(f"table, view = sdata[{TABLE!r}], h2e.get.predictions(sdata, drop_missing=False)")
    python.append("table.obsm['spatial'], table.uns['spatial'] = view.obsm['spatial'], view.uns['spatial']")
    regions = sorted(set(labels_of(table, region_keys(table)[0])))
    result = sample.sample + (".h5ad" if h5ad else ".zarr")
    write = table.write_h5ad if h5ad else sdata.subset([*regions, TABLE]).write
    write(part / result)
    written = "table.write_h5ad" if h5ad else f"sdata.subset({[*regions, TABLE]}).write"
    python.append(f"{written}({str(part.parent / result)!r})")
    for region in regions if geojson else ():
        spots = f"{sample.sample}{f'.{region}' * (len(regions) > 1)}.geojson"
        (part / spots).write_text(get.geojson(sdata, region), encoding="utf-8")
        python.append(f"pathlib.Path({str(part.parent / spots)!r}).write_text(h2e.get.geojson(sdata, {region!r}))")
    sizes, sources = {one.um_per_px for one in known}, sorted({one.um_per_px_from for one in known})
    one_size = sizes.pop() if len(sizes) == 1 else None
    return {"um_per_px": one_size, "um_per_px_from": ", ".join(sources), "n_spots": table.n_obs}
