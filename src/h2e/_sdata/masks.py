"""Tissue masks as elements of a SpatialData, by h2e or by others, and the share of tissue under the spots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.images import affine_to_image, levels_of
from h2e._sdata.provenance import check_free, get_provenance, is_ours, set_provenance
from h2e._slide.image import Image
from h2e._slide.slide import Slide, by_image
from h2e._slide.tissue import Method, Tissue, tissue_mask
from h2e._warnings import log, refuse, refuse_if

if TYPE_CHECKING:
    from spatialdata import SpatialData
    from xarray import DataArray, DataTree

SIDE_PX = 1024
"""About the longer side of a mask that is resampled or drawn from polygons."""


def write_mask(sdata: SpatialData, image_key: str, name: str, mask: np.ndarray, scale: float, *, method: str) -> None:
    """Store a mask whose pixels are ``scale`` pixels of the image, in all coordinate systems of the image."""
    from spatialdata.models import Labels2DModel
    from spatialdata.transformations import Scale, Sequence, get_transformation

    sdata.labels.pop(name, None)
    resize = Scale([scale, scale], axes=("x", "y"))
    placed = get_transformation(sdata.images[image_key], get_all=True).items()
    transformations = {system: Sequence([resize, to]) for system, to in placed}
    sdata.labels[name] = Labels2DModel.parse(mask.astype(np.uint8), dims=("y", "x"), transformations=transformations)
    facts = {"image": image_key, "method": method, "scale": float(scale), "tissue_px": int(mask.sum())}
    set_provenance(sdata, _keys.TISSUE, name, facts)
    log.info("wrote labels[%r]: %d × %d px, %.1f %% tissue", name, *mask.shape, 100 * mask.mean())


def check_mask_free(sdata: SpatialData, name: str, *, overwrite: bool) -> None:
    """Refuse a name under which there is something that h2e did not write, or that was changed since."""
    facts = get_provenance(sdata, _keys.TISSUE).get(name)
    ours = facts is not None and name in sdata.labels and facts["tissue_px"] == _read(sdata.labels[name]).sum()
    check_free(sdata, "labels", name, ours=ours, overwrite=overwrite, changed=facts is not None)


def find_mask(sdata: SpatialData, image: Image, tissue_mask_key: str | None = None) -> Tissue | None:
    """The tissue mask of an image (``bool``), and how many pixels of level 0 one of its pixels covers.

    It may be labels of any size that cover the image (from h2e or squidpy), or polygons (from LazySlide).
    Without ``tissue_mask_key``, ``None`` if there is no ``"{image}_tissue"``.
    """
    name = tissue_mask_key or _keys.tissue(image.key)
    if name in sdata.labels:
        return _from_labels(sdata, image, name)
    if name in sdata.shapes:
        return _from_polygons(sdata, image, name)
    known = sorted([*sdata.labels, *sdata.shapes])
    refuse_if(tissue_mask_key, f"{name!r} is neither in sdata.labels nor in sdata.shapes; they have {known}.", KeyError)
    return None


def detect_masks(
    sdata: SpatialData,
    slides: Mapping[str, Slide],
    names: Mapping[str, str],
    *,
    overwrite: bool,
    method: Method = "otsu",
    scale: float | None = None,
) -> dict[str, Tissue]:
    """Find the tissue of images and store it under a name each; masks by image. None is written before all are made."""
    for name in names.values():
        check_mask_free(sdata, name, overwrite=overwrite)
    masks = {}
    for key, slide in slides.items():
        masks[key] = tissue_mask(slide.image, method=method, um_per_px=slide.um_per_px, scale=scale)
    for key, tissue in masks.items():
        write_mask(sdata, key, names[key], *tissue, method=method)
        if not tissue[0].any():
            what = "method %r found no tissue in image %r: is it an H&E? Look at it, or pass a mask of your own"
            log.warning(what, method, key)
    return masks


def with_tissue(
    sdata: SpatialData, slides: Sequence[Slide], tissue_mask_key: str | Mapping[str, str] | None = None
) -> list[Slide]:
    """The slides with the tissue masks of their images: those that are stored, or else found now and not stored.

    ``tissue_mask_key`` is one name for all images, or a mapping from image to name.
    """
    tissues = {}
    for key, slide in by_image(slides).items():
        name = tissue_mask_key.get(key) if isinstance(tissue_mask_key, Mapping) else tissue_mask_key
        mask = find_mask(sdata, slide.image, name)
        tissues[key] = mask or tissue_mask(slide.image, um_per_px=slide.um_per_px)
    return [replace(slide, tissue=tissues[slide.image.key]) for slide in slides]


def with_stored_tissue(sdata: SpatialData, slides: Sequence[Slide], *, overwrite: bool) -> list[Slide]:
    """The slides with their tissue masks; those that are not there yet are found and stored."""
    images = by_image(slides)
    tissues = {key: find_mask(sdata, slide.image) for key, slide in images.items()}
    missing = {key: images[key] for key, tissue in tissues.items() if tissue is None}
    names = {key: _keys.tissue(key) for key in missing}
    tissues |= detect_masks(sdata, missing, names, overwrite=overwrite)
    return [replace(slide, tissue=tissues[slide.image.key]) for slide in slides]


def write_fraction(
    table: AnnData, slides: Sequence[Slide], key: str, *, overwrite: bool, tissue_mask_key: str | None = None
) -> None:
    """Write the share of tissue in the subtile of each spot; the slides know their tissue."""
    check_free(table, "obs", key, ours=is_ours(table, "obs", key), overwrite=overwrite)
    fraction = np.full(table.n_obs, np.nan, np.float32)
    for slide in slides:
        fraction[slide.rows] = slide.tissue_fraction()
        invalid = int((fraction[slide.rows] == 0).sum())
        log.info("slide %r: %d of %d spots are invalid, without tissue", slide.name, invalid, len(slide))
    table.obs[key] = fraction
    params = {"function": "tissue_fraction", "tissue_mask_key": tissue_mask_key or "{image}_tissue"}
    set_provenance(table, _keys.PARAMS, key, params)
    log.info("wrote obs[%r]", key)


def _read(labels: DataArray | DataTree) -> np.ndarray:
    """The finest level of labels as a mask (masks are small next to images)."""
    return np.asarray(levels_of(labels)[0].transpose("y", "x").data) > 0


def _from_labels(sdata: SpatialData, image: Image, name: str) -> Tissue:
    """A mask from labels; resampled if they are rotated, shifted or stretched against the image."""
    mask = _read(sdata.labels[name])
    to_image = affine_to_image(sdata, image.key, sdata.labels[name], f"mask {name!r}")
    height, width = image.shape
    scale = float(np.round(np.sqrt(abs(np.linalg.det(to_image[:2, :2]))), 9))
    straight = np.allclose(to_image, np.diag([scale, scale, 1]), rtol=1e-6, atol=1e-6)
    covers = abs(mask.shape[0] * scale - height) < 0.02 * height + scale
    covers &= abs(mask.shape[1] * scale - width) < 0.02 * width + scale
    if straight and covers:
        return mask, scale
    sizes = f"mask {name!r} ({mask.shape[1]} × {mask.shape[0]} px)"
    hint = "give it a Scale with spatialdata.transformations.set_transformation."
    if straight and scale * min(mask.shape[0] / height, mask.shape[1] / width) > 1.1:
        msg = f"{sizes} reaches far beyond image {image.key!r} ({width} × {height} px), both begin in the same "
        refuse(msg + f"corner. If it was made at a finer level, {hint}")
    grid = max(scale, max(height, width) / SIDE_PX)
    y, x = (np.arange(int(np.ceil(n / grid))) * grid + grid / 2 for n in (height, width))
    points = np.stack(np.broadcast_arrays(x[None, :], y[:, None], 1.0), axis=-1) @ np.linalg.inv(to_image).T
    column, row = np.moveaxis(np.floor(points[..., :2] + 1e-9).astype(int), -1, 0)
    inside = (column >= 0) & (column < mask.shape[1]) & (row >= 0) & (row < mask.shape[0])
    if inside.mean() < 0.9:
        msg = f"{sizes} covers {100 * inside.mean():.0f} % of image {image.key!r} ({width} × {height} px). If it was "
        refuse(msg + f"made at a coarser level, {hint}")
    out = np.zeros(inside.shape, bool)
    out[inside] = mask[row[inside], column[inside]]
    return out, grid


def _from_polygons(sdata: SpatialData, image: Image, name: str) -> Tissue:
    """A mask drawn from polygons with their holes."""
    from skimage.draw import polygon

    to_image = affine_to_image(sdata, image.key, sdata.shapes[name], f"mask {name!r}")
    height, width = image.shape
    scale = max(1.0, max(height, width) / SIDE_PX)
    mask = np.zeros((int(np.ceil(height / scale)), int(np.ceil(width / scale))), bool)
    for part in sdata.shapes[name].geometry.explode():
        refuse_if(part.geom_type != "Polygon", f"mask {name!r} must be labels or polygons, got a {part.geom_type}.")
        piece = np.zeros_like(mask)
        for ring, value in [(part.exterior, True), *((hole, False) for hole in part.interiors)]:
            xy = (np.asarray(ring.coords)[:, :2] @ to_image[:2, :2].T + to_image[:2, 2]) / scale - 0.5
            piece[polygon(xy[:, 1], xy[:, 0], mask.shape)] = value
        mask |= piece
    return mask, scale
