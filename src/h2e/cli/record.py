"""What a command leaves in its folder: results that are whole or not there, and a record of how they were made."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click


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


def write_record(path: Path, python: str, settings: dict[str, Any], started: float, **facts: Any) -> None:
    """Write down how something was made; times are of ``time.time``."""
    packages = ("h2e", "torch", "spatialdata", "anndata")
    record = {
        "command": click.get_current_context().meta["command"],
        "python": python,
        "settings": settings,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "seconds": round(time.time() - started, 2),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path.write_text(json.dumps(record | facts, indent=1), encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """A record; empty where none can be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def state_of(path: Path) -> list[float]:
    """When a file, or a folder down to its third level, was changed last, and its bytes."""
    stats = [one.stat() for one in (path, *path.glob("*"), *path.glob("*/*"), *path.glob("*/*/*"))]
    return [max(one.st_mtime for one in stats), sum(one.st_size for one in stats)]


def bytes_of(path: Path) -> int:
    """Size of a file, or of all files in a folder; 0 where there is none."""
    files = [path, *path.rglob("*")]
    return sum(file.stat().st_size for file in files if file.is_file())
