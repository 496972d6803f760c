"""All or nothing: what a step wrote is taken away again if it fails."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from h2e._sdata import keys as _keys

if TYPE_CHECKING:
    from spatialdata import SpatialData


@contextmanager
def all_or_nothing(sdata: SpatialData, table_key: str = _keys.TABLE) -> Iterator[None]:
    """Put elements, placements, records and the table's columns and layers back as they were if the block raises."""
    from spatialdata.transformations import get_transformation, set_transformation

    before = {kind: dict(getattr(sdata, kind)) for kind in ("images", "labels", "shapes", "tables")}
    placed = {key: dict(get_transformation(shapes, get_all=True)) for key, shapes in sdata.shapes.items()}
    # Records are kept in new dicts, so shallow copies of attrs and uns stay as they are.
    attrs = sdata.attrs
    table = sdata.tables.get(table_key)
    if table is not None:
        obs, layers, uns = table.obs.copy(), dict(table.layers), dict(table.uns)
    try:
        yield
    except BaseException:
        for kind, elements in before.items():
            _put_back(getattr(sdata, kind), elements)
        for key, transformations in placed.items():
            set_transformation(sdata.shapes[key], transformations, set_all=True)
        sdata.attrs = attrs
        if table is not None:
            table.obs, table.uns = obs, uns
            _put_back(table.layers, layers)
        raise


def _put_back(group: MutableMapping[str, object], elements: dict[str, object]) -> None:
    """Drop the elements that are new, and return those that were replaced."""
    for key in [key for key, element in group.items() if elements.get(key) is not element]:
        del group[key]
    group.update({key: element for key, element in elements.items() if key not in group})
