"""Which image each region lies on, and which images no region lies on; found once for a call."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from h2e._sdata import keys as _keys
from h2e._sdata.images import affine_to_image, check_image_key, systems_of
from h2e._sdata.provenance import get_provenance
from h2e._sdata.scenes import Scenes
from h2e._sdata.table import shapes_of

if TYPE_CHECKING:
    from spatialdata import SpatialData


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
            msg = f"image_key names no image for region {region!r}; it has {sorted(image_key)}."
            raise ValueError(msg)
        check_image_key(self.sdata, key)
        if grid is not None and not self.scenes.is_one(key, grid):
            msg = f"the spots {region!r} are a grid over image {grid!r}, not over {key!r}; lay one over that, too, "
            msg += f"with h2e.pp.make_spots(sdata, image_key={key!r}, …), and leave image_key out."
            raise ValueError(msg)
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
