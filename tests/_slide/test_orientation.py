"""Turned, mirrored and shifted spots are told by the tissue's outline, and not where it cannot tell."""

from __future__ import annotations

import numpy as np
import pytest

from h2e._slide.lattice import hexagonal_grid
from h2e._slide.orientation import AS_THEY_ARE, CLEAR, ORIENTATIONS, orientation, score_here
from h2e._slide.registration import place

SPACING = 10.0


def spots_on(mask: np.ndarray) -> np.ndarray:
    """Give the points of a hexagonal grid that lie on a mask of one pixel per pixel."""
    xy, _ = hexagonal_grid(mask.shape, SPACING)
    at = np.clip(xy.astype(int), 0, np.array(mask.shape[::-1]) - 1)
    return xy[mask[at[:, 1], at[:, 0]]]


@pytest.fixture(scope="module")
def hook() -> np.ndarray:
    """Tissue that no turn and no mirror maps onto itself."""
    mask = np.zeros((300, 400), bool)
    mask[40:260, 60:120] = mask[200:260, 60:330] = mask[60:110, 60:220] = True
    return mask


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_orientation_that_fits_is_named(hook: np.ndarray, name: str):
    xy, middle = spots_on(hook), np.array([190.0, 150.0])
    # What was done to them is undone by what is named.
    wrong = (xy - middle) @ np.linalg.inv(np.array(ORIENTATIONS[name], float)).T + middle
    fits = orientation(hook, 1.0, wrong, SPACING)
    assert fits.name == name
    assert fits.verdict == ("right" if name == AS_THEY_ARE else "other orientation")
    centre = wrong.mean(axis=0)
    back = (wrong - centre) @ np.array(ORIENTATIONS[name], float).T + centre + fits.shift
    assert np.abs(back - xy).max() < SPACING
    assert (score_here(hook, 1.0, wrong, SPACING) >= CLEAR) == (name == AS_THEY_ARE)


@pytest.mark.parametrize("shift", [(60.0, 0.0), (-40.0, 70.0)])
def test_spots_that_were_moved_are_told(hook: np.ndarray, shift: tuple[float, float]):
    fits = orientation(hook, 1.0, spots_on(hook) + shift, SPACING)
    assert fits.verdict == "shifted"
    np.testing.assert_allclose(fits.shift, -np.array(shift), atol=SPACING)


def test_bins_by_the_ten_thousand_are_told_as_well(hook: np.ndarray):
    x, y = (a.ravel() + 0.75 for a in np.meshgrid(np.arange(0, 399, 1.5), np.arange(0, 299, 1.5)))
    xy = np.column_stack([x, y])[hook[y.astype(int), x.astype(int)]]
    assert orientation(hook, 1.0, xy, 1.5).verdict == "right"
    assert orientation(hook, 1.0, xy * [-1, 1] + [400, 0], 1.5).name == "mirrored left to right"


def test_a_few_bins_on_a_large_image_cut_it_no_finer_than_its_mask(hook: np.ndarray, monkeypatch):
    sides = []

    def cells_of(mask: np.ndarray, scale: float, cell_px: float) -> np.ndarray:
        sides.append(cell_px / scale)
        return np.ones((50, 50))

    for function in (orientation, place):
        monkeypatch.setitem(function.__globals__, "cells_of", cells_of)
    few = np.array([[800.0, 800.0], [802.0, 800.0], [800.0, 802.0]])
    score_here(hook, 16.0, few, 2.0)
    orientation(hook, 16.0, few, 2.0)
    assert min(sides) >= 1
    place(hook, 16.0, few, 8.0)
    assert sides[-1] >= 0.25


def round_tissue() -> np.ndarray:
    y, x = np.mgrid[:300, :400]
    return np.hypot(x - 200, y - 150) < 110


@pytest.mark.parametrize("mask", [round_tissue(), np.ones((300, 400), bool)], ids=["symmetric", "tissue all over"])
@pytest.mark.parametrize("name", ["turned by 180°", "mirrored left to right", "with x and y exchanged"])
def test_where_the_outline_cannot_tell_it_is_said(mask: np.ndarray, name: str):
    xy = spots_on(mask)
    wrong = (xy - [200, 150]) @ np.array(ORIENTATIONS[name], float).T + [200, 150]
    assert orientation(mask, 1.0, xy, SPACING).verdict == "cannot be told"
    assert orientation(mask, 1.0, wrong, SPACING).verdict == "cannot be told"
