"""Write the predictions of an ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from h2e._ensemble.ensemble import Ensemble
from h2e._ensemble.extraction import Features
from h2e._ensemble.fitting import announce_models
from h2e._ensemble.recognition import NEW, training_rows, warn_of_outliers
from h2e._ensemble.scale_cue import warn_of_sizes
from h2e._sdata import keys as _keys
from h2e._sdata.cohort import Cohort, open_new_cohort, size_of
from h2e._sdata.features import check_features
from h2e._sdata.grid import adopt_spots, lay_grids
from h2e._sdata.keys import Keys
from h2e._sdata.predictions import check_predictions_free, write_predictions
from h2e._sdata.rollback import all_or_nothing
from h2e._sdata.table import check_sdata, get_table
from h2e._warnings import refuse_if

if TYPE_CHECKING:
    from spatialdata import SpatialData


def predict(
    sdata: SpatialData,
    ensemble: Ensemble,
    *,
    key_added: str = _keys.PREDICTION,
    um_per_px: float | Mapping[str, float] | None = None,
    interval: float = 0.9,
    overwrite: bool = False,
    image_key: str | Mapping[str, str] | None = None,
    tissue_mask_key: str | None = None,
    table_key: str = _keys.TABLE,
    library_key: str | None = None,
    in_sample: bool = False,
    progress: bool = True,
) -> None:
    """Predict the targets at every spot on tissue, and write them to the table.

    Tiles have the extent in µm that the training slides had, whatever the spacing of these spots. Images are brought to
    the stain reference of the ensemble, lazily. Without a table, the one set of circles or squares in
    ``sdata.shapes`` that lies on an image gets one; where there is none, a hexagonal grid of spots with the spacing of
    the training slides is laid over the tissue (:func:`h2e.pp.make_spots`).

    Parameters
    ----------
    sdata
        Slides; those that the ensemble was trained on are recognized by their images, and their spots by
        their places; those of a part of such a slide by their names and measured values.
    ensemble
        What :func:`h2e.tl.fit` returned.
    key_added
        Where in ``table.obsm`` the predictions go.
    um_per_px
        µm per pixel of the image at its finest level, or a mapping from slide or image to it, where nothing else tells
        it; refused where it contradicts what does. You are warned where the pixels look larger or smaller, compared
        with the training slides.
    interval
        Share of the truths that the intervals are meant to hold.
    overwrite
        Replace a key that something other than h2e wrote.

    Other Parameters
    ----------------
    image_key
        Image of each region, a name or a mapping, where it cannot be found by its coordinate system.
    tissue_mask_key
        Labels or shapes with the tissue; by default ``"{image}_tissue"``, and where it is missing it is found now.
    table_key
        Table over all slides.
    library_key
        Column of ``table.obs`` that says which slide a spot belongs to; by default the table's region key.
    in_sample
        Write to ``key_added`` also at spots that the ensemble was trained on. Never score these.
    progress
        As in :func:`h2e.tl.fit`; slides that the ensemble was trained on take seconds.

    Returns
    -------
    ``None``. Sets the following fields of ``sdata[table_key]``:

    ``.obsm[key_added]`` : ``DataFrame``, ``float32``, spots × targets
        Predictions, between the smallest and the largest value of training. NaN at spots without tissue (in their
        image, or 0 in ``obs["in_tissue"]``) and at those that the ensemble was trained on.
    ``.obsm["{key_added}_loo"]`` : ``DataFrame``, ``float32``, spots × targets
        At spots that the ensemble was trained on, the held-out predictions; only written if there are any.
    ``.obsm["{key_added}_std"]`` : ``DataFrame``, ``float32``, spots × targets
        Standard deviation over the models, and over the flips of the tile where a network looks at them.
    ``.obsm["{key_added}_lower"]``, ``.obsm["{key_added}_upper"]`` : ``DataFrame``, ``float32``, spots × targets
        Split-conformal intervals around the predictions, cut off at 0 where no target was negative: each target's
        half width is the quantile of its held-out errors, every group weighing the same. With fewer than ten groups
        to calibrate on nothing is guaranteed on a new donor; :func:`h2e.tl.evaluate` measures the coverage. Not
        written where no group was left out, nor of the stack ``"in_sample"``, of which there are no held-out
        predictions.
    ``.obs["{key_added}_novelty"]`` : ``float32``
        Log2 of the distance of the spot's features to the training spots over the distance that is typical between
        groups of training: 0 is typical, 1 twice as far. Where it is high, the prediction is extrapolated. NaN where
        there is no prediction.
    ``.uns[key_added]`` : ``dict``
        Unit, version, parameters and training slides; ``"skill_below_0"`` has the targets whose held-out predictions are
        worse than the mean (:meth:`h2e.Ensemble.held_out_skill`).

    Raises
    ------
    KeyError
        The table, an image or a mask is not there.
    ValueError
        Images cannot be paired with regions, are normalized already, or have pixels of unknown size; no spot lies
        on tissue; or a key is taken by something that h2e did not write. Nothing is written then.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
    >>> ensemble = h2e.tl.fit(sdata, learners="texture", n_targets=4, group_key="donor", progress=False)
    >>> new = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6, seed=1)
    >>> h2e.tl.predict(new, ensemble, progress=False)
    >>> new["table"].obsm["h2e"].shape
    (48, 4)
    """
    refuse_if(not 0 < interval < 1, f"interval must be between 0 and 1, such as 0.9, got {interval}.")
    check_sdata(sdata)
    msg = f"this needs an Ensemble, got {type(ensemble).__name__}; h2e.Ensemble.load(folder) reads a saved one."
    refuse_if(not hasattr(ensemble, "spacing_um"), msg, TypeError)
    keys = Keys(table_key, image_key, tissue_mask_key, library_key=library_key, um_per_px=um_per_px)
    with all_or_nothing(sdata, table_key):
        if not len(sdata.tables):
            msg = "image_key maps regions to images, but without a table there are no regions; pass the name of one "
            refuse_if(isinstance(image_key, Mapping), f"{msg}image of {sorted(sdata.images)}, or None for all.")
            if adopt_spots(sdata, keys):
                lay_grids(sdata, keys, spacing_um=ensemble.spacing_um, key_added=None, overwrite=overwrite)
        check_predictions_free(get_table(sdata, table_key), key_added, overwrite=overwrite)
        n_spots, n_slides, _ = size_of(sdata, keys)
        announce_models("predict", n_spots, n_slides, ensemble.learners, len(ensemble.members), progress=progress)
        keep_residual = bool(ensemble.settings.get("keep_residual", True))
        spacing, reference = ensemble.spacing_um, ensemble.reference
        cohort = open_new_cohort(sdata, keys, spacing_um=spacing, reference=reference, keep_residual=keep_residual)
        for learner in ensemble.learners:
            if learner.obsm:
                check_features(cohort.table, learner.obsm, ensemble.settings.get("features", {}).get(learner.obsm, {}))
        if ensemble.scale_cue is not None:
            warn_of_sizes(cohort, ensemble.scale_cue)
        how: dict[str, Any] = {"in_sample": in_sample, "interval": interval}
        frames, novelty = _values(cohort, ensemble, key_added, **how, progress=progress)
        warn_of_outliers(cohort, ensemble, novelty[cohort.rows])
        about = about_ensemble(ensemble, **how)
        write_predictions(cohort.table, frames, novelty, key_added, list(ensemble.targets), about)


def _values(
    cohort: Cohort, ensemble: Ensemble, key_added: str, *, interval: float, in_sample: bool, progress: bool
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Rows of the table and values for each key of ``obsm``, and the novelty of every row."""
    trained = training_rows(cohort, ensemble)
    new = np.full(len(trained), fill_value=True) if in_sample else trained == NEW
    rows, novelty = cohort.rows[new], np.full(cohort.table.n_obs, np.nan, np.float32)
    mean = spread = np.empty((0, len(ensemble.targets)), np.float32)
    # Of slides that were trained on no tile is read: their held-out predictions are in the ensemble.
    if new.any():
        features = Features(cohort.take(new), progress)
        x = features.extract(ensemble.learners, spacing_um=ensemble.spacing_um, reference=ensemble.reference).x
        mean, spread = ensemble.predict(x)
        if ensemble.novelty is not None:
            novelty[rows] = ensemble.novelty.of(x[ensemble.novelty.learner])
    values = {key_added: mean, _keys.std(key_added): spread}
    width = ensemble.half_width(interval)
    if width is not None:
        # Neither expression nor proportions are below 0.
        lowest = 0 if ensemble.lowest >= 0 else -np.inf
        values |= {_keys.lower(key_added): np.maximum(mean - width, lowest), _keys.upper(key_added): mean + width}
    frames = {key: (rows, value) for key, value in values.items()}
    if (trained >= 0).any():
        held_out = ensemble.loo.to_numpy()[trained[trained >= 0]]
        frames[_keys.held_out(key_added)] = (cohort.rows[trained >= 0], held_out)
    return frames, novelty


def about_ensemble(ensemble: Ensemble, **params: object) -> dict[str, object]:
    """What is stored beside predictions: unit, training slides, and the settings of the ensemble and of the call."""
    settings: dict[str, object] = {
        name: value for name, value in ensemble.settings.items() if isinstance(value, str | int | float | bool | list)
    }
    unit = str(settings.pop("unit", ""))
    settings |= {**params, "stack": ensemble.stack.kind, "n_calibration_groups": ensemble.n_groups}
    slides = sorted(ensemble.training["slide"].unique())
    skill = ensemble.held_out_skill()
    weak = skill.index[skill < 0].tolist()
    return {"unit": unit, "training_slides": slides, _keys.WEAK: weak, _keys.SETTINGS: settings}
