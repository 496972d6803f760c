"""Stain-normalized images: written as elements that look like their sources, and read with what they were made by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

import dask.array as da

from h2e._sdata import keys as _keys
from h2e._sdata.images import open_image, rgb_channels
from h2e._sdata.provenance import check_free, get_provenance, set_provenance
from h2e._sdata.table import check_sdata
from h2e._slide.image import Image
from h2e._slide.slide import Slide
from h2e._stains.maps import map_image
from h2e._stains.reference import StainReference
from h2e._stains.slides import slide_stains
from h2e._warnings import log, refuse, refuse_if, warn

if TYPE_CHECKING:
    from spatialdata import SpatialData
    from xarray import DataArray, DataTree

ONE_REFERENCE = "bring all to one reference with h2e.pp.normalize(sdata, overwrite=True)."


def check_normalized_free(
    sdata: SpatialData, image_keys: Sequence[str], key_added: str | None, *, overwrite: bool
) -> dict[str, str]:
    """Where the normalized version of each image goes; refuses a key that something else holds."""
    if key_added is not None and len(image_keys) > 1:
        refuse(f"key_added must be None for several, got one key {key_added!r} for {list(image_keys)}; pass image_key.")
    written = get_provenance(sdata, _keys.STAINS)
    targets = {key: key_added or _keys.normalized(key) for key in image_keys}
    for target in targets.values():
        refuse_if(target in image_keys, f"key_added={target!r} is the image itself; choose another key.")
        check_free(sdata, "images", target, ours=target in written, overwrite=overwrite)
    return targets


def write_normalized(
    sdata: SpatialData,
    slides: Mapping[str, Slide],
    targets: Mapping[str, str],
    reference: StainReference,
    *,
    pooled: bool,
    keep_residual: bool = True,
    tissue_mask_key: str | None = None,
) -> None:
    """Write the image of each slide (by image) with the stains of a reference, lazily, once all stains are known."""
    results = {}
    for key, slide in slides.items():
        tissue = slide.require_tissue()
        own = slide_stains(slide.image, tissue, reference, um_per_px=slide.um_per_px)
        if own is None:
            log.warning("image %r has no stained tissue: it is left as it is", key)
        results[key] = own, map_image(slide.image, own, reference, tissue, keep_residual=keep_residual)
    for key, (own, image) in results.items():
        target = targets[key]
        did = "replaced" if target in sdata.images else "wrote"
        sdata.images[target] = image_like(sdata.images[key], image)
        facts = {"image": key, "reference": reference.to_dict(), "slide": None if own is None else own.to_dict()}
        how = {"pooled": pooled, "keep_residual": keep_residual, "tissue_mask_key": tissue_mask_key or ""}
        set_provenance(sdata, _keys.STAINS, target, facts | how)
        log.info("%s images[%r]: %s, lazily", did, target, reference.method)


def normalized_of(
    sdata: SpatialData, image_keys: Sequence[str], normalized_key: str | Mapping[str, str] | None = None
) -> dict[str, str]:
    """The normalized version of each image that has one: that named, the default one, or the only one on record."""
    stains, versions = get_provenance(sdata, _keys.STAINS), {}
    for key in image_keys:
        named = normalized_key.get(key) if isinstance(normalized_key, Mapping) else normalized_key
        made = sorted(name for name, facts in stains.items() if facts["image"] == key and name in sdata.images)
        if named is not None and named not in made:
            refuse(f"normalized_key={named!r} was not made from image {key!r} by h2e.pp.normalize_stains; {made} were.")
        if named is None and _keys.normalized(key) in sdata.images:
            named = _keys.normalized(key)
        if named is None and len(made) > 1:
            refuse(f"image {key!r} was normalized to {made}; say with normalized_key which of them models should see.")
        # Its record is lost, and it is not to be passed over without a word.
        made = made or [name for name in sdata.images if name != key == _keys.before_concatenate(name)]
        if named is not None or made:
            versions[key] = named or made[0]
    return versions


def normalized_pairs(
    sdata: SpatialData, image_key: str | Sequence[str] | Mapping[str, str] | None
) -> list[tuple[str, str]]:
    """The images asked for, or all that were normalized, each with its normalized version."""
    check_sdata(sdata)
    written = get_provenance(sdata, _keys.STAINS)
    after = {facts["image"]: key for key, facts in written.items() if key in sdata.images}
    if image_key is None:
        wanted = sorted(after)
    elif isinstance(image_key, Mapping):
        wanted = list(dict.fromkeys(image_key.values()))
    else:
        wanted = [image_key] if isinstance(image_key, str) else list(image_key)
    if not wanted or not set(wanted) <= set(after):
        refuse(f"{wanted or 'no image'}: normalized are {sorted(after)}. Run h2e.pp.normalize_stains first.", KeyError)
    return [(key, after[key]) for key in wanted]


def on_normalized_images(sdata: SpatialData, slides: Sequence[Slide]) -> list[Slide]:
    """The slides on the normalized versions of their images, where there are any."""
    versions = normalized_of(sdata, sorted({slide.image.key for slide in slides}))
    images = {key: open_image(sdata, name) for key, name in versions.items()}
    return [replace(slide, image=images.get(slide.image.key, slide.image)) for slide in slides]


def stored_reference(
    sdata: SpatialData, image_keys: Sequence[str], normalized_key: str | Mapping[str, str] | None = None
) -> tuple[StainReference | None, bool, bool]:
    """What the images were normalized with, the same for all, ``None`` if none was; whether pooled; the residual."""
    stains = get_provenance(sdata, _keys.STAINS)
    versions = normalized_of(sdata, image_keys, normalized_key)
    if not versions:
        if lost := [key for key in map(_keys.normalized, image_keys) if key in stains]:
            msg = f"images {lost} were made once and are not there: models see raw images; run h2e.pp.normalize."
            warn(msg)
        return None, True, True
    foreign = [name for name in versions.values() if name not in stains]
    if foreign:
        msg = f"images {foreign} were not normalized by h2e, or the record is lost (spatialdata.concatenate drops "
        msg += "it, h2e.pp.join_slides keeps it), so new slides could not be treated alike. Run "
        refuse(msg + "h2e.pp.normalize(sdata, overwrite=True), or pass them as image_key to use them as they are.")
    missing = sorted(set(image_keys) - set(versions))
    refuse_if(missing, f"images {missing} are not normalized, {sorted(versions.values())} are; {ONE_REFERENCE}")
    made = {name: stains[name] for name in versions.values()}
    first, how = next(iter(made.items()))
    reference = StainReference.from_dict(how["reference"])
    for name, facts in made.items():
        same = StainReference.from_dict(facts["reference"]) == reference
        if not same or facts["keep_residual"] != how["keep_residual"]:
            refuse(f"images {first!r} and {name!r} were normalized to different references; {ONE_REFERENCE}")
    pooled = all(facts.get("pooled", True) for facts in made.values())
    return reference, pooled, bool(how["keep_residual"])


def image_like(source: DataArray | DataTree, image: Image) -> DataArray | DataTree:
    """An element with the pixels of ``image`` and the pyramid, transformations and channel names of ``source``."""
    from spatialdata.models import Image2DModel
    from xarray import DataArray, Dataset, DataTree

    if isinstance(source, DataArray):
        return _with_pixels(source, image.levels[0])
    nodes = {name: next(iter(node.data_vars.items())) for name, node in source.children.items()}
    by_size = sorted(nodes, key=lambda name: -nodes[name][1].sizes["y"])
    pixels = dict(zip(by_size, image.levels, strict=True))
    scales = {name: Dataset({key: _with_pixels(array, pixels[name])}) for name, (key, array) in nodes.items()}
    element = DataTree.from_dict(scales)
    Image2DModel().validate(element)
    return element


def _with_pixels(array: DataArray, pixels: da.Array) -> DataArray:
    """An array with other pixels: its axes, coordinates and transformations, of its channels red, green and blue."""
    from xarray import DataArray

    array = array.transpose("c", "y", "x")
    coords = {name: array.coords[name] for name in ("y", "x") if name in array.coords}
    names = array.coords["c"].to_numpy() if "c" in array.coords else range(array.sizes["c"])
    coords["c"] = [names[i] for i in rgb_channels(array, str(array.name))]
    return DataArray(pixels, dims=("c", "y", "x"), coords=coords, attrs=deepcopy(array.attrs), name=array.name)
