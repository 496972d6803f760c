"""Folders of a JSON description and safetensors arrays, written whole or not at all, checked when read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
ABOUT, ARRAYS = "ensemble.json", "weights.safetensors"


def save(folder: Path, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write a folder beside its place, then move it there; replaces only what ``save`` wrote."""
    from safetensors.numpy import save as to_bytes

    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is a file; pass a folder."
        raise FileExistsError(msg)
    if folder.exists() and any(folder.iterdir()) and not (folder / ABOUT).exists():
        msg = f"{folder} holds {sorted(p.name for p in folder.iterdir())[:5]} and no ensemble; pass a new or an empty folder."
        raise FileExistsError(msg)
    content = to_bytes({key: np.ascontiguousarray(value) for key, value in arrays.items()})
    about = {"format": FORMAT, "weights_sha256": hashlib.sha256(content).hexdigest(), **about}
    text = json.dumps(about | {"sha256": _digest(about)}, indent=1)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    old = new.with_name(f"{new.name}-old")
    try:
        (new / ARRAYS).write_bytes(content)
        (new / ABOUT).write_text(text)
        new.chmod(0o755)
        if folder.exists():  # what was there is kept until the new one is in its place
            os.replace(folder, old)
        os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if not folder.exists() and old.exists():
            os.replace(old, folder)
        shutil.rmtree(old, ignore_errors=True)


def load(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read and check what ``save`` wrote."""
    from safetensors.numpy import load as from_bytes

    for name in (ABOUT, ARRAYS):
        if not (folder / name).is_file():
            there = sorted(p.name for p in folder.iterdir())[:5] if folder.is_dir() else "nothing"
            msg = f"{folder} is no saved ensemble: it has no {name}, but {there}. Save one with ensemble.save(folder)."
            raise FileNotFoundError(msg)
    try:
        about = json.loads((folder / ABOUT).read_text())
    except ValueError as error:
        msg = f"{folder / ABOUT} is damaged: it is no JSON ({error}). Save the ensemble again."
        raise ValueError(msg) from error
    if not isinstance(about, dict) or "format" not in about:
        msg = f"{folder / ABOUT} was not written by h2e: it has no format."
        raise ValueError(msg)
    if about["format"] != FORMAT:
        msg = f"{folder} has format {about['format']}, this version of h2e reads format {FORMAT}. Update h2e, or save the ensemble again."
        raise ValueError(msg)
    claimed = about.pop("sha256", None)
    content = (folder / ARRAYS).read_bytes()
    for name, wrong in {
        ABOUT: claimed != _digest(about),
        ARRAYS: about["weights_sha256"] != hashlib.sha256(content).hexdigest(),
    }.items():
        if wrong:
            msg = f"{folder / name} is truncated or was changed after saving: its checksum does not match. Save the ensemble again."
            raise ValueError(msg)
    return about, from_bytes(content)


def _digest(about: dict[str, Any]) -> str:
    """Checksum of a description."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
