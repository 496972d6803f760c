"""All or nothing: what a step wrote is taken away again if it fails."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING

from anndata import AnnData

from h2e._sdata import keys as _keys

if TYPE_CHECKING:
    from spatialdata import SpatialData


@contextmanager
def all_or_nothing(sdata: SpatialData, table_key: str = _keys.TABLE) -> Iterator[None]:
    """Put elements, placements, records and the table's columns and layers back as they were if the block raises."""
    from spatialdata.transformations import get_transformation, set_transformation

    before = {kind: dict(getattr(sdata, kind)) for kind in ("images", "labels", "shapes", "tables")}
    placed = {key: dict(get_transformation(shapes, get_all=True)) for key, shapes in sdata.shapes.items()}
    # Records replace it, and leave it as it is.
    attrs = sdata.attrs
    table = sdata.tables.get(table_key)
    if table is not None:
        columns = table.obs.copy(), dict(table.layers), deepcopy(table.uns.get(_keys.PREDICTION))
    try:
        yield
    except BaseException:
        for kind, elements in before.items():
            _put_back(getattr(sdata, kind), elements)
        for key, transformations in placed.items():
            set_transformation(sdata.shapes[key], transformations, set_all=True)
        sdata.attrs = attrs
        if table is not None:
            _put_table_back(table, *columns)
        raise


def _put_back(group: MutableMapping[str, object], elements: dict[str, object]) -> None:
    """Drop the elements that are new, and return those that were replaced."""
    for key in list(group):
        if key not in elements or group[key] is not elements[key]:
            del group[key]
    for key, element in elements.items():
        if key not in group:
            group[key] = element


def _put_table_back(table: AnnData, obs: object, layers: dict[str, object], records: dict | None) -> None:
    """Columns, layers and records as they were."""
    table.obs = obs
    _put_back(table.layers, layers)
    if records is None:
        table.uns.pop(_keys.PREDICTION, None)
    else:
        table.uns[_keys.PREDICTION] = records
