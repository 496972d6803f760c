"""Folders of a JSON description and safetensors arrays, read back whole or not at all, and what models are kept as."""

from __future__ import annotations

import hashlib
import json
import linecache
import os
from functools import cache
from inspect import isfunction, unwrap
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from h2e._learners.learner import Learner
from h2e._learners.registry import LEARNERS, to_json
from h2e._warnings import log, refuse, refuse_if

FORMAT = 1
"""Written from now on; ``load`` reads every format that was ever written."""

ABOUT, ARRAYS, README = "ensemble.json", "weights.safetensors", "README.md"


HERE = Path(__file__).parents[1]

_FILES = ("_learners/*.py", "_statistics.py", "_warnings.py", "_slide/compiled.py")
CODE = tuple(path for pattern in _FILES for path in sorted(HERE.glob(pattern)))
"""The files that train: a model that others trained is another model."""


def save(
    folder: Path, about: dict[str, Any], arrays: dict[str, np.ndarray], *, replace: bool = False, readme: str = ""
) -> None:
    """Write two files, and a readme where no other is, aside, then move them to their place; old ones go last.

    A folder that holds anything must hold an ensemble, unless ``replace``.
    """
    from safetensors.numpy import save as to_bytes

    refuse_if(folder.exists() and not folder.is_dir(), f"folder must not be a file, got {folder}.", FileExistsError)
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    try:
        if names and not replace:
            _read_about(folder)
    except (OSError, ValueError) as error:
        msg = f"folder must be new, empty or hold an ensemble that h2e wrote, got {folder} with {names[:5]}."
        raise FileExistsError(msg) from error
    content = to_bytes({key: np.ascontiguousarray(value) for key, value in arrays.items()})
    about = {"format": FORMAT, "weights_sha256": hashlib.sha256(content).hexdigest(), **about}
    text = json.dumps(about | {"sha256": _digest(about)}, indent=1)
    aside = folder if folder.exists() else folder.parent
    aside.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=aside, ignore_cleanup_errors=True) as made:
        new = Path(made) / "new"
        new.mkdir()
        (new / ARRAYS).write_bytes(content)
        (new / ABOUT).write_text(text)
        own = folder / README
        if readme and (not own.exists() or own.read_text(encoding="utf-8").startswith(readme.partition("\n")[0])):
            (new / README).write_text(readme, encoding="utf-8")
        if folder.exists():
            _exchange(folder, new)
        else:
            os.replace(new, folder)


def _exchange(folder: Path, new: Path) -> None:
    """Move the files of ``new`` to ``folder``, or, if that fails, those that were there back."""
    old = new / "old"
    old.mkdir()
    moved = []
    try:
        for name in [path.name for path in new.iterdir() if path.is_file()]:
            for source, target in ((folder / name, old / name), (new / name, folder / name)):
                if source.exists():
                    os.replace(source, target)
                    moved.append((source, target))
    except BaseException:
        for source, target in reversed(moved):
            os.replace(target, source)
        raise


def load(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read and check what ``save`` wrote."""
    from safetensors.numpy import load as from_bytes

    for name in (ABOUT, ARRAYS):
        if not (folder / name).is_file():
            names = sorted(path.name for path in folder.iterdir())[:5] if folder.is_dir() else "nothing"
            refuse(f"folder must hold a saved ensemble, but {folder} has no {name}: it has {names}.", FileNotFoundError)
    about = _read_about(folder)
    msg = f"{folder} has format {about['format']}, this version of h2e reads formats to {FORMAT}. Update h2e."
    refuse_if(about["format"] not in range(1, FORMAT + 1), msg)
    claimed, content = about.pop("sha256", None), (folder / ARRAYS).read_bytes()
    same = {ABOUT: claimed == _digest(about), ARRAYS: about["weights_sha256"] == hashlib.sha256(content).hexdigest()}
    changed = [name for name in same if not same[name]]
    refuse_if(changed, f"{changed} of {folder} were truncated or changed after saving: save it again.")
    return about, from_bytes(content)


def _read_about(folder: Path) -> dict[str, Any]:
    """Read a description that h2e wrote."""
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text())
    except ValueError as error:
        msg = f"{path} is damaged: it is not JSON ({error}). Save the ensemble again."
        raise ValueError(msg) from error
    known = isinstance(about, dict) and {"format", "weights_sha256"} <= set(about)
    refuse_if(not known, f"{path} was not written by h2e: it has no format.")
    return about


def _digest(about: dict[str, Any]) -> str:
    """Checksum of a description."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def folder_of(
    run_dir: str | PathLike | None, learner: Learner, seed: int, groups: np.ndarray, *arrays: np.ndarray
) -> Path | None:
    """Where a model is kept; ``None`` where none is, or where nothing tells what code trains it."""
    if run_dir is None:
        return None
    own = "" if type(learner) in LEARNERS.values() else source_of(type(learner))
    if own is None:
        return None
    about = [own_code(), own, to_json(learner), seed, groups.tolist(), [(a.dtype.str, a.shape) for a in arrays]]
    digest = hashlib.sha256(json.dumps(about).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return Path(run_dir) / digest.hexdigest()[:32]


@cache
def own_code() -> str:
    """A digest of h2e's own code that trains."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in CODE)).hexdigest()


@cache
def source_of(kind: type[Learner]) -> str | None:
    """The text of the files, or cells of a notebook, that define a learner of the user and what it derives from."""
    parts = [one for one in kind.__mro__ if one not in Learner.__mro__]
    functions = [unwrap(value) for one in parts for value in vars(one).values() if isfunction(value)]
    files = {function.__code__.co_filename for function in functions}
    texts = {}
    for file in sorted(files):
        linecache.checkcache(file)
        texts[file] = "".join(linecache.getlines(file))
    if texts.get(unwrap(kind.fit).__code__.co_filename):
        return "\0".join(texts.values())
    what = "models of learner %s are neither kept in run_dir nor taken from it: there is no file with its code"
    log.warning(what, kind.__name__)
    return None
