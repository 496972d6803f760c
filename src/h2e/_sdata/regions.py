"""Place the spots of a region on its image, and find how large a pixel is."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from h2e._sdata.images import open_image
from h2e._sdata.keys import Keys
from h2e._sdata.pairing import Pairing
from h2e._sdata.scale import given_size, pixel_size
from h2e._sdata.table import angle_of, array_of, in_tissue, positions_of_instances, radius_of, region_keys, shapes_of
from h2e._slide.image import Image
from h2e._slide.lattice import lattice, pitch_of
from h2e._slide.slide import Slide

if TYPE_CHECKING:
    from spatialdata import SpatialData

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Opener:
    """What is looked up once for all slides of a call."""

    sdata: SpatialData
    keys: Keys
    pairing: Pairing
    images: dict[str, Image]

    def image(self, key: str) -> Image:
        """An image, opened at most once."""
        if key not in self.images:
            self.images[key] = self.pairing.scenes.images.get(key) or open_image(self.sdata, key)
        return self.images[key]

    def without_spots(self, key: str) -> Slide:
        """A slide of which there is only the image."""
        size = given_size(self.keys.um_per_px, key)
        return Slide.without_spots(self.image(key), size, "no spots tell it" if size is None else "um_per_px=")


@dataclass(eq=False)
class Region:
    """The shapes of a region and the image that they lie on."""

    opener: Opener
    name: str
    image: Image
    to_px: np.ndarray  # 3 × 3, from the coordinates of the shapes to pixels of level 0

    @cached_property
    def centres(self) -> np.ndarray:
        """Centres of all shapes in pixels, also of those that the table has no row for, (n, 2)."""
        shapes = shapes_of(self.opener.sdata, self.name)
        centres = np.column_stack([shapes.geometry.centroid.x, shapes.geometry.centroid.y])
        return centres @ self.to_px[:2, :2].T + self.to_px[:2, 2]

    @cached_property
    def lattice(self) -> tuple[float, str]:
        """Pitch in pixels and kind of the lattice of all shapes."""
        return lattice(self.centres)

    def slide(self, name: str, group: str, table: AnnData, rows: np.ndarray) -> Slide:
        """The slide of some rows of the table."""
        shapes = shapes_of(self.opener.sdata, self.name)
        index = positions_of_instances(shapes, self.name, table.obs[region_keys(table)[1]].to_numpy()[rows])
        obs, xy = table.obs.iloc[rows], self.centres[index]
        (spacing_px, kind), pitch_px = pitch_of(self.lattice, xy, array_of(obs))
        factor = float(np.sqrt(abs(np.linalg.det(self.to_px[:2, :2]))))
        radius_px = radius_of(shapes) * factor
        given = given_size(self.opener.keys.um_per_px, name, self.image.key)
        radius_frac = radius_px / spacing_px if "radius" in shapes else np.nan
        um_per_px, told_by = pixel_size(
            name, given, obs, factor=factor, radius_frac=radius_frac, kind=kind, pitch_px=pitch_px
        )
        if told_by.startswith("lattice"):
            what = "slide %r: the size of a pixel is guessed from the %s; pass um_per_px if it is another"
            log.info(what, name, told_by)
        return Slide(
            name, group, self.name, self.image, xy, rows, in_tissue(table)[rows], self.to_px,
            radius_px, spacing_px, um_per_px, told_by, angle_of(shapes, self.to_px),
        )  # fmt: skip
