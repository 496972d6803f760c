"""From a SpatialData to the arrays that folds are trained on: valid spots, images as the models see them, targets."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from h2e._ensemble.extraction import extract_features
from h2e._ensemble.fold_models import ALL, names_of
from h2e._learners.registry import Learner
from h2e._parallel import in_parallel
from h2e._sdata import keys as _keys
from h2e._sdata.masks import tissue_of
from h2e._sdata.provenance import get_provenance
from h2e._sdata.slides import find_slides
from h2e._sdata.table import get_table, in_tissue
from h2e._slide.fraction import fraction_at
from h2e._slide.recognition import thumbnail
from h2e._slide.slide import Slide
from h2e._slide.tiles import warn_of_enlarging
from h2e._slide.tissue import Tissue
from h2e._stains.reference import StainReference
from h2e._stains.slides import fit_reference, normalize_image

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Cohort:
    """Slides with their valid spots, in the order of their names."""

    table: AnnData
    slides: tuple[Slide, ...]  # on their images as they are, spots with tissue only
    tissues: tuple[Tissue, ...]
    reference: StainReference | None  # what the normalized images were made with
    pooled: bool = True  # whether it was estimated on these slides, not given
    keep_residual: bool = True
    looked: dict[tuple, dict[str, np.ndarray]] = field(default_factory=dict, repr=False)  # the last look

    @property
    def rows(self) -> np.ndarray:
        """Positions of the spots in the table."""
        return np.concatenate([slide.rows for slide in self.slides])

    @property
    def names(self) -> np.ndarray:
        """The slide of each spot."""
        return np.concatenate([np.full(len(slide), slide.name) for slide in self.slides])

    @property
    def groups(self) -> np.ndarray:
        """The group of each spot."""
        return np.concatenate([np.full(len(slide), slide.group) for slide in self.slides])

    @cached_property
    def thumbnails(self) -> list[np.ndarray]:
        """What each slide is recognized by."""
        return [thumbnail(slide.image) for slide in self.slides]

    @property
    def xy_um(self) -> np.ndarray:
        """Where each spot lies on its slide, in µm."""
        return np.concatenate([slide.xy * slide.um_per_px for slide in self.slides])

    def of(self, spots: np.ndarray) -> list[int]:
        """Positions of the slides that some of the spots lie on."""
        there = set(self.names[spots])
        return [i for i, slide in enumerate(self.slides) if slide.name in there]

    def spacing_um(self, spots: np.ndarray) -> float:
        """Median spacing of the slides of some spots."""
        return float(np.median([self.slides[i].spacing_um for i in self.of(spots)]))

    def reference_of(self, spots: np.ndarray) -> StainReference | None:
        """The reference; if it was estimated on the slides, it is estimated anew on those of some spots only."""
        if self.reference is None or not self.pooled:
            return self.reference
        which = self.of(spots)
        images, tissues = [self.slides[i].image for i in which], [self.tissues[i] for i in which]
        um_per_px = [self.slides[i].um_per_px for i in which]
        return fit_reference(
            images,
            tissues,
            um_per_px=um_per_px,
            method=self.reference.method,
            n_patches=self.reference.n_patches,
            patch_px=self.reference.patch_px,
            seed=self.reference.seed,
        )

    def extract_features(
        self, learners: Sequence[Learner], *, reference: StainReference | None, spacing_um: float, progress: bool
    ) -> dict[str, np.ndarray]:
        """What each learner keeps of each spot, by its name."""
        asked = (tuple(learners), reference, spacing_um)
        if asked in self.looked:
            return self.looked[asked]

        stored = any(not learner.views and learner.uses != "xy" for learner in learners)
        table, keep = self.table if stored else None, self.keep_residual

        def one(of: tuple[Slide, Tissue]) -> dict[str, np.ndarray]:  # sent to a cluster, so the cohort stays outside
            slide, tissue = of
            if reference is not None:
                size = slide.um_per_px
                image = normalize_image(slide.image, tissue, reference, um_per_px=size, keep_residual=keep)
                slide = replace(slide, image=image)
            return extract_features(slide, tissue, learners, table, spacing_um=spacing_um)

        views = [view for learner in learners for view in learner.views]
        warn_of_enlarging(self.slides, views, spacing_um=spacing_um)
        seen = in_parallel(
            one, list(zip(self.slides, self.tissues, strict=True)), progress=progress, desc="reading tiles"
        )
        self.looked.clear()
        self.looked[asked] = {name: np.concatenate([x[name] for x in seen]) for name in names_of(learners)}
        return self.looked[asked]


def open_cohort(
    sdata: SpatialData,
    *,
    table_key: str,
    image_key: str | Mapping[str, str] | None,
    tissue_mask_key: str | None,
    library_key: str | None,
    um_per_px: float | Mapping[str, float] | None,
    group_key: str | None = None,
    spacing_um: float | None = None,
    new: bool = False,
) -> Cohort:
    """Find the slides, their tissue, their valid spots (by ``spacing_um``), and, of training slides, the reference.

    Slides without any valid spot are left out.
    """
    table = get_table(sdata, table_key)
    slides = find_slides(
        sdata,
        table_key=table_key,
        image_key=image_key,
        library_key=library_key,
        group_key=group_key,
        um_per_px=um_per_px,
    )
    stains = get_provenance(sdata, _keys.STAINS)
    tissues = []
    for slide in slides:
        if slide.image.key in stains:
            msg = f"image {slide.image.key!r} was normalized by h2e; pass {stains[slide.image.key]['image']!r}, which it was made from: h2e knows how to bring it, and every new slide, to the same reference."
            raise ValueError(msg)
        made = stains.get(_keys.normalized(slide.image.key), {})  # models see tissue where it was normalized
        mask_key = tissue_mask_key or made.get("tissue_mask_key") or None
        tissues.append(tissue_of(sdata, slide.image, mask_key, slide.um_per_px))
    valid, where, said = [], [], in_tissue(table)
    for slide, tissue in zip(slides, tissues, strict=True):
        subtile = slide.spacing_px if spacing_um is None else spacing_um / slide.um_per_px
        keep = (fraction_at(*tissue, slide.xy, subtile) > 0) & said[slide.rows]
        if not keep.all():
            what = "slide %r: %d of %d spots have no tissue (%d by obs['in_tissue']) and are left out"
            log.info(what, slide.name, (~keep).sum(), len(slide), (~said[slide.rows]).sum())
        if not keep.any():
            log.warning("slide %r has no spot on tissue and is left out", slide.name)
            continue
        valid.append(slide.take(keep))
        where.append(tissue)
    if not valid:
        msg = f"none of the {sum(map(len, slides))} spots of slides {[slide.name for slide in slides]} lies on tissue. Look at h2e.pl.tissue, or pass tissue_mask_key."
        raise ValueError(msg)
    if not new:
        _check_groups(valid)
    reference = (None,) if new else stored_reference(sdata, [slide.image.key for slide in valid])
    return Cohort(table, tuple(valid), tuple(where), *reference)


def _check_groups(slides: Sequence[Slide]) -> None:
    """Refuse a name that stands for all groups; say where groups share an image, of which each then has its say."""
    if ALL in {slide.group for slide in slides}:
        msg = f"a group is called {ALL!r}, which h2e calls the models of all groups; give it another name."
        raise ValueError(msg)
    for key in sorted({slide.image.key for slide in slides}):
        groups = sorted({slide.group for slide in slides if slide.image.key == key})
        if len(groups) > 1:
            what = "groups %s lie on one image, %r: its stain reference and the middle of its tissue are of all of them. Cut it with sdata.query.bounding_box, a piece for each group."
            log.warning(what, groups, key)


def stored_reference(sdata: SpatialData, image_keys: Sequence[str]) -> tuple[StainReference | None, bool, bool]:
    """What the images were normalized with, the same for all, ``None`` if none was; whether pooled; the residual."""
    stains = get_provenance(sdata, _keys.STAINS)
    normalized = [_keys.normalized(key) for key in image_keys]
    made = [key for key in normalized if key in sdata.images]
    if not made:
        if lost := [key for key in normalized if key in stains]:
            msg = f"images {lost} were made once and are not there: models see the images as they are. Run h2e.pp.normalize again if they should not."
            warnings.warn(msg, stacklevel=4)
        return None, True, True
    foreign = [key for key in made if key not in stains]
    if foreign:
        msg = f"images {foreign} were not normalized by h2e, so new slides could not be treated alike. Run h2e.pp.normalize_stains with overwrite=True, or pass them as image_key to use them as they are."
        raise ValueError(msg)
    missing = sorted(key for key in image_keys if _keys.normalized(key) not in made)
    if missing:
        msg = f"images {missing} are not normalized, {made} are. Run h2e.pp.normalize_stains on all slides together."
        raise ValueError(msg)
    first = stains[made[0]]
    for key in made[1:]:
        if (stains[key]["reference"], stains[key]["keep_residual"]) != (first["reference"], first["keep_residual"]):
            msg = f"images {made[0]!r} and {key!r} were normalized to different references. Run h2e.pp.normalize_stains on all slides together."
            raise ValueError(msg)
    pooled = all(stains[key].get("pooled", True) for key in made)
    return StainReference.from_dict(first["reference"]), pooled, bool(first["keep_residual"])
