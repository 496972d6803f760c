"""Extract what learners keep of the spots of a cohort: features of tiles, tiles, positions, or stored features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from h2e._ensemble.fold_models import names_of
from h2e._learners.learner import Learner, checked_features
from h2e._parallel import ahead, in_parallel
from h2e._sdata.cohort import Cohort
from h2e._slide.slide import Slide
from h2e._slide.tiles import view_windows, warn_of_enlarging
from h2e._slide.windows import stream
from h2e._stains.reference import StainReference
from h2e._stains.slides import normalize_image


@dataclass(frozen=True, eq=False)
class Features:
    """The features of a cohort; those that were extracted last are kept."""

    cohort: Cohort
    progress: bool = True
    kept: dict[tuple, dict[str, np.ndarray]] = field(default_factory=dict, repr=False)

    def extract(
        self, learners: Sequence[Learner], *, reference: StainReference | None, spacing_um: float
    ) -> dict[str, np.ndarray]:
        """What each learner keeps of each spot, by its name, on images with the stains of a reference."""
        key = (tuple(learners), reference, spacing_um)
        if key in self.kept:
            return self.kept[key]
        slides, keep_residual = self.cohort.slides, self.cohort.keep_residual
        # It is sent to a cluster, so the cohort stays outside.
        of_slide = partial(
            extract_features, learners=learners, spacing_um=spacing_um, reference=reference, keep_residual=keep_residual
        )
        views = {view for learner in learners for view in learner.views}
        warn_of_enlarging(slides, list(views), spacing_um=spacing_um)
        tiles = [len(slide.xy) * len(views) for slide in slides]
        parts = in_parallel(of_slide, list(slides), progress=self.progress, desc="reading tiles", tiles=tiles)
        x = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for name, learner in zip(names_of(learners), learners, strict=True):
            if learner.obsm is not None and learner.uses == "obsm":
                x[name] = np.concatenate([self.cohort.stored_features(learner.obsm, slide) for slide in slides])
        self.kept.clear()
        self.kept[key] = x
        return x


def extract_features(
    slide: Slide,
    learners: Sequence[Learner],
    *,
    spacing_um: float,
    reference: StainReference | None = None,
    keep_residual: bool = True,
) -> dict[str, np.ndarray]:
    """What each learner keeps of each spot of a slide, by its name; stored features are left out.

    All views of all spots are cut in one pass, and the next batch of tiles is read while features of one are extracted.
    """
    if reference is not None and slide.tissue is not None:
        um_per_px = slide.um_per_px
        image = normalize_image(slide.image, slide.tissue, reference, um_per_px=um_per_px, keep_residual=keep_residual)
        slide = replace(slide, image=image)
    views = list(dict.fromkeys(view for learner in learners for view in learner.views))
    # Learners that extract the same features share them.
    parts: dict[Learner, list[np.ndarray]] = {one.feature_key: [] for one in learners if one.uses == "tiles"}
    order, windows = [], view_windows(slide, slide.xy, views, spacing_um=spacing_um)
    for spots, cut in ahead(stream(slide.image.levels, windows, slide.image.key)) if windows else ():
        tiles = dict(zip(views, cut, strict=True))
        for learner, batches in parts.items():
            batches.append(checked_features(learner, [tiles[view] for view in learner.views]))
        order.append(spots)
    features = {
        learner: np.concatenate(batches)[np.argsort(np.concatenate(order))] for learner, batches in parts.items()
    }
    x = {}
    for name, learner in zip(names_of(learners), learners, strict=True):
        if learner.uses == "xy":
            x[name] = from_middle_um(slide)
        elif learner.uses == "tiles":
            x[name] = features[learner.feature_key]
    return x


def from_middle_um(slide: Slide) -> np.ndarray:
    """Positions in µm from the middle of the tissue, which does not depend on the spots that are there."""
    mask, scale = slide.require_tissue()
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    middle = np.array([columns[[0, -1]].sum() + 1, rows[[0, -1]].sum() + 1]) / 2 * scale if len(rows) else 0.0
    return ((slide.xy - middle) * slide.require_size()).astype(np.float32)
