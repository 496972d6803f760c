"""Arguments that commands share, samples as they are named on the line or in a sheet, and how they are opened."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import click

from h2e._sdata.images import check_image_key
from h2e._warnings import refuse, refuse_if
from h2e.cli.record import arguments

FOLDER = click.Path(file_okay=False, path_type=Path)

COMMON: list[click.Parameter] = [
    click.Argument(["inputs"], nargs=-1, required=True, type=click.Path(exists=True, path_type=Path)),
    click.Option(["--out"], required=True, type=FOLDER, help="Folder of results."),
    click.Option(["--um-per-px"], type=click.FloatRange(0, min_open=True), help="µm per pixel, where nothing else tells."),
    click.Option(["--image-key"], metavar="NAME", help="Image of a store to use, where several could be meant."),
    click.Option(["--cluster"], envvar="DASK_SCHEDULER_ADDRESS", show_envvar=True, metavar="ADDRESS", expose_value=False,
                 callback=lambda ctx, _, at: at and ctx.with_resource(resolve_name("distributed.Client")(at)),
                 help="Scheduler of dask.distributed."),
    click.Option(["--json"], is_flag=True, expose_value=False, help="Log one JSON object a line, without bars.",
                 callback=lambda ctx, _, value: setattr(ctx.obj, "json", value)),
]  # fmt: skip
"""What all commands take that read slides."""


class Sample(NamedTuple):
    """A slide, or a store of slides: its name, where it is, and what is said about it; the columns of a sheet."""

    sample: str
    path: Path
    donor: str | None = None
    um_per_px: float | None = None
    image: str | None = None


def samples_of(inputs: Sequence[Path], um_per_px: float | None, image: str | None) -> list[Sample]:
    """All samples, sorted by name; what a sheet does not say of one holds for all."""
    samples: list[Sample] = []
    for path in inputs:
        if path.suffix.lower() in {".csv", ".tsv"}:
            samples += read_sheet(path)
            continue
        *_, folder, file = path.absolute().parts
        name = re.sub(r"(\.ome)?\.[A-Za-z0-9]+$", "", folder if file == "outs" else file)
        # In characters that can be stored.
        samples.append(Sample(re.sub(r"[^A-Za-z0-9_.-]", "_", name), path))
    names = [one.sample.lower() for one in samples]
    twice = sorted({one.sample for one in samples if names.count(one.sample.lower()) > 1})
    msg = f"samples must have different names, got {twice} more than once; name them in a sheet (sample, path)."
    refuse_if(twice, msg)
    return sorted(one._replace(um_per_px=one.um_per_px or um_per_px, image=one.image or image) for one in samples)


def read_sheet(path: Path) -> list[Sample]:
    """The samples of a CSV sheet, or an error that lists every fault with its row, as in a spreadsheet, and column."""
    text, known, folder = path.read_text(encoding="utf-8-sig"), Sample._fields, path.parent
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    table = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(keepends=True), delimiter=delimiter)]
    header = table[0] if table else []
    faults = [f"row 1: column {column!r} is missing" for column in known[:2] if column not in header]
    odd = [name for name in header if name not in known or header.count(name) > 1]
    faults += [f"row 1, column {name!r}: must be there once and be one of {list(known)}" for name in odd]
    samples, seen = [], dict[str, int]()
    for number, row in enumerate(table[1:], start=2):
        cells = dict.fromkeys(known, "") | dict(zip(header, row + [""] * len(header), strict=False))
        wrong = {name: _fault(name, cells[name], folder) for name in header} if any(row) else {}
        if any(row) and (first := seen.setdefault(cells["sample"].lower(), number)) != number:
            wrong["sample"] = wrong.get("sample") or f"{cells['sample']!r} is the name of row {first}"
        faults += [f"row {number}, column {name!r}: {fault}" for name, fault in wrong.items() if fault]
        if len(row) > len(header):
            faults.append(f"row {number}: there are {len(row)} cells below {len(header)} names")
        if any(row) and not faults:
            # A file beside the sheet, or the name of an image.
            image = str(folder / cells["image"]) if (folder / cells["image"]).is_file() else cells["image"]
            about = cells["donor"] or None, float(cells["um_per_px"] or 0) or None, image or None
            samples.append(Sample(cells["sample"], folder / cells["path"], *about))
    faults += [] if faults or samples else ["row 2: no sample"]
    refuse_if(faults, "\n  ".join([f"{path} must be a sheet with a row for each sample:", *faults]))
    return samples


def _fault(column: str, text: str, folder: Path) -> str:
    """What is wrong with a cell, if anything."""
    from h2e._sdata.provenance import check_storable
    from h2e._sdata.scale import positive

    if not text:
        return "is empty" if column in {"sample", "path", "donor"} else ""
    try:
        if column == "sample":
            check_storable(text, "it")
        if column == "um_per_px":
            positive(text, "it")
    except ValueError as error:
        return str(error)
    return f"{text!r} does not exist" if column == "path" and not (folder / text).exists() else ""


def read(sample: Sample) -> tuple[Any, list[str], float | None]:
    """A sample as SpatialData, the Python for it, and the size of a pixel that is still to be said."""
    name, path, _, size, image = sample
    options: dict[str, Any] = {}
    ranger = [folder for folder in (path, path / "outs") if (folder / "spatial").is_dir()]
    if path.suffix == ".h5ad":
        function = "anndata.read_h5ad"
    elif path.is_file():
        function, options = "h2e.datasets.read_slide", {"name": name, "um_per_px": size} if size else {"name": name}
        size = None
    elif path.suffix == ".zarr" or (path / "zarr.json").exists():
        function = "spatialdata.read_zarr"
    elif ranger:
        function, path, options = "spatialdata_io.visium", ranger[0], {"dataset_id": name}
        options |= {"fullres_image_file": image} if image and Path(image).is_file() else {}
    else:
        msg = f"{path} must be a store of SpatialData (.zarr), a folder of Space Ranger for Visium (with spatial/, or it in "
        refuse(msg + "outs/), an AnnData (.h5ad) or a whole-slide file; of other formats write a store in Python.")
    sdata, code = resolve_name(function)(str(path), **options), f"{function}({str(path)!r}{arguments(options)})"
    if function == "anndata.read_h5ad":
        sdata, code = resolve_name("h2e.pp.join_slides")({name: sdata}), f"h2e.pp.join_slides({{{name!r}: {code}}})"
    python = [f"sdata = {code}"]
    if image and "fullres_image_file" not in options:
        check_image_key(sdata, image)
        for key in set(sdata.images) - {image}:
            del sdata.images[key]
        python.append(f"for key in set(sdata.images) - {{{image!r}}}:\n    del sdata.images[key]")
    return sdata, python, size
