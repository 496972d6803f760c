"""Plots: each takes data and ``ax`` and returns what it drew on."""

from __future__ import annotations

from h2e.pl._stains import stains
from h2e.pl._targets import spots, target_overview
from h2e.pl._tissue import tissue

__all__ = ["spots", "stains", "target_overview", "tissue"]
