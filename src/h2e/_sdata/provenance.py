"""What h2e wrote to a SpatialData or a table, and how: what is on record is ours, and may be replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._warnings import refuse

if TYPE_CHECKING:
    from spatialdata import SpatialData

    Container: TypeAlias = SpatialData | AnnData

ELEMENTS = ("images", "labels", "points", "shapes", "tables")

SLOT_OF = {"tissue_fraction": "obs", "select_targets": "var", "make_spots": "shapes", "attach_features": "obsm",
           "embed": "obsm"}  # fmt: skip
"""Where each function writes; what is on record without a function is a layer of ranks."""


def set_provenance(container: Container, kind: str, key: str, facts: Mapping[str, Any]) -> None:
    """Keep facts about a key, in ``uns["h2e"][kind]`` of a table or ``attrs["h2e"][kind]`` of a SpatialData."""
    replace_provenance(container, kind, {**_records(container).get(kind, {}), key: dict(facts)})


def replace_provenance(container: Container, kind: str, facts: Any) -> None:
    """Keep all facts of a kind, in new dicts: subsets and crops of a SpatialData share the ``attrs`` of the whole."""
    records = {**_records(container), kind: facts}
    if hasattr(container, "uns"):
        container.uns[_keys.PREDICTION] = records
    else:
        container.attrs = {**container.attrs, _keys.PREDICTION: records}


def get_provenance(container: Container, kind: str) -> Mapping[str, Mapping[str, Any]]:
    """All facts of a kind, by key."""
    facts = _records(container).get(kind, {})
    # Version 0.1 kept the settings of predictions beside the records of keys.
    return {key: one for key, one in facts.items() if isinstance(one, Mapping)}


def settings_of(table: AnnData, key: str) -> Mapping[str, Any]:
    """The settings that the predictions under a key were made with; version 0.1 kept them under ``"params"``."""
    about = table.uns.get(key)
    if not isinstance(about, Mapping):
        return {}
    old = about.get(_keys.PARAMS, {})
    return about.get(_keys.SETTINGS) or {name: value for name, value in old.items() if not isinstance(value, Mapping)}


def is_ours(table: AnnData, slot: str, key: str) -> bool:
    """Whether h2e wrote a column or a layer of a table."""
    facts = get_provenance(table, _keys.PARAMS).get(key)
    return facts is not None and SLOT_OF.get(facts.get("function", ""), "layers") == slot


def check_free(
    data: Container, slot: str, key: str, *, ours: bool, overwrite: bool, changed: bool = False, hint: str = "key_added"
) -> None:
    """Refuse to write where there is something that h2e did not write, or what could not be stored.

    Names of elements are unique over all kinds, those of a slot of a table within it; upper and lower case are one.
    What h2e wrote and somebody ``changed`` is theirs.
    """
    what = "sdata" if hasattr(data, "tables") else "adata"
    check_storable(key)
    _records(data)
    for kind in ELEMENTS if what == "sdata" else (slot,):
        names = [str(name) for name in getattr(data, kind) if name is not None]
        taken = next((name for name in names if name.lower() == key.lower()), None)
        same = kind == slot and taken == key
        if taken is None or (same and (ours or overwrite)):
            continue
        record = "there is no record of h2e having written it (spatialdata.concatenate drops it, join_slides does not)"
        if changed:
            record = "it was changed or replaced since h2e wrote it (a crop?)"
        refuse(f"{what}.{kind}[{taken!r}] is there, and {record}; pass another {hint}{', or overwrite=True' * same}.")


def check_adata(adata: object) -> None:
    """Refuse what is not a table."""
    if not hasattr(adata, "obs"):
        refuse(f"adata must be an AnnData, got {type(adata).__name__}; pass the table, sdata['table'].", TypeError)


def check_storable(key: str, what: str = "key_added") -> None:
    """Refuse a key that a SpatialData cannot store."""
    if not re.fullmatch(r"(?!__)[A-Za-z0-9_.-]+", key) or key in {".", ".."}:
        refuse(f"{what} must consist of letters, digits and the characters _ . -, to be stored, got {key!r}.")


def _records(container: Container) -> Mapping[str, Any]:
    """All that h2e has on record about a SpatialData or a table."""
    slot = "uns" if hasattr(container, "uns") else "attrs"
    records = getattr(container, slot).get(_keys.PREDICTION, {})
    if not isinstance(records, Mapping):
        msg = f"{slot}[{_keys.PREDICTION!r}] must be a dict, for h2e keeps its records there, got "
        refuse(msg + f"{type(records).__name__}; move it to another key.", TypeError)
    return records
