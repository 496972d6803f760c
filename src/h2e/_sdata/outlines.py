"""The outlines of spots in pixels of their image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from h2e._slide.slide import Slide

if TYPE_CHECKING:
    from spatialdata import SpatialData

Ring = list[list[float]]
"""A closed line, (corners + 1, 2)."""

CORNERS = 32
"""Of the polygon in place of a circle."""


def outlines_of(sdata: SpatialData, slide: Slide, instances: np.ndarray) -> list[list[list[Ring]]]:
    """The polygons of each spot, mostly one, each as its outline and those of its holes, in pixels of level 0."""
    shapes = sdata.shapes[slide.region]
    if "radius" in shapes:
        turn = np.linspace(0, 2 * np.pi, CORNERS + 1)
        circle = slide.radius_px * np.column_stack([np.cos(turn), np.sin(turn)])
        circle[-1] = circle[0]
        return [[[ring]] for ring in (slide.xy[:, None] + circle).round(2).tolist()]

    def placed(ring: Any) -> Ring:
        return (np.asarray(ring.coords)[:, :2] @ slide.to_px[:2, :2].T + slide.to_px[:2, 2]).round(2).tolist()

    every = (getattr(shape, "geoms", [shape]) for shape in shapes.geometry.loc[instances])
    return [[[placed(ring) for ring in (one.exterior, *one.interiors)] for one in parts] for parts in every]
