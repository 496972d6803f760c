"""Image elements that look like others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

from h2e._sdata import keys as _keys

if TYPE_CHECKING:
    import dask.array as da
    from spatialdata import SpatialData
    from xarray import DataArray, DataTree

    from h2e._slide.image import Image


def check_keys(
    sdata: SpatialData, keys: Sequence[str], key_added: str | None, written: Mapping[str, object], *, overwrite: bool
) -> list[str]:
    """Where the normalized images go; refuses a key that something else holds."""
    if key_added is not None and len(keys) > 1:
        msg = f"key_added={key_added!r} is one key, there are {len(keys)} images {list(keys)}. Pass image_key as well, or leave key_added out."
        raise ValueError(msg)
    targets = [key_added or _keys.normalized(key) for key in keys]
    for target in targets:
        if target in keys:
            msg = f"key_added={target!r} is the image itself; choose another key."
            raise ValueError(msg)
        others = [kind for kind in ("labels", "shapes", "points", "tables") if target in getattr(sdata, kind)]
        if others:
            msg = f"{target!r} is a key of sdata.{others[0]}; pass another key_added."
            raise ValueError(msg)
        if target in sdata.images and target not in written and not overwrite:
            msg = f"{target!r} is in sdata.images and was not written by h2e; pass overwrite=True or another key_added."
            raise ValueError(msg)
    return targets


def image_like(source: DataArray | DataTree, image: Image) -> DataArray | DataTree:
    """An element with the pixels of ``image`` and the pyramid, transformations and channel names of ``source``."""
    from spatialdata.models import Image2DModel
    from xarray import Dataset, DataTree

    if not hasattr(source, "children"):
        return _with_pixels(source, image.levels[0])
    by_size = sorted(source.children, key=lambda name: -next(iter(source[name].values())).sizes["y"])
    scales = {}
    for name, pixels in zip(by_size, image.levels, strict=True):
        variable, array = next(iter(source[name].items()))
        scales[name] = Dataset({variable: _with_pixels(array, pixels)})
    element = DataTree.from_dict({name: scales[name] for name in source.children})
    Image2DModel().validate(element)
    return element


def _with_pixels(array: DataArray, pixels: da.Array) -> DataArray:
    """An array with other pixels: its axes, coordinates and transformations, of its channels red, green and blue."""
    from xarray import DataArray

    array = array.transpose("c", "y", "x")
    coords = {name: array.coords[name] for name in ("y", "x") if name in array.coords}
    names = array.coords["c"].to_numpy() if "c" in array.coords else range(array.sizes["c"])
    lowered = [str(name).lower() for name in names]
    rgb = next((wanted for wanted in (["r", "g", "b"], ["red", "green", "blue"]) if set(wanted) <= set(lowered)), None)
    order = [0, 1, 2] if rgb is None else [lowered.index(name) for name in rgb]
    coords["c"] = [names[i] for i in order]
    return DataArray(pixels, dims=("c", "y", "x"), coords=coords, attrs=deepcopy(array.attrs), name=array.name)
