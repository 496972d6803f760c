"""Bring the stains of all slides to one reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from h2e._sdata import keys as _keys
from h2e._sdata.masks import with_tissue
from h2e._sdata.normalized import check_normalized_free, write_normalized
from h2e._sdata.slides import open_images
from h2e._stains.reference import METHODS, Method, StainReference
from h2e._stains.slides import as_reference, fit_reference
from h2e._warnings import refuse_if

if TYPE_CHECKING:
    from spatialdata import SpatialData


def fit_stain_reference(
    sdata: SpatialData,
    *,
    image_key: str | Mapping[str, str] | None = None,
    method: Method = "macenko",
    tissue_mask_key: str | None = None,
    n_patches: int = 16,
    patch_px: int = 256,
    seed: int = 0,
    um_per_px: float | Mapping[str, float] | None = None,
    table_key: str = _keys.TABLE,
) -> StainReference:
    """Estimate the stains that all slides have in common.

    Tissue patches are drawn from every slide, at the level of the pyramid nearest to 2 µm per pixel, and every
    slide has the same weight: no slide sets the look of the cohort. Pen, blood, folds, dust and black borders are
    left out by their colour.

    Parameters
    ----------
    sdata
        Slides; nothing is written.
    image_key
        Image, or mapping from region to image; by default every source image.
    method
        ``"macenko"``: the two extreme hues of the tissue; ``"vahadane"``: the two vectors that explain it most
        sparsely; ``"reinhard"``: mean and spread of its colour in CIE Lab, no stains.
    tissue_mask_key
        Tissue mask in ``sdata.labels``; by default that of the image, and where there is none it is computed.
    n_patches, patch_px
        Number of patches of a slide and their side; at least half of a patch is tissue.
    seed
        Of the choice of patches.
    um_per_px
        Size of a pixel in µm, or a mapping from slide or image to it; by default from the spots.
    table_key
        Table that says which images are paired with spots.

    Returns
    -------
    A frozen, printable :class:`StainReference`.

    Raises
    ------
    KeyError
        An image, a mask or the table is not there.
    ValueError
        The method is unknown, an image is no 8-bit RGB, or no slide has stained tissue.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort()
    >>> h2e.pp.fit_stain_reference(sdata).method
    'macenko'
    """
    refuse_if(method not in METHODS, f"method must be one of {list(METHODS)}, got {method!r}.")
    refuse_if(min(n_patches, patch_px) < 1, f"n_patches and patch_px must be positive, got {n_patches}, {patch_px}.")
    keys = _keys.Keys(table_key, image_key, tissue_mask_key, um_per_px=um_per_px)
    slides = with_tissue(sdata, list(open_images(sdata, keys).values()), tissue_mask_key)
    return fit_reference(slides, method=method, n_patches=n_patches, patch_px=patch_px, seed=seed)


def normalize_stains(
    sdata: SpatialData,
    reference: StainReference | ArrayLike | None = None,
    *,
    image_key: str | Mapping[str, str] | None = None,
    method: Method | None = None,
    tissue_mask_key: str | None = None,
    key_added: str | None = None,
    keep_residual: bool = True,
    um_per_px: float | Mapping[str, float] | None = None,
    overwrite: bool = False,
    table_key: str = _keys.TABLE,
) -> None:
    """Give the tissue of every slide the stains of a reference.

    Every level of the pyramid becomes a lazy map of the same level, with one set of statistics for the whole slide;
    only patches of tissue are read now. What is outside of the tissue mask, paler than an optical density of 0.15
    or black stays exactly as it is; between 0.15 and 0.3 the change fades in, so that no edge appears.
    Stains of a slide that lie more than 20° from the reference, or that few pixels speak for, are drawn towards it.

    Parameters
    ----------
    sdata
        Slides.
    reference
        What to bring them to: a :class:`StainReference`, an RGB image of well-stained tissue, or a reference
        that ``squidpy.experimental.im.fit_stain_reference`` returned. ``None``: what all slides have in common.
        :func:`h2e.tl.evaluate` estimates that anew without each group; one that is given it keeps, and warns unless it
        was fitted on other images.
    image_key
        Image, or mapping from region to image; by default every source image.
    method
        How to fit the reference if none, or an image, is given; ``"macenko"`` by default.
    tissue_mask_key
        Tissue mask in ``sdata.labels``; by default that of the image, and where there is none it is computed.
    key_added
        Where the result goes; possible with one image.
    keep_residual
        Whether what the two stains do not explain is kept. ``False`` is the textbook's two-stain picture.
    um_per_px
        Size of a pixel in µm, or a mapping from slide or image to it; by default from the spots.
    overwrite
        Whether an image under that key, which h2e did not write, may be replaced.
    table_key
        Table that says which images are paired with spots.

    Returns
    -------
    ``None``. Sets the following fields:

    ``sdata.images["{image}_normalized"]`` : ``uint8``, like the image
        Same pyramid, chunks, transformations and channel names.
    ``sdata.attrs["h2e"]["stains"]["{image}_normalized"]`` : ``dict``
        The reference, and the stains of the slide as they were.

    Raises
    ------
    KeyError
        An image, a mask or the table is not there.
    TypeError
        The reference is none, and no RGB image.
    ValueError
        The method is not that of the reference, an image is no 8-bit RGB, or a key is taken by something that h2e
        did not write.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort()
    >>> h2e.pp.normalize_stains(sdata)
    >>> sorted(sdata.attrs["h2e"]["stains"]) == sorted(key for key in sdata.images if key.endswith("_normalized"))
    True
    """
    keys = _keys.Keys(table_key, image_key, tissue_mask_key, um_per_px=um_per_px)
    opened = open_images(sdata, keys)
    targets = check_normalized_free(sdata, list(opened), key_added, overwrite=overwrite)
    slides = dict(zip(opened, with_tissue(sdata, list(opened.values()), tissue_mask_key), strict=True))
    pooled = reference is None
    stains = fit_reference(slides.values(), method=method or "macenko") if pooled else as_reference(reference, method)
    about: dict[str, Any] = {"keep_residual": keep_residual, "tissue_mask_key": tissue_mask_key}
    write_normalized(sdata, slides, targets, stains, pooled=pooled, **about)
