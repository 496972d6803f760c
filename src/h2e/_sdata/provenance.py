"""What h2e wrote to a SpatialData or a table, and how: what is noted is ours, and may be replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from h2e._sdata import keys as _keys

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def set_provenance(where: SpatialData | AnnData, kind: str, key: str, facts: Mapping[str, Any]) -> None:
    """Keep facts about a key, in ``uns["h2e"][kind]`` of a table or ``attrs["h2e"][kind]`` of a SpatialData."""
    replace_provenance(where, kind, {**_store(where).get(_keys.PREDICTION, {}).get(kind, {}), key: dict(facts)})


def replace_provenance(where: SpatialData | AnnData, kind: str, facts: Any) -> None:
    """Keep all facts of a kind, in new dicts: subsets and crops of a SpatialData have the very ``attrs`` of the whole."""
    ours = {**_store(where).get(_keys.PREDICTION, {}), kind: facts}
    if hasattr(where, "uns"):
        where.uns[_keys.PREDICTION] = ours
    else:
        where.attrs = {**where.attrs, _keys.PREDICTION: ours}


def get_provenance(where: SpatialData | AnnData, kind: str) -> Mapping[str, Mapping[str, Any]]:
    """All facts of a kind, by key."""
    found = _store(where).get(_keys.PREDICTION, {}).get(kind, {})
    return {key: facts for key, facts in found.items() if isinstance(facts, Mapping)}  # but settings of a prediction


def check_free(table: AnnData, slot: str, key: str, *, overwrite: bool) -> None:
    """Refuse to replace a key of ``obs``, ``var`` or ``layers`` that h2e did not write."""
    if not hasattr(table, "obs"):
        msg = f"this needs an AnnData, got {type(table).__name__}; pass the table, sdata['table']."
        raise TypeError(msg)
    check_storable(key)
    ours = key == _keys.TARGET or key in get_provenance(table, _keys.PARAMS)  # a name that only h2e gives
    if key in getattr(table, slot) and not (ours or overwrite):
        msg = f"adata.{slot}[{key!r}] is there, and there is no record of h2e having written it (spatialdata.concatenate drops records); pass another key_added, or overwrite=True."
        raise ValueError(msg)


def check_storable(key: str) -> None:
    """Refuse a key that zarr and h5ad would take for a path."""
    if "/" in key:
        msg = f"key_added={key!r} cannot be stored: it has a '/'."
        raise ValueError(msg)


def _store(where: SpatialData | AnnData) -> dict[str, Any]:
    """Where a SpatialData or a table keeps what belongs to no element."""
    return where.uns if hasattr(where, "uns") else where.attrs
