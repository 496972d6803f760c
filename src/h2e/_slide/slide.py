"""A slide: an image and the spots on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from h2e._slide.image import Image


@dataclass(frozen=True, eq=False)
class Slide:
    """An image and the spots on it."""

    name: str  # library; by default the region
    group: str  # donor; by default the name
    region: str  # key of the shapes
    image: Image
    xy: np.ndarray  # (n, 2) spot centres (x, y) in pixels of level 0; the centre of the first pixel is (0.5, 0.5)
    rows: np.ndarray  # (n,) positions of these spots in the table
    radius_px: float  # of a spot, in pixels of level 0
    spacing_px: float  # pitch of the spots, in pixels of level 0
    um_per_px: float | None  # of level 0; None where nothing tells it, see find_slides

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def spacing_um(self) -> float:
        """Pitch of the spots in µm."""
        return self.spacing_px * self.um_per_px

    def take(self, keep: np.ndarray) -> Slide:
        """The same slide with the spots ``keep`` (mask or positions) only."""
        return replace(self, xy=self.xy[keep], rows=self.rows[keep])
