"""Learn and predict: ``fit`` returns an ensemble, ``predict`` writes, ``evaluate`` scores."""

from __future__ import annotations

__all__: list[str] = []
