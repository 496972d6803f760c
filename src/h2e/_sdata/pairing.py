"""Which image each region lies on, which images no region lies on, and which show one scene; found once for a call."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from h2e._sdata import keys as _keys
from h2e._sdata.images import affine_of, affine_to_image, check_image_key, corners_of, open_image, systems_of
from h2e._sdata.provenance import get_provenance
from h2e._sdata.table import shapes_of
from h2e._slide.image import Image, read_coarse
from h2e._slide.orientation import ORIENTATIONS, SAME_SCENE, compare, orient, picture_of
from h2e._warnings import refuse

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
            refuse(msg + "that does, if the spots lie on the other; or name the image that they lie on with image_key.")
        if same and other_stain:
            msg = f"images {one!r} and {other!r} show one scene in other colours: another stain, or changed by another "
            refuse(msg + "tool. Say which is the H&E: pass image_key, or remove the other from sdata.images.")
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


@dataclass(frozen=True, eq=False)
class Pairing:
    """The source images of a SpatialData by coordinate system, and the images that grids of spots were laid over."""

    sdata: SpatialData
    sources: list[str]
    scenes: Scenes
    systems: dict[str, list[str]] = field(default_factory=dict)
    grids: dict[str, str] = field(default_factory=dict)

    def in_systems(self, systems: Collection[str]) -> list[str]:
        """Source images that lie in any of some coordinate systems."""
        return sorted({key for system in systems for key in self.systems.get(system, [])})

    def image_of(self, region: str, image_key: str | Mapping[str, str] | None = None) -> str:
        """The image that a region lies on: the finest of those that show one scene in a shared coordinate system."""
        grid = self.grids.get(region)
        if image_key is not None:
            return self._image_asked_for(region, image_key, grid)
        if grid is not None:
            return grid
        shared = self.in_systems(systems_of(shapes_of(self.sdata, region)))
        finest = [key for key in shared if all(self.scenes.is_one(key, other, finer=True) for other in shared)]
        if len(finest) == 1:
            return finest[0]
        self._alike(shared)
        several = f"{len(shared)} images {shared} that do not show one scene at several resolutions"
        msg = f"region {region!r} shares a coordinate system with {several if shared else 'no image'}; sdata.images "
        msg += f"has {sorted(self.sdata.images)}. Pass image_key: a name, or a mapping from region to name."
        raise ValueError(msg)

    def _image_asked_for(self, region: str, image_key: str | Mapping[str, str], grid: str | None) -> str:
        """The image that the user names for a region, if the region can lie on it."""
        key = image_key.get(region, grid) if isinstance(image_key, Mapping) else image_key
        if key is None:
            refuse(f"image_key names no image for region {region!r}; it has {sorted(image_key)}.")
        check_image_key(self.sdata, key)
        if grid is not None and not self.scenes.is_one(key, grid):
            msg = f"the spots {region!r} are a grid over image {grid!r}, not over {key!r}; lay one over that, too, "
            refuse(msg + f"with h2e.pp.make_spots(sdata, image_key={key!r}, …), and leave image_key out.")
        return key

    def images_without_spots(self, regions: Collection[str]) -> list[str]:
        """Source images, the finest of each scene, that share no coordinate system with a region."""
        measured = [region for region in regions if region not in self.grids]
        taken = {system for region in measured for system in systems_of(shapes_of(self.sdata, region))}
        under_grids = {self.grids[region] for region in regions if region in self.grids}
        free = []
        for key in self.sources:
            systems = systems_of(self.sdata.images[key])
            covered = under_grids.intersection(self.in_systems(systems))
            if not taken & set(systems) and not any(self.scenes.is_one(key, image) for image in covered):
                free.append(key)
        alike = self._alike(free)
        return [key for key in free if not any(self.scenes.is_one(other, key, finer=True) for other in alike - {key})]

    def _alike(self, keys: Collection[str]) -> set[str]:
        """The images that have the size of another one of them and show its scene; refuses those that contradict it."""
        pairs = [pair for pair in combinations(keys, 2) if self.scenes.are_alike(*pair)]
        return {key for pair in pairs if self.scenes.agree(*pair) for key in pair}


def find_pairing(sdata: SpatialData) -> Pairing:
    """Look at the coordinate systems of all source images, once."""
    pairing = Pairing(sdata, source_images(sdata), Scenes(sdata))
    for key in pairing.sources:
        for system in systems_of(sdata.images[key]):
            pairing.systems.setdefault(system, []).append(key)
    for table in sdata.tables.values():
        for region, facts in get_provenance(table, _keys.PARAMS).items():
            if facts.get("function") == "make_spots" and facts["image"] in sdata.images:
                pairing.grids.setdefault(region, facts["image"])
    return pairing


def source_images(sdata: SpatialData) -> list[str]:
    """Images that were not derived by h2e or squidpy from another one."""
    derived = {_keys.normalized(key) for key in sdata.images} | set(get_provenance(sdata, _keys.STAINS))
    names = set(sdata.images)
    derived |= {key for key in names if _keys.before_concatenate(key) in names - {key}}
    return sorted(names - derived)


def to_pixels(sdata: SpatialData, region: str, image_key: str) -> np.ndarray:
    """Affine matrix from the coordinates of the shapes to pixels of level 0 of the image."""
    return affine_to_image(sdata, image_key, shapes_of(sdata, region), f"region {region!r}")
