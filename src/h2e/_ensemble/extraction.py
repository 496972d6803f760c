"""What learners see of the spots of a slide: tiles, positions, or stored features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from h2e._ensemble.fold_models import names_of
from h2e._learners.registry import Learner, feature_key
from h2e._slide.slide import Slide
from h2e._slide.tiles import read_views, tile_bytes
from h2e._slide.tissue import Tissue

if TYPE_CHECKING:
    from anndata import AnnData

BATCH_BYTES = 2**27
"""Tiles that are in memory at a time, for each slide that is looked at."""


def extract_features(
    slide: Slide, tissue: Tissue, learners: Sequence[Learner], table: AnnData | None, *, spacing_um: float
) -> dict[str, np.ndarray]:
    """What each learner keeps of each spot of a slide, by its name; all views of a batch of spots are cut in one pass, batches go down the slide."""
    views = list(dict.fromkeys(view for learner in learners for view in learner.views))
    step = max(1, BATCH_BYTES // max(1, tile_bytes(slide, views, spacing_um=spacing_um)))
    order = np.argsort(slide.xy[:, 1], kind="stable")
    back = np.argsort(order)
    looking = {
        feature_key(learner): [] for learner in learners if learner.views
    }  # learners that see the same look once
    for start in range(0, len(order), step):
        some = order[start : start + step]
        tiles = dict(zip(views, read_views(slide, slide.xy[some], views, spacing_um=spacing_um), strict=True))
        for learner, parts in looking.items():
            parts.append(learner.extract_features([tiles[view] for view in learner.views]))
    seen = {eyes: np.concatenate(parts)[back] for eyes, parts in looking.items()}
    x = {}
    for name, learner in zip(names_of(learners), learners, strict=True):
        if learner.uses == "xy":
            x[name] = from_middle_um(slide, tissue)
        elif learner.views:
            x[name] = seen[feature_key(learner)]
        else:
            x[name] = _stored_features(table, learner.obsm, slide.rows)
    return x


def from_middle_um(slide: Slide, tissue: Tissue) -> np.ndarray:
    """Positions in µm from the middle of the tissue, which does not depend on the spots that are there."""
    mask, scale = tissue
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    middle = np.array([columns[[0, -1]].sum() + 1, rows[[0, -1]].sum() + 1]) / 2 * scale if len(rows) else 0.0
    return ((slide.xy - middle) * slide.um_per_px).astype(np.float32)


def _stored_features(table: AnnData, key: str, rows: np.ndarray) -> np.ndarray:
    """Features of another tool in ``obsm``."""
    if key not in table.obsm:
        msg = f"{key!r} is not in table.obsm; it has {list(table.obsm)}."
        raise KeyError(msg)
    stored = table.obsm[key]
    some = stored.iloc[rows] if hasattr(stored, "iloc") else stored[rows]
    features = np.asarray(some.toarray() if sparse.issparse(some) else some, np.float32)
    bad = int((~np.isfinite(features)).any(axis=1).sum())
    if bad:
        msg = f"obsm[{key!r}] has NaN or infinite features for {bad} of {len(rows)} spots on tissue."
        raise ValueError(msg)
    return features
