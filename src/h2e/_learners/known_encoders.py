"""Encoders by name: the tiles that each was trained on, and the table of all that there are."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

SHELL = "shell"
"""The encoder that comes with h2e: 1.5 M parameters, trained on H&E to segment epithelium (lavlab-shell 0.9.1, MIT)."""

SHELL_PX = 48
"""Side of its images."""


@cache
def known() -> pd.DataFrame:
    """What encoders.csv says, where it comes from: encoders of LazySlide's registry by name."""
    return pd.read_csv(Path(__file__).with_name("encoders.csv"), comment="#", index_col="name")


def known_tile(name: str) -> tuple[int | None, float | None]:
    """Pixels and µm/px of the tiles of a named encoder, as far as they are known without it."""
    kind, _, rest = name.partition(":")
    repositories = known()["repository"].str.lower()
    rows = known()[known().index == rest if kind == "lazyslide" else repositories == rest.partition(":")[2].lower()]
    px, um_per_px = next(rows[["px", "um_per_px"]].dropna().itertuples(index=False), (None, None))
    # LazySlide gives most of its encoders 224 px.
    return (224 if kind == "lazyslide" else None) if px is None else int(px), um_per_px


def registry() -> dict[str, Any]:
    """LazySlide's image encoders by name: classes that make them, and say their licence."""
    from lazyslide_models import MODEL_REGISTRY

    return {name: kind for name, kind in sorted(MODEL_REGISTRY.items()) if hasattr(kind, "encode_image")}


def list_encoders() -> pd.DataFrame:
    """List the encoders that have a name: the one of h2e, and those of LazySlide's registry.

    Every model of timm is one, too: ``"timm:NAME"``, or ``"timm:hf-hub:ORG/NAME"``.

    Returns
    -------
    A DataFrame indexed by ``name``, with ``parameters``, ``licence``, ``gated`` (terms must be accepted on
    huggingface.co), ``px`` and ``um_per_px`` of the tiles that it was trained on (missing: h2e does not know them),
    ``trust`` (needs ``trust_remote_code=True``) and ``installed``. What is missing is not known without the packages of
    ``pip install 'h2e[encoders]'``.

    Examples
    --------
    >>> list_encoders().loc["shell", "licence"]
    'MIT'
    """
    installed = find_spec("lazyslide_models") is not None
    kinds = registry() if installed else dict.fromkeys(known().index)
    table = known().reindex(list(kinds))
    licences = ([one] if isinstance(one, str) else one or [] for one in _of(kinds, "license"))
    table["licence"] = [", ".join(names) or None for names in licences]
    table = table.assign(parameters=_of(kinds, "param_size"), gated=_of(kinds, "is_gated"), installed=installed)
    table = table.assign(trust=table["plain"] != 1).set_axis([f"lazyslide:{name}" for name in kinds])
    shell = {"parameters": "1.5M", "licence": "MIT", "gated": False, "px": SHELL_PX, "trust": False, "installed": True}
    table = pd.concat([pd.DataFrame([shell], index=[SHELL]), table]).rename_axis("name").astype({"px": "Int64"})
    return table[["parameters", "licence", "gated", "px", "um_per_px", "trust", "installed"]]


def _of(kinds: dict[str, Any], what: str) -> list[Any]:
    """What the classes of encoders say of themselves."""
    return [getattr(kind, what, None) for kind in kinds.values()]
