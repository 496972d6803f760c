"""A slide: an image, the spots on it, and where its tissue is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np

from h2e._slide.image import Image
from h2e._slide.tissue import Tissue, fraction_at
from h2e._warnings import refuse


@dataclass(frozen=True, eq=False)
class Slide:
    """An image and the spots on it; of an image that no spots lie on there are none."""

    name: str  # library; by default the region, without spots the image
    group: str  # donor; by default the name
    region: str | None  # key of the shapes; None without spots
    image: Image
    xy: np.ndarray  # (n, 2) spot centres (x, y) in pixels of level 0; the centre of the first pixel is (0.5, 0.5)
    rows: np.ndarray  # (n,) positions of these spots in the table
    in_tissue: np.ndarray  # (n,) False where the table says that the spot lies beside the tissue
    to_px: np.ndarray  # 3 × 3, from the coordinates of the shapes to pixels of level 0
    radius_px: float  # of a spot, in pixels of level 0
    spacing_px: float  # pitch of the spots, in pixels of level 0
    um_per_px: float | None  # of level 0; None where nothing tells it
    um_per_px_from: str  # what tells it, or why nothing does
    angle_deg: float | None = None  # by which square bins are turned; None of round spots
    tissue: Tissue | None = None  # the mask of the image; None where nobody has looked for it yet

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def without_spots(cls, image: Image, um_per_px: float | None, um_per_px_from: str) -> Slide:
        """A slide of which there is only the image."""
        xy, rows, in_tissue = np.empty((0, 2)), np.empty(0, int), np.empty(0, bool)
        about: dict[str, Any] = {"um_per_px": um_per_px, "um_per_px_from": um_per_px_from}
        return cls(image.key, image.key, None, image, xy, rows, in_tissue, np.eye(3), np.nan, np.nan, **about)

    @property
    def spacing_um(self) -> float:
        """Pitch of the spots in µm."""
        return self.spacing_px * self.require_size()

    def require_size(self) -> float:
        """µm per pixel of level 0, or an error that says why it is not known."""
        if self.um_per_px is None:
            msg = f"the size of a pixel of slide {self.name!r} is not known: {self.um_per_px_from}. Pass um_per_px, in "
            refuse(msg + f"µm per pixel of image {self.image.key!r}.")
        return self.um_per_px

    def require_tissue(self) -> Tissue:
        """The mask of the image, or an error where nobody has looked for it yet."""
        if self.tissue is None:
            refuse(f"the tissue of slide {self.name!r} must be known, got None; open its mask first.")
        return self.tissue

    def take(self, keep: np.ndarray) -> Slide:
        """The same slide with the spots ``keep`` (mask or positions) only."""
        return replace(self, xy=self.xy[keep], rows=self.rows[keep], in_tissue=self.in_tissue[keep])

    def without_pixels(self) -> Slide:
        """The same slide on an empty image of the same size."""
        empty = da.zeros(self.image.levels[0].shape, dtype=np.uint8, chunks=-1)
        return replace(self, image=Image(self.image.key, (empty,), (1.0,)))

    def tissue_fraction(self, side_px: float | None = None) -> np.ndarray:
        """Share of tissue in the square around each spot, one spacing or ``side_px`` wide, ``float32`` (n,)."""
        mask, scale = self.require_tissue()
        return fraction_at(mask, scale, self.xy, self.spacing_px if side_px is None else side_px)

    def valid_spots(self, side_px: float | None = None) -> np.ndarray:
        """Which spots have any tissue in their own square, and are not said to lie beside it, (n,)."""
        return (self.tissue_fraction(side_px) > 0) & self.in_tissue


def by_image(slides: Sequence[Slide]) -> dict[str, Slide]:
    """For each image one slide that lies on it, one of known size if there is one; sorted by image."""
    images: dict[str, Slide] = {}
    for slide in sorted(slides, key=lambda slide: (slide.image.key, slide.um_per_px is None)):
        images.setdefault(slide.image.key, slide)
    return images


def by_region(slides: Sequence[Slide]) -> dict[str, Slide]:
    """The slides of each region as one slide: all of its spots; sorted by region."""
    regions = {}
    for region in sorted({slide.region for slide in slides if slide.region is not None}):
        parts = [slide for slide in slides if slide.region == region]
        xy, rows, in_tissue = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("xy", "rows", "in_tissue")
        )
        regions[region] = replace(parts[0], name=region, xy=xy, rows=rows, in_tissue=in_tissue)
    return regions
