"""How the maps of several slides and targets stand beside each other."""

from __future__ import annotations

import numpy as np

from h2e._slide.slide import Slide
from h2e.pl._maps import Map
from h2e.pl._underlay import Box, box_around

WIDTH = 3.0
"""Inches of a map in a new figure."""


def box_of(slide: Slide) -> Box:
    """The part of a slide that is shown: its spots, and some tissue around them."""
    return box_around(slide.xy, max(1.5 * slide.spacing_px, 0.04 * float(np.ptp(slide.xy, axis=0).max())))


def rows_of(slides: list[list[list[Map]]], ncols: int) -> list[int]:
    """How many maps stand in each row: a slide begins a row unless several fit, and what belongs together stays so."""
    if ncols < 1:
        msg = f"ncols is {ncols}; a row holds at least one map."
        raise ValueError(msg)
    rows: list[int] = []
    room = 0
    for groups in slides:
        together = max(map(len, groups))
        fit = max(ncols // together, 1)  # groups in a row
        if room < sum(map(len, groups)):
            room = 0
            n_rows = -(-len(groups) // fit)
            fit = fit if n_rows == 1 else -(-len(groups) // n_rows)  # rows of about the same length
        width = fit * together
        for group in groups:
            if room < len(group):
                rows.append(0)
                room = width
            rows[-1] += len(group)
            room -= len(group)
    return rows


def new_axes(rows: list[int], places: list[Slide]) -> np.ndarray:
    """Axes of a new figure, whose rows are as high as the slides are for their width."""
    import matplotlib.pyplot as plt

    boxes = [box_of(slide) for slide in places]
    aspect = np.clip(np.median([(bottom - top) / (right - left) for left, top, right, bottom in boxes]), 0.4, 2)
    size = (max(rows) * 1.15 * WIDTH + 0.4, len(rows) * (WIDTH * aspect + 0.75))
    figure = plt.figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(len(rows), max(rows))
    cells = [(i, j) for i, n in enumerate(rows) for j in range(n)]
    return np.array([figure.add_subplot(grid[cell]) for cell in cells], dtype=object)
