"""Place the spots of a region on its image, and find how large a pixel is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata import scale as _scale
from h2e._sdata import table as _table
from h2e._sdata.images import open_image, systems_of
from h2e._sdata.pairing import Pairing
from h2e._slide.image import Image
from h2e._slide.lattice import VISIUM_UM, is_visium, lattice, pitch_of
from h2e._slide.slide import Slide
from h2e._warnings import refuse, warn

if TYPE_CHECKING:
    from spatialdata import SpatialData

DIAMETER_FRAC = 0.55
"""Diameter of a spot of a grid that h2e lays, in spacings, as in Visium (55 µm, every 100 µm)."""

BINS_FROM = 0.8
"""Diameter in pitches from which on circles stand for bins, which leave no gaps; spots of arrays have 0.5 to 0.71."""


@dataclass(frozen=True, eq=False)
class Opener:
    """What is looked up once for all slides of a call."""

    sdata: SpatialData
    keys: _keys.Keys
    pairing: Pairing
    images: dict[str, Image]

    def image(self, key: str) -> Image:
        """An image, opened at most once."""
        if key not in self.images:
            self.images[key] = self.pairing.scenes.images.get(key) or open_image(self.sdata, key)
        return self.images[key]

    def without_spots(self, key: str) -> Slide:
        """A slide of which there is only the image."""
        image = self.image(key)
        given = _scale.size_given(self.keys.um_per_px, key)
        by_affine = _scale.size_by_affine(self.sdata, key)
        if given and not by_affine:
            _scale.check_not_of_scan(self.sdata, image, given[0].um_per_px)
        return Slide.without_spots(image, *_scale.settle(given + by_affine, key, image, missing="no spots tell it"))


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
        shapes = _table.shapes_of(self.opener.sdata, self.name)
        centres = np.column_stack([shapes.geometry.centroid.x, shapes.geometry.centroid.y])
        return centres @ self.to_px[:2, :2].T + self.to_px[:2, 2]

    @cached_property
    def placed(self) -> np.ndarray:
        """Centres of all shapes that have a place."""
        return self.centres[np.isfinite(self.centres).all(axis=1)]

    @cached_property
    def pitch_px(self) -> float:
        """Pitch of the lattice of all shapes that have a place."""
        return lattice(self.placed)[0]

    @cached_property
    def factor(self) -> float:
        """Pixels per unit of the shapes' coordinates."""
        return float(np.sqrt(abs(np.linalg.det(self.to_px[:2, :2]))))

    @cached_property
    def radius_px(self) -> float:
        """Radius of a spot in pixels."""
        return _table.radius_of(_table.shapes_of(self.opener.sdata, self.name)) * self.factor

    @cached_property
    def all_as_visium(self) -> bool:
        """Whether all shapes lie as spots of Visium do."""
        return is_visium(self.placed, None, self.radius_px)

    def slide(self, name: str, group: str, table: AnnData, rows: np.ndarray) -> Slide:
        """The slide of some rows of the table."""
        shapes = _table.shapes_of(self.opener.sdata, self.name)
        instances = table.obs[_table.region_keys(table)[1]].to_numpy()[rows]
        index = _table.positions_of_instances(shapes, self.name, instances)
        obs, xy = table.obs.iloc[rows], self.centres[index]
        if lost := int((~np.isfinite(xy)).any(axis=1).sum()):
            first = obs.index[~np.isfinite(xy).all(axis=1)][0]
            msg = f"{lost} of {len(xy)} spots of slide {name!r} are without a position (NaN), such as {str(first)!r}: "
            refuse(msg + "the file of positions may lack them. Add their positions, or drop them from the table.")
        spacing_px, pitch_px = pitch_of(self.pitch_px, xy, _table.array_of(obs))
        um_per_px, told_by = self._size(name, table, obs, xy, pitch_px)
        return Slide(
            name, group, self.name, self.image, xy, rows, _table.in_tissue(obs, name), self.to_px,
            self.radius_px, spacing_px, um_per_px, told_by, _table.angle_of(shapes, self.to_px),
        )  # fmt: skip

    def _size(
        self, name: str, table: AnnData, obs: pd.DataFrame, xy: np.ndarray, pitch_px: float
    ) -> tuple[float | None, str]:
        """The size of a pixel by every source that there is, and what tells it."""
        keys, sdata, shapes = self.opener.keys, self.opener.sdata, _table.shapes_of(self.opener.sdata, self.name)
        round_spots = "radius" in shapes
        diameter_px = (2 if round_spots else np.sqrt(np.pi)) * self.radius_px
        evidence = _scale.size_given(keys.um_per_px, name, self.image.key)
        # What h2e wrote about a grid is about the image that it was laid over.
        if self.opener.pairing.grids.get(self.name, self.image.key) == self.image.key:
            evidence += _scale.size_in_obs(obs, name)
        others = _scale.size_by_affine(sdata, self.image.key)
        if _keys.SPACING_UM in shapes:
            laid_um = DIAMETER_FRAC * float(shapes[_keys.SPACING_UM].median())
            others.append(_scale.Evidence(laid_um / diameter_px, "grid of h2e"))
        others += _scale.size_by_scalefactors(_table.scalefactors_of(table, name, self.name), diameter_px, self.factor)
        if not round_spots or diameter_px > BINS_FROM * pitch_px:
            others += _scale.size_by_bin_name([self.name, keys.table_key], diameter_px)
        elif _keys.SPACING_UM not in shapes and self._is_visium(xy, _table.array_of(obs)):
            others.append(_scale.Evidence(VISIUM_UM / pitch_px, "guessed from the lattice: Visium"))
        if evidence and evidence[0].source == _scale.GIVEN and not others:
            _scale.check_not_of_scan(sdata, self.image, evidence[0].um_per_px)
        missing = "nothing tells it (a lattice of spots does only for Visium: hexagonal, 55 µm every 100 µm)"
        size, told_by = _scale.settle(evidence + others, name, self.image, missing=missing)
        if told_by == "table.obs" and not others and keys.image_key is not None and (finer := self._finer_images()):
            msg = f"{size:g} µm per pixel of table.obs are taken for image {self.image.key!r} of slide {name!r}, which "
            msg += f"image_key names, though {finer} show the same finer. Pass um_per_px if obs speaks of these."
            warn(msg)
        return size, told_by

    def _finer_images(self) -> list[str]:
        """The images that show the scene of this region with smaller pixels than the image that is used."""
        pairing, used = self.opener.pairing, self.image.key
        beside = pairing.in_systems(systems_of(_table.shapes_of(self.opener.sdata, self.name)))
        return [key for key in beside if key != used and pairing.scenes.is_one(key, used, finer=True)]

    def _is_visium(self, xy: np.ndarray, array: np.ndarray | None) -> bool:
        """Whether all shapes lie as spots of Visium do or, of scattered ones, those of a slide by their array."""
        return self.all_as_visium or (array is not None and is_visium(xy, array, self.radius_px))
