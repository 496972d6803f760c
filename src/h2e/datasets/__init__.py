"""Public data sets as one lazy multi-slide SpatialData."""

from __future__ import annotations

__all__: list[str] = []
