"""Plots: each takes data and ``ax`` and returns what it drew on."""

from __future__ import annotations

__all__: list[str] = []
