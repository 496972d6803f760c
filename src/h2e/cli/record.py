"""What a command leaves in its folder: results that are whole or not there, and a record of how they were made."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any


@contextmanager
def whole(folder: Path, name: str) -> Iterator[Path]:
    """A folder to write to, whose content is moved to ``folder`` when all of it is there, a record last."""
    part = folder / f".{name}.part"
    # Of a run that was killed.
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        for new in sorted(part.iterdir(), key=lambda path: path.suffix == ".json"):
            remove(folder / new.name)
            os.replace(new, folder / new.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove(path: Path) -> None:
    """Delete a file or a folder that may be there."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def write_record(path: Path, python: str, started: float, **facts: Any) -> None:
    """Write down how something was made; times are of ``time.time``."""
    packages = ("h2e", "torch", "spatialdata", "anndata")
    versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
    about = {"command": shlex.join(["h2e", *sys.argv[1:]]), "python": python, "versions": versions}
    about |= {"seconds": round(time.time() - started, 2), "finished": datetime.now(UTC).isoformat(timespec="seconds")}
    path.write_text(json.dumps(about | facts, indent=1, default=str), encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """A record; empty where none can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def state_of(path: Path) -> list[float]:
    """Bytes of a file, or of all that is in a folder, and when it was changed last."""
    stats = [one.stat() for one in (path, *path.rglob("*"))]
    return [sum(one.st_size for one in stats), max(one.st_mtime for one in stats)]


def script(lines: Iterable[str]) -> str:
    """Lines of Python below the imports that they need."""
    text = "\n".join(lines)
    modules = sorted(set(re.findall(r"\b(anndata|h2e|spatialdata|spatialdata_io)\.", text)))
    return "\n".join([*(f"import {name}" for name in modules), "", text])


def arguments(options: Mapping[str, Any]) -> str:
    """Options of a call as Python, behind its first argument."""
    return "".join(f", {key}={value!r}" for key, value in options.items())
