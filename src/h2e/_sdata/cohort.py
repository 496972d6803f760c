"""A cohort: slides with their valid spots, and the table that says what was measured there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.keys import Keys
from h2e._sdata.masks import with_tissue
from h2e._sdata.normalized import stored_reference
from h2e._sdata.placement import check_placed, with_counts
from h2e._sdata.provenance import get_provenance
from h2e._sdata.scale import require_size
from h2e._sdata.slides import open_slides, require_inside
from h2e._sdata.table import get_table, region_keys
from h2e._slide.image import thumbnail
from h2e._slide.quality import Quality, measure_slides, warn_of_colours
from h2e._slide.slide import Slide
from h2e._stains.reference import StainReference, sampling_of
from h2e._stains.slides import fit_reference
from h2e._statistics import is_sparse
from h2e._warnings import log, refuse, refuse_if, warn

if TYPE_CHECKING:
    from spatialdata import SpatialData

MEASURED = 0.25
"""Share of the median count from which on a spot without tissue is a loss; what drifts onto glass is less. A single one
stands in the log only."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """Slides with their valid spots: slides in the order of their names, the spots of each by their place.

    Nothing depends on the order of the rows of the table; ``rows`` says where in it each spot is.
    """

    table: AnnData
    # On their images as they are, with their tissue; spots with tissue only.
    slides: tuple[Slide, ...]
    # What the normalized images were made with, and whether it was estimated on these slides, not given.
    reference: StainReference | None = None
    pooled: bool = True
    keep_residual: bool = True

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

    @property
    def xy_um(self) -> np.ndarray:
        """Where each spot lies on its slide, in µm."""
        return np.concatenate([slide.xy * slide.require_size() for slide in self.slides])

    @property
    def identity(self) -> pd.MultiIndex:
        """Region and instance of each spot, as strings."""
        columns = [self.table.obs[key].astype(str).to_numpy()[self.rows] for key in region_keys(self.table)]
        return pd.MultiIndex.from_arrays(columns, names=["region", "instance"])

    @cached_property
    def thumbnails(self) -> list[np.ndarray]:
        """What each slide is recognized by."""
        return [thumbnail(slide.image) for slide in self.slides]

    @cached_property
    def quality(self) -> dict[str, Quality]:
        """Figures of the image of each slide, by its name."""
        return measure_slides(self.slides)

    def without_pixels(self) -> Cohort:
        """The same for who needs the pixels of the slides no more, with what was found on them."""
        found = {"thumbnails": self.thumbnails, "quality": self.quality}
        bare = replace(self, slides=tuple(slide.without_pixels() for slide in self.slides))
        vars(bare).update(found)
        return bare

    def of(self, spots: np.ndarray) -> list[int]:
        """Positions of the slides that some of the spots lie on."""
        names = set(self.names[spots])
        return [i for i, slide in enumerate(self.slides) if slide.name in names]

    def take(self, keep: np.ndarray) -> Cohort:
        """The cohort with some of its spots, (n,) True where one stays; slides that keep none are left out."""
        parts = (slide.take(keep[self.names == slide.name]) for slide in self.slides)
        return replace(self, slides=tuple(slide for slide in parts if len(slide)))

    def spacing_um(self, spots: np.ndarray) -> float:
        """Median spacing of the slides of some spots, to five digits.

        Spacings of one technology differ in the seventh, and features that are cut by one of them serve for all.
        """
        return float(f"{np.median([self.slides[i].spacing_um for i in self.of(spots)]):.5g}")

    def reference_of(self, spots: np.ndarray) -> StainReference | None:
        """The reference; if it was estimated on the slides, it is estimated anew where some of them have no say."""
        which = self.of(spots)
        if self.reference is None or not self.pooled or len(which) == len(self.slides):
            return self.reference
        slides = [self.slides[i] for i in which]
        return fit_reference(slides, method=self.reference.method, **sampling_of(self.reference))

    def stored_features(self, key: str, slide: Slide) -> np.ndarray:
        """Features of another tool in ``obsm`` at the spots of a slide, ``float32`` (n, d)."""
        refuse_if(key not in self.table.obsm, f"{key!r} is not in table.obsm; it has {[*self.table.obsm]}.", KeyError)
        values = self.table[slide.rows].obsm[key]
        features = np.asarray(values.toarray() if is_sparse(values) else values, np.float32)
        if bad := int((~np.isfinite(features)).any(axis=1).sum()):
            refuse(f"obsm[{key!r}] has NaN or infinite features for {bad} of {len(slide)} spots on tissue.")
        return features


def size_of(sdata: SpatialData, keys: Keys) -> tuple[int, int, int]:
    """How many spots, slides, and groups to leave out the table lists, before anything is opened.

    A column that is not there is for others to complain of.
    """
    table = get_table(sdata, keys.table_key)
    slide = keys.library_key or region_keys(table)[0]
    slides, groups = (table.obs[k].nunique() or 1 if k in table.obs else 1 for k in (slide, keys.group_key or slide))
    # A single slide is cut into quarters.
    return table.n_obs, slides, groups if slides > 1 else 4


def open_cohort(sdata: SpatialData, keys: Keys) -> Cohort:
    """The slides to train on, with what their images were normalized with."""
    table = get_table(sdata, keys.table_key)
    valid = _with_valid_spots(table, _open(sdata, keys))
    image_keys = sorted({slide.image.key for slide in valid})
    how = stored_reference(sdata, image_keys, keys.normalized_key)
    return _checked(Cohort(table, tuple(valid), *how))


def open_new_cohort(
    sdata: SpatialData, keys: Keys, *, spacing_um: float, reference: StainReference | None, keep_residual: bool
) -> Cohort:
    """The slides to predict; a spot's own subtile is as large as those of training, whatever the spacing here."""
    slides = _open(sdata, keys, bare=keys.image_key is None)
    table = get_table(sdata, keys.table_key)
    valid = _with_valid_spots(table, slides, spacing_um=spacing_um)
    return _checked(Cohort(table, tuple(valid), reference, pooled=False, keep_residual=keep_residual))


def open_every_spot(sdata: SpatialData, keys: Keys, *, normalized: bool) -> Cohort:
    """The slides with all of their spots, with what their images were normalized with if that is asked for."""
    slides = _open(sdata, keys)
    image_keys = sorted({slide.image.key for slide in slides})
    how = stored_reference(sdata, image_keys, keys.normalized_key) if normalized else (None, True, True)
    if normalized and how[0] is None:
        refuse(f"normalized=True needs normalized images, but none of {image_keys} is; run h2e.pp.normalize first.")
    return _checked(Cohort(get_table(sdata, keys.table_key), tuple(slides), *how))


def _checked(cohort: Cohort) -> Cohort:
    """The same cohort, after a warning of slides that do not look like an H&E."""
    warn_of_colours(cohort.quality)
    return cohort


def _open(sdata: SpatialData, keys: Keys, *, bare: bool = False) -> list[Slide]:
    """Slides of known size with all spots on their images, and with the tissue that their images were normalized on."""
    opened = open_slides(sdata, keys, bare=bare)
    if without := [slide.name for slide in opened if slide.region is None]:
        log.warning("images %s have no spots and are left out; lay some with h2e.pp.make_spots", without)
    slides = require_size(require_inside([slide for slide in opened if slide.region is not None]))
    stains = get_provenance(sdata, _keys.STAINS)
    masks = {}
    for slide in slides:
        key = slide.image.key
        if key in stains:
            msg = f"image {key!r} was normalized by h2e; pass {stains[key]['image']!r}, which it was made from: h2e "
            refuse(msg + "knows how to bring it, and every new slide, to the same reference.")
        normalized_on = [facts.get("tissue_mask_key") for facts in stains.values() if facts["image"] == key]
        masks[key] = next(filter(None, [keys.tissue_mask_key, *normalized_on]), "")
    slides = with_tissue(sdata, slides, masks)
    check_placed(get_table(sdata, keys.table_key), slides)
    return slides


def _with_valid_spots(table: AnnData, slides: Sequence[Slide], *, spacing_um: float | None = None) -> list[Slide]:
    """The slides with their valid spots only; slides without any are left out."""
    valid, measured = [], []
    for slide in slides:
        keep = slide.valid_spots(None if spacing_um is None else spacing_um / slide.require_size())
        counted = with_counts(table, slide.rows, MEASURED)
        if counted is not None and (n := int((counted & slide.in_tissue & ~keep).sum())) > 1:
            measured.append(f"{n} of {len(slide)} spots of slide {slide.name!r}")
        if not keep.all():
            what = "slide %r: %d of %d spots have no tissue (%d by obs['in_tissue']) and are left out"
            log.info(what, slide.name, (~keep).sum(), len(slide), (~slide.in_tissue).sum())
        if keep.any():
            order = _by_place(table, slide)
            valid.append(slide.take(order[keep[order]]))
        else:
            log.warning("slide %r has no spot on tissue and is left out", slide.name)
    if measured and valid:
        msg = f"spots with counts have no tissue under them and are left out: {', '.join(measured)}. Look at "
        msg += "h2e.pl.tissue: is the mask right, and are the spots in place?"
        warn(msg)
    if not valid:
        msg = f"none of the {sum(map(len, slides))} spots of slides {[slide.name for slide in slides]} lies on "
        refuse(msg + "tissue. Look at h2e.pl.tissue, or pass tissue_mask_key.")
    return valid


def _by_place(table: AnnData, slide: Slide) -> np.ndarray:
    """Positions of the spots of a slide by their place, line by line; those at one place by their instance."""
    instance = table.obs[region_keys(table)[1]].to_numpy(str)[slide.rows]
    # Rounding differs with the row: what lies on one line must do so to the digit.
    x, y = slide.xy.round(3).T
    return np.lexsort((instance, x, y))
