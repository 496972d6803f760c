"""What h2e wrote to a table, and how: what is noted is ours, and may be replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from h2e import _keys

if TYPE_CHECKING:
    from anndata import AnnData


def note(table: AnnData, key: str, params: Mapping[str, Any]) -> None:
    """Keep in ``uns["h2e"]["params"]`` how a key was made."""
    table.uns.setdefault(_keys.PREDICTION, {}).setdefault("params", {})[key] = dict(params)


def noted(table: AnnData | None, key: str) -> Mapping[str, Any]:
    """How h2e made a key, empty if it did not."""
    params = {} if table is None else table.uns.get(_keys.PREDICTION, {}).get("params", {})
    found = params.get(key)
    return found if isinstance(found, Mapping) else {}  # beside the settings of a prediction, which are plain values


def check_free(table: AnnData, slot: str, key: str, *, overwrite: bool) -> None:
    """Refuse to replace a key of ``obs``, ``var`` or ``layers`` that h2e did not write."""
    if not hasattr(table, "obs"):
        msg = f"this needs an AnnData, got {type(table).__name__}; pass the table, sdata['table']."
        raise TypeError(msg)
    if "/" in key:
        msg = f"key_added={key!r} cannot be stored: it has a '/'."
        raise ValueError(msg)
    ours = key == _keys.TARGET or noted(table, key)  # a name that only h2e gives
    if key in getattr(table, slot) and not (ours or overwrite):
        msg = f"adata.{slot}[{key!r}] is there, and there is no record of h2e having written it (spatialdata.concatenate drops records); pass another key_added, or overwrite=True."
        raise ValueError(msg)
