"""What a command leaves in its folder: results that are whole or not there, and a record of how they were made."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

SUFFIXES = (".json", ".zarr", ".h5ad", ".geojson")
"""Of what is written under one name; the record goes first and comes last."""


@contextmanager
def whole(folder: Path, name: str) -> Iterator[Path]:
    """A folder to write to, whose content takes the place of what was written under that name when all of it is there."""
    part = folder / f".{name}.part"
    # Of a run that was killed.
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        for old in [folder / f"{name}{suffix}" for suffix in SUFFIXES]:
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
        for new in sorted(part.iterdir(), key=lambda path: path.suffix == ".json"):
            os.replace(new, folder / new.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_record(path: Path, python: Sequence[str], started: float, **facts: Any) -> None:
    """Write down how something was made; times are of ``time.time``."""
    versions = {name: version(name) for name in ("h2e", "torch", "spatialdata", "anndata")}
    facts |= {"command": shlex.join(["h2e", *sys.argv[1:]]), "python": script(python)}
    facts |= {"versions": versions | {"python": sys.version.split()[0]}, "seconds": round(time.time() - started, 2)}
    facts |= {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
    path.write_text(json.dumps(facts, indent=1, default=str), encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """A record; empty where none can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def state_of(path: Path) -> list[float]:
    """Bytes of a file, or of all that is in a folder, and when it was changed last."""
    every = [path, *path.rglob("*")]
    return [sum(one.stat().st_size for one in every if one.is_file()), max(one.stat().st_mtime for one in every)]


def script(lines: Sequence[str]) -> str:
    """Lines of Python below the imports that they need."""
    known = ("pathlib", "anndata", "h2e", "spatialdata", "spatialdata_io")
    modules = [name for name in known if f"{name}." in "".join(lines)]
    return "\n".join([*(f"import {name}" for name in modules), "", *lines])


def arguments(options: Mapping[str, Any]) -> str:
    """Options of a call as Python, behind its first argument."""
    return "".join(f", {key}={value!r}" for key, value in options.items())
