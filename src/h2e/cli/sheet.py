"""Samples, as they are named on the line or in a sheet."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

NEEDED, OPTIONAL = ("sample", "path"), ("donor", "um_per_px", "image")
"""Columns of a sheet."""

SUFFIXES = r"(\.ome)?\.[A-Za-z0-9]+$"
"""Of the names of files."""


@dataclass(frozen=True)
class Sample:
    """A slide, or a store of slides: its name, where it is, and what is said about it."""

    name: str
    path: Path
    donor: str | None = None
    um_per_px: float | None = None
    image: str | None = None


def samples_of(inputs: Sequence[Path], um_per_px: float | None, image: str | None) -> list[Sample]:
    """All samples, sorted by name; what a sheet does not say of one holds for all."""
    sheets = [path for path in inputs if path.suffix.lower() in {".csv", ".tsv"}]
    named = [Sample(_name_of(path), path) for path in inputs if path not in sheets]
    samples = [*named, *(sample for sheet in sheets for sample in read_sheet(sheet))]
    names = [sample.name.lower() for sample in samples]
    if twice := sorted({sample.name for sample in samples if names.count(sample.name.lower()) > 1}):
        msg = f"samples must have different names, got {twice} more than once; name them in a sheet (sample, path)."
        raise ValueError(msg)
    samples = [replace(one, um_per_px=one.um_per_px or um_per_px, image=one.image or image) for one in samples]
    return sorted(samples, key=lambda sample: sample.name)


def _name_of(path: Path) -> str:
    """The name of a sample by its file or folder, in characters that can be stored."""
    path = path.absolute()
    name = path.parent.name if path.name == "outs" else path.name
    return re.sub(r"[^A-Za-z0-9_.-]", "_", re.sub(SUFFIXES, "", name))


def read_sheet(path: Path) -> list[Sample]:
    """The samples of a CSV sheet, or an error that lists every fault with its row, as in a spreadsheet, and column."""
    text = path.read_text(encoding="utf-8-sig")
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    header, *rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(keepends=True), delimiter=delimiter)] or [[]]  # fmt: skip
    known = (*NEEDED, *OPTIONAL)
    faults = [f"row 1: column {column!r} is missing" for column in NEEDED if column not in header]
    faults += [
        f"row 1, column {column!r}: unknown; known are {list(known)}" for column in header if column not in known
    ]
    faults += [f"row 1: column {column!r} is there twice" for column in known if header.count(column) > 1]
    samples, seen = [], dict[str, int]()
    for number, row in enumerate(rows, start=2):
        cells = dict(zip(header, row + [""] * len(header), strict=False))
        if not any(row):
            continue
        wrong = {column: _fault(column, cells[column], path.parent) for column in known if column in cells}
        first = seen.setdefault(cells.get("sample", "").lower(), number)
        if first != number and not wrong.get("sample"):
            wrong["sample"] = f"{cells['sample']!r} is the name of row {first}"
        faults += [f"row {number}: has {len(row)} cells, row 1 has {len(header)}"] * (len(row) > len(header))
        faults += [f"row {number}, column {column!r}: {fault}" for column, fault in wrong.items() if fault]
        if not faults:
            samples.append(_sample(cells, path.parent))
    if not samples:
        faults = faults or ["row 2: there is no sample"]
    if faults:
        msg = "\n  ".join([f"{path} must be a sheet with a sample a row, got {len(faults)} faults:", *faults])
        raise ValueError(msg)
    return samples


def _sample(cells: dict[str, str], folder: Path) -> Sample:
    """A row of a sheet; an image may be a file beside it."""
    image = cells.get("image", "")
    image = str(folder / image) if (folder / image).is_file() else image
    size = cells.get("um_per_px")
    about = (cells.get("donor"), float(size) if size else None, image or None)
    return Sample(cells["sample"], folder / cells["path"], *about)


def _fault(column: str, text: str, folder: Path) -> str:
    """What is wrong with a cell, if anything."""
    from h2e._sdata.provenance import check_storable
    from h2e._sdata.scale import positive

    try:
        if column in {"sample", "path", "donor"} and not text:
            return "is empty"
        if column == "path" and not (folder / text).exists():
            return f"{text!r} does not exist"
        if column == "sample":
            check_storable(text, "it")
        if column == "um_per_px" and text:
            positive(text, "it")
    except ValueError as error:
        return str(error)
    return ""
