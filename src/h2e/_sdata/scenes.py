"""Which images of a SpatialData show one scene: by where they lie, and by their pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from h2e._sdata.images import affine_of, corners_of, open_image, systems_of
from h2e._slide.image import Image, read_coarse
from h2e._slide.orientation import ORIENTATIONS, orient
from h2e._slide.scene import SAME_SCENE, compare, picture_of

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
    pictures: dict[str, np.ndarray | None] = field(default_factory=dict)
    places: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

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
        sides = np.sort(np.linalg.norm(corners[:, 1:3] - corners[:, :1], axis=2))
        return bool(np.abs(sides[0] - sides[1]).max() < apart)

    def agree(self, one: str, other: str) -> bool:
        """Whether the pixels of two images show one scene, or nothing that could tell; one is refused that contradicts.

        That is the same picture in another orientation than its transformation says, or in other colours.
        """
        first, second = self._picture(one), self._picture(other)
        if first is None or second is None:
            return first is second
        compared = compare(first, second)
        if compared is None:
            return True
        correlations, other_stain = compared
        same, best = correlations[self._placed(one, other) or 0] >= SAME_SCENE, int(correlations.argmax())
        # A symmetric scene fits in several orientations.
        if not same and correlations[best] >= SAME_SCENE:
            msg = f"images {one!r} and {other!r} are placed as one scene, but contradict each other: {one!r} "
            msg += f"{list(ORIENTATIONS)[best]} shows what {other!r} shows. Turn it so, or give it the transformation "
            msg += "that does, if the spots lie on the other; or name the image that they lie on with image_key."
            raise ValueError(msg)
        if same and other_stain:
            msg = f"images {one!r} and {other!r} show one scene in other colours: another stain, or changed by another "
            msg += "tool. Say which is the H&E: pass image_key, or remove the other from sdata.images."
            raise ValueError(msg)
        return bool(same)

    def _picture(self, key: str) -> np.ndarray | None:
        """Colours of parts of an image; ``None`` of what is not 8-bit RGB."""
        if key not in self.pictures:
            self.pictures[key] = None
            try:
                image = self.images[key] = self.images.get(key) or open_image(self.sdata, key)
            except ValueError:
                return None
            self.pictures[key] = picture_of(read_coarse(image, max(1.0, max(image.shape) / SIDE_PX))[0])
        return self.pictures[key]

    def _placed(self, one: str, other: str) -> int | None:
        """The orientation in which the first image covers the area of the second; ``None`` if in none."""
        corners, apart = self._corners(one, other)
        orders = [orient(np.arange(4).reshape(2, 2), k).ravel() for k in range(8)]
        fitting = [k for k, order in enumerate(orders) if np.abs(corners[0][order] - corners[1]).max() < apart]
        return fitting[0] if fitting else None

    def _corners(self, one: str, other: str) -> tuple[np.ndarray, float]:
        """Corners of two images in a system that they share, (2, 4, 2), and how far those of one scene may be apart."""
        systems = systems_of(self.sdata.images[other])
        shared = [system for system in systems_of(self.sdata.images[one]) if system in systems]
        if not shared:
            return np.zeros((2, 4, 2)), 0.0
        for key in (one, other):
            if (key, shared[0]) not in self.places:
                own, to_system = corners_of(self.sdata, key), affine_of(self.sdata.images[key], shared[0])
                self.places[key, shared[0]] = own[3, :2], (own @ to_system.T)[:, :2]
        (first_px, first), (second_px, second) = (self.places[key, shared[0]] for key in (one, other))
        size = float(np.linalg.norm(first[0] - first[3]))
        # A crop is cut at whole pixels of the coarser image.
        return np.stack([first, second]), 0.02 * size + 1.5 * size / min(np.hypot(*first_px), np.hypot(*second_px))
