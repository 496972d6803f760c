"""Warnings that name the line of the user, not one of h2e."""

from __future__ import annotations

import sys
import warnings


def warn(message: str) -> None:
    """Warn at the nearest line of the call stack that is not h2e's own."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "h2e":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
