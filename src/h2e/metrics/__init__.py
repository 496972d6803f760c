"""Score predictions, per target over the spots of a slide."""

from __future__ import annotations

__all__: list[str] = []
