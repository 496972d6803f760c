"""Names of trained models in ``run_dir``: what each is trained on, how, and by what code."""

from __future__ import annotations

import hashlib
import json
import linecache
import logging
from functools import cache
from inspect import isfunction, unwrap
from os import PathLike
from pathlib import Path

import numpy as np

from h2e._learners.learner import Learner
from h2e._learners.registry import LEARNERS, to_json

log = logging.getLogger(__name__)

HERE = Path(__file__).parents[1]

CODE = (*sorted((HERE / "_learners").glob("*.py")), HERE / "_statistics.py", HERE / "_slide" / "compiled.py")
"""The files that train: a model that others trained is another model."""


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
