"""Images of a SpatialData as lazy RGB pyramids, and where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from h2e._slide.image import Image
from h2e._warnings import refuse, refuse_if

if TYPE_CHECKING:
    from spatialdata import SpatialData
    from xarray import DataArray, DataTree

AGREE_PX = 2.0
"""Pixels by which two coordinate systems may disagree where an element lies on an image."""


def open_image(sdata: SpatialData, key: str) -> Image:
    """An element of ``sdata.images`` as a pyramid; refuses what is not 8-bit RGB."""
    check_image_key(sdata, key)
    arrays = _levels(sdata.images[key])
    first = arrays[0]
    if first.dtype != np.uint8:
        msg = f"image {key!r} must be 8-bit RGB, got {first.dtype}. Convert it (of a pyramid each scale) with (image "
        msg += "// 257).astype('uint8') if its values reach to 65535, with (image * 255).round().astype('uint8') if to "
        refuse(msg + "1, with image.astype('uint8') if to 255; or name the H&E with image_key.")
    refuse_if(0 in first.shape[1:], f"image {key!r} is empty: its shape is {first.shape}.")
    channels = rgb_channels(first, key)
    levels = tuple(a.data if channels == [0, 1, 2] and a.sizes["c"] == 3 else a.data[channels] for a in arrays)
    scales = tuple(_scale(np.array(first.shape[1:]), np.array(a.shape[1:])) for a in arrays)
    return Image(key, levels, scales)


def check_image_key(sdata: SpatialData, key: str) -> None:
    """Refuse the name of an image that is not there."""
    refuse_if(key not in sdata.images, f"{key!r} is not in sdata.images; it has {sorted(sdata.images)}.", KeyError)


def systems_of(element: object) -> list[str]:
    """Coordinate systems in which an element is placed."""
    from spatialdata.transformations import get_transformation

    children = getattr(element, "children", None)
    if children and "scale0" not in children:
        refuse(f"an image must have its finest level, scale0, got {sorted(children)}; make it anew of these.")
    return list(get_transformation(element, get_all=True))


def affine_of(element: object, system: str) -> np.ndarray:
    """3 × 3 matrix from the element's own (x, y) to a coordinate system."""
    from spatialdata.transformations import get_transformation

    return get_transformation(element, system).to_affine_matrix(("x", "y"), ("x", "y"))


def affine_to_image(sdata: SpatialData, image_key: str, element: object, what: str) -> np.ndarray:
    """3 × 3 matrix from an element's own (x, y) to pixels of level 0 of an image; ``what`` names it in an error."""
    image = sdata.images[image_key]
    shared = [system for system in systems_of(element) if system in systems_of(image)]
    if not shared:
        msg = f"{what} shares no coordinate system with image {image_key!r}: {systems_of(element)} and "
        refuse(msg + f"{systems_of(image)}. Set one with spatialdata.transformations.set_transformation.")
    first, *others = (np.linalg.solve(affine_of(image, system), affine_of(element, system)) for system in shared)
    # In the element's own coordinates.
    corners = corners_of(sdata, image_key) @ np.linalg.inv(first).T
    for system, other in zip(shared[1:], others, strict=True):
        if (apart := np.abs((corners @ (other - first).T)[:, :2]).max()) > AGREE_PX:
            msg = f"coordinate systems {shared[0]!r} and {system!r} disagree by up to {apart:.0f} px where {what} lies "
            msg += f"on image {image_key!r}; remove the wrong one from both with spatialdata's remove_transformation."
            raise ValueError(msg)
    return first


def corners_of(sdata: SpatialData, image_key: str) -> np.ndarray:
    """The four corners of an image in its own pixels, (4, 3): x, y, 1."""
    height, width = _levels(sdata.images[image_key])[0].shape[1:]
    return np.array([(0, 0, 1), (width, 0, 1), (0, height, 1), (width, height, 1)], float)


def levels_of(element: DataArray | DataTree) -> list[DataArray]:
    """The arrays of an image or of labels, finest first; of many scales it is an xarray DataTree."""
    from xarray import DataArray

    if isinstance(element, DataArray):
        return [element]
    arrays = (next(iter(node.data_vars.values())) for node in element.children.values())
    return sorted(arrays, key=lambda array: -array.sizes["y"])


def _levels(element: DataArray | DataTree) -> list[DataArray]:
    """The arrays of an image, finest first, with its channels first."""
    arrays = levels_of(element)
    if set(arrays[0].dims) != {"c", "y", "x"}:
        msg = f"an image must have the axes (c, y, x), got {arrays[0].dims}; say with image_key which image is an H&E."
        raise ValueError(msg)
    return [array.transpose("c", "y", "x") for array in arrays]


def rgb_channels(array: DataArray, key: str) -> list[int]:
    """Positions of red, green and blue."""
    names = [str(c).lower() for c in array.coords["c"].to_numpy()] if "c" in array.coords else []
    for wanted in (["r", "g", "b"], ["red", "green", "blue"]):
        if set(wanted) <= set(names):
            return [names.index(c) for c in wanted]
    n_channels = array.sizes["c"]
    # Unnamed: RGB or RGBA.
    if n_channels in (3, 4) and names in ([], [str(i) for i in range(n_channels)]):
        return [0, 1, 2]
    named = names if len(names) <= 8 else [*names[:3], "…"]
    msg = f"image {key!r} has {n_channels} channels named {named}, h2e reads RGB. If they are these, say so with "
    raise ValueError(msg + f"sdata.set_channel_names({key!r}, ['r', 'g', 'b']); channels go first, (c, y, x).")


def _scale(fine: np.ndarray, coarse: np.ndarray) -> float:
    """Pixels of one shape per pixel of another: whole where at most a pixel was trimmed, as by pyramids that halve."""
    ratio = np.sqrt(np.prod(fine / coarse))
    whole = np.round(ratio)
    return float(whole if (np.abs(fine - whole * coarse) <= whole).all() else ratio)
