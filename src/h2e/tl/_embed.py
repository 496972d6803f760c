"""Write the features of an encoder to the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from h2e._ensemble.extraction import Features
from h2e._learners.embedding import Embedding
from h2e._learners.encoders import weights_digest
from h2e._sdata import keys as _keys
from h2e._sdata.cohort import open_every_spot
from h2e._sdata.features import write_features
from h2e._sdata.keys import Keys
from h2e._sdata.provenance import check_free, is_ours
from h2e._sdata.scale import positive
from h2e._sdata.table import get_table
from h2e._warnings import refuse_if

if TYPE_CHECKING:
    from spatialdata import SpatialData


def embed(
    sdata: SpatialData,
    encoder: Any = "shell",
    *,
    key_added: str,
    normalized: bool = False,
    spacing_um: float | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    um_per_px: float | Mapping[str, float] | None = None,
    image_key: str | Mapping[str, str] | None = None,
    table_key: str = _keys.TABLE,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Write the features of a frozen encoder at every spot, for clustering, and for ``Embedding(obsm=key_added)``.

    Parameters
    ----------
    sdata
        Slides with spots.
    encoder
        As of :class:`Embedding`, whose views it sees; or an :class:`Embedding` with other views, a ``device``, or a
        ``cache``: a folder with which an interrupted call continues where it was, and the same tiles are encoded once.
    key_added
        Where in ``table.obsm`` the features go, such as ``"X_uni2"``.
    normalized
        Encode the images as :func:`h2e.pp.normalize` made them, not as they are. New slides then need the same
        reference.
    spacing_um
        What views in spacings mean, in µm; ``None``: the median spacing of these slides. Features of slides with other
        spots go together with those of training slides only if it is the same.
    dtype
        ``"float16"`` takes half the memory.
    um_per_px
        As in :func:`h2e.tl.fit`.
    image_key
        Image of each region, a name or a mapping, where it cannot be found by its coordinate system.
    table_key
        Table over all slides.
    overwrite
        Replace a key that something other than h2e wrote.
    progress
        As in :func:`h2e.tl.fit`.

    Returns
    -------
    ``None``. Writes, once all slides are done:

    ``table.obsm[key_added]`` : array, spots × features
        Features of all views side by side.
    ``table.uns["h2e"]["params"][key_added]`` : ``dict``
        Encoder, checksum of its weights, views in µm and pixels, kind of image. :func:`h2e.tl.predict` refuses features
        that were made otherwise than those of training.

    Raises
    ------
    KeyError, ValueError
        As :func:`h2e.tl.fit`; or the key is taken by something that h2e did not write.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort(n_slides=1, n_donors=1, side=6)
    >>> h2e.tl.embed(sdata, lambda images: images.mean((2, 3)), key_added="X_colours", progress=False)
    >>> sdata["table"].obsm["X_colours"].shape
    (23, 9)
    """
    learner = encoder if isinstance(encoder, Embedding) else Embedding(encoder)
    refuse_if(learner.obsm is not None, f"encoder must be an encoder or an Embedding without obsm, got {encoder!r}.")
    refuse_if(dtype not in ("float32", "float16"), f"dtype must be 'float32' or 'float16', got {dtype!r}.")
    table = get_table(sdata, table_key)
    check_free(table, "obsm", key_added, ours=is_ours(table, "obsm", key_added), overwrite=overwrite)
    keys = Keys(table_key, image_key, um_per_px=um_per_px)
    cohort = open_every_spot(sdata, keys, normalized=normalized)
    every = np.arange(len(cohort.rows))
    spacing = cohort.spacing_um(every) if spacing_um is None else positive(spacing_um, "spacing_um")
    made = Features(cohort, progress).extract([learner], reference=cohort.reference, spacing_um=spacing)
    with np.errstate(over="ignore"):
        (x,) = (features.astype(dtype) for features in made.x.values())
    refuse_if(not np.isfinite(x).all(), f"features must be finite as {dtype}, but some are not; pass dtype='float32'.")
    stains = None if cohort.reference is None else cohort.reference.to_dict()
    facts = {**learner.record(spacing, stains), "weights": weights_digest(learner.encoder, learner.device)}
    write_features(table, cohort.rows, x, key_added, facts)
