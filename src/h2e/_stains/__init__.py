"""Colour as arrays: estimate the stains of slides, and bring images to a reference."""

from __future__ import annotations
