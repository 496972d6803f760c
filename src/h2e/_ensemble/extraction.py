"""Extract what learners keep of the spots of a cohort: features of tiles, tiles, positions, or stored features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
from dask.system import cpu_count
from tqdm.auto import tqdm

from h2e._ensemble.fold_models import names_of
from h2e._learners.learner import Learner, checked_features
from h2e._parallel import ahead, in_parallel, in_task, send
from h2e._sdata.cohort import Cohort
from h2e._slide.slide import Slide
from h2e._slide.tiles import view_windows, warn_of_enlarging
from h2e._slide.windows import stream
from h2e._stains.reference import StainReference
from h2e._stains.slides import normalize_image


@dataclass(frozen=True, eq=False)
class Extracted:
    """What learners keep of the spots of a cohort, and how the tiles were cut and stained."""

    x: dict[str, np.ndarray]  # by name of the learner, a row per spot
    reference: StainReference | None
    spacing_um: float


@dataclass(frozen=True, eq=False)
class Features:
    """The features of a cohort; those that were extracted last are kept."""

    cohort: Cohort
    progress: bool = True
    kept: dict[tuple, Extracted] = field(default_factory=dict, repr=False)
    given: Extracted | None = None  # on a worker, which is sent what was extracted

    @cached_property
    def slides(self) -> list[Slide]:
        """The slides, on a cluster where that has them: each is sent once, as a path where its image is one."""
        return send(self.cohort.slides)

    def of(self, learners: Sequence[Learner], spots: np.ndarray) -> Extracted:
        """Those of all spots, cut and stained as is to be where only some are trained on."""
        if self.given is not None:
            return self.given
        reference, spacing_um = self.cohort.reference_of(spots), self.cohort.spacing_um(spots)
        return self.extract(learners, reference=reference, spacing_um=spacing_um)

    def extract(self, learners: Sequence[Learner], *, reference: StainReference | None, spacing_um: float) -> Extracted:
        """What each learner keeps of each spot, by its name, on images with the stains of a reference."""
        key = (tuple(learners), reference, spacing_um)
        if key in self.kept:
            return self.kept[key]
        slides, keep_residual = self.cohort.slides, self.cohort.keep_residual
        # It is sent to a cluster, so the cohort stays outside.
        of_slide = partial(
            extract_features, learners=learners, spacing_um=spacing_um, reference=reference, keep_residual=keep_residual
        )
        views = list(dict.fromkeys(view for learner in learners for view in learner.views))
        warn_of_enlarging(slides, views, spacing_um=spacing_um)
        tiles = [len(slide.xy) * len(views) for slide in slides]
        self.kept.clear()
        with tqdm(total=sum(tiles), disable=not self.progress, desc="reading tiles", unit=" tiles") as bar:
            calls = [(slide,) for slide in self.slides]
            threads = 1 if in_task() else min(len(slides), cpu_count())
            parts = in_parallel(of_slide, calls, bar=bar, sizes=tiles, threads=threads)
        # Those of a slide are let go as soon as they are part of the whole, which is twice as large otherwise.
        joined = {key: np.concatenate([part.pop(key) for part in parts]) for key in list(parts[0])}
        for learner in learners:
            if learner.obsm is not None and learner.uses == "obsm":
                stored = [self.cohort.stored_features(learner.obsm, slide) for slide in slides]
                joined[learner.feature_key] = np.concatenate(stored)
        x = {name: joined[one.feature_key] for name, one in zip(names_of(learners), learners, strict=True)}
        self.kept[key] = Extracted(x, reference, spacing_um)
        return self.kept[key]


def extract_features(
    slide: Slide,
    learners: Sequence[Learner],
    *,
    spacing_um: float,
    reference: StainReference | None = None,
    keep_residual: bool = True,
) -> dict[Learner, np.ndarray]:
    """What learners keep of each spot of a slide, by what tells them apart; stored features are left out.

    All views of all spots are cut in one pass, and the next batch of tiles is read while features of one are extracted.
    """
    if reference is not None and slide.tissue is not None:
        um_per_px = slide.um_per_px
        image = normalize_image(slide.image, slide.tissue, reference, um_per_px=um_per_px, keep_residual=keep_residual)
        slide = replace(slide, image=image)
    views = list(dict.fromkeys(view for learner in learners for view in learner.views))
    # Learners that extract the same features share them.
    x = {one.feature_key: from_middle_um(slide) for one in learners if one.uses == "xy"}
    extracting = list(dict.fromkeys(one.feature_key for one in learners if one.uses == "tiles"))
    windows = view_windows(slide, slide.xy, views, spacing_um=spacing_um)
    for spots, cut in ahead(stream(slide.image.levels, windows, slide.image.key)) if windows else ():
        tiles = dict(zip(views, cut, strict=True))
        for learner in extracting:
            batch = checked_features(learner, [tiles[view] for view in learner.views])
            if learner not in x:
                x[learner] = np.empty((len(slide.xy), *batch.shape[1:]), batch.dtype)
            x[learner][spots] = batch
    return x


def from_middle_um(slide: Slide) -> np.ndarray:
    """Positions in µm from the middle of the tissue, which does not depend on the spots that are there."""
    mask, scale = slide.require_tissue()
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    middle = np.array([columns[[0, -1]].sum() + 1, rows[[0, -1]].sum() + 1]) / 2 * scale if len(rows) else 0.0
    return ((slide.xy - middle) * slide.require_size()).astype(np.float32)
