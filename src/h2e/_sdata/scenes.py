"""Which images of a SpatialData show one scene: by where they lie, and by their pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from h2e._sdata.images import affine_of, corners_of, open_image, systems_of
from h2e._slide.image import Image, read_coarse
from h2e._slide.scene import ORIENTATIONS, SAME_SCENE, Picture, compare, orient

if TYPE_CHECKING:
    from spatialdata import SpatialData

FINER = 1.2
"""So many times more pixels make an image the finer one of two of the same scene."""

SIDE_PX = 256
"""About the longer side at which an image is read to be compared."""


@dataclass(frozen=True, eq=False)
class Scenes:
    """The images of a SpatialData, of which those that must be compared are opened and read, each once."""

    sdata: SpatialData
    images: dict[str, Image] = field(default_factory=dict)
    places: dict[tuple[str, str], tuple[np.ndarray, float]] = field(default_factory=dict)
    pictures: dict[str, Picture | None] = field(default_factory=dict)

    def is_one(self, one: str, other: str, *, finer: bool = False) -> bool:
        """Whether two images are one, or show one scene at the same place, one of them with clearly smaller pixels.

        With ``finer`` it is the first that must have the smaller pixels.
        """
        if one == other:
            return True
        n_one, n_other = (np.prod(corners_of(self.sdata, key)[3]) for key in (one, other))
        if n_one <= FINER * n_other and (finer or n_other <= FINER * n_one):
            return False
        return self._placed(one, other) is not None and self.agree(one, other)

    def are_alike(self, one: str, other: str) -> bool:
        """Whether two images have sides of the same lengths in a shared system, in whatever order."""
        corners, apart = self._corners(one, other)
        sides = [np.sort(np.linalg.norm(c[1:3] - c[0], axis=1)) for c in corners]
        return bool(sides) and bool(np.abs(sides[0] - sides[1]).max() < apart)

    def agree(self, one: str, other: str) -> bool:
        """Whether the pixels of two images show one scene, or nothing that could tell; one is refused that contradicts.

        That is the same picture in another orientation than its transformation says, or in other colours.
        """
        pictures = [self._picture(key) for key in (one, other)]
        if pictures[0] is None or pictures[1] is None:
            return pictures[0] is None and pictures[1] is None
        compared = compare(pictures[0], pictures[1])
        if compared is None:
            return True
        correlations, other_stain = compared
        expected, best = self._placed(one, other) or 0, int(correlations.argmax())
        # A symmetric scene fits in several orientations.
        if correlations[expected] < SAME_SCENE <= correlations[best]:
            msg = f"images {one!r} and {other!r} are placed as one scene, but contradict each other: {one!r} "
            msg += f"{ORIENTATIONS[best]} shows what {other!r} shows. Turn it so, or give it the transformation that "
            msg += "does, if the spots lie on the other; or name the image that they lie on with image_key."
            raise ValueError(msg)
        if correlations[expected] >= SAME_SCENE and other_stain:
            msg = f"images {one!r} and {other!r} show one scene in other colours: another stain, or changed by another "
            msg += "tool. Say which is the H&E: pass image_key, or remove the other from sdata.images."
            raise ValueError(msg)
        return bool(correlations[expected] >= SAME_SCENE)

    def _picture(self, key: str) -> Picture | None:
        """Colours of parts of an image; ``None`` of what is not 8-bit RGB."""
        if key not in self.pictures:
            try:
                image = self.images.setdefault(key, open_image(self.sdata, key))
                self.pictures[key] = Picture.of(read_coarse(image, max(1.0, max(image.shape) / SIDE_PX))[0])
            except ValueError:
                self.pictures[key] = None
        return self.pictures[key]

    def _placed(self, one: str, other: str) -> int | None:
        """The orientation in which the first image covers the area of the second; ``None`` if in none."""
        corners, apart = self._corners(one, other)
        for orientation in range(8) if corners else ():
            order = orient(np.arange(4).reshape(2, 2), orientation).ravel()
            if np.abs(corners[0][order] - corners[1]).max() < apart:
                return orientation
        return None

    def _corners(self, one: str, other: str) -> tuple[list[np.ndarray], float]:
        """Corners of two images in the first system that they share, and how far apart those of one scene may be."""
        images = [self.sdata.images[key] for key in (one, other)]
        shared = [system for system in systems_of(images[0]) if system in systems_of(images[1])]
        if not shared:
            return [], 0.0
        (one_placed, one_px), (other_placed, other_px) = (self._corners_in(key, shared[0]) for key in (one, other))
        size = float(np.linalg.norm(one_placed[0] - one_placed[3]))
        # A crop is cut at whole pixels of the coarser image.
        return [one_placed, other_placed], 0.02 * size + 1.5 * size / min(one_px, other_px)

    def _corners_in(self, key: str, system: str) -> tuple[np.ndarray, float]:
        """Corners of an image in a coordinate system, (4, 2), and its diagonal in pixels."""
        if (key, system) not in self.places:
            own, to_system = corners_of(self.sdata, key), affine_of(self.sdata.images[key], system)
            self.places[key, system] = (own @ to_system.T)[:, :2], float(np.hypot(*own[3, :2]))
        return self.places[key, system]
