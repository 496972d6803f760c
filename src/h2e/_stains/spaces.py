"""The colour spaces in which Reinhard's method compares tissue."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Space(NamedTuple):
    """A Lab space: linear light → responses → nonlinearity → opponent axes, and back."""

    to_response: np.ndarray
    to_lab: np.ndarray
    shift: np.ndarray
    linear: Callable[[np.ndarray], np.ndarray]  # levels 0–255 → linear light
    display: Callable[[np.ndarray], np.ndarray]  # and back
    forward: Callable[[np.ndarray], np.ndarray]
    backward: Callable[[np.ndarray], np.ndarray]
    highest: float  # response of white


def _linear_light(level: np.ndarray) -> np.ndarray:
    """The transfer function of sRGB, undone."""
    v = level / 255
    return np.where(v > 0.04045, ((v + 0.055) / 1.055) ** 2.4, v / 12.92)


def _srgb_level(light: np.ndarray) -> np.ndarray:
    """The transfer function of sRGB."""
    light = np.clip(light, 0, 1)
    return 255 * np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, light * 12.92)


_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_D65 = np.array([[0.95047], [1.0], [1.08883]])
_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
SPACES = {
    # D65, 2°, as in skimage.color.rgb2lab.
    "cielab": Space(
        to_response=_XYZ / _D65,
        to_lab=np.array([[0, 116, 0], [500, -500, 0], [0, 200, -200.0]]),
        shift=np.array([-16.0, 0, 0]),
        linear=_linear_light,
        display=_srgb_level,
        forward=lambda u: np.where(u > 0.008856, np.cbrt(u), 7.787 * u + 16 / 116),
        backward=lambda f: np.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787),
        highest=1.0,
    ),
    # As in Reinhard et al. 2001, with 1 added before the logarithm.
    "ruderman": Space(
        to_response=_LMS,
        to_lab=np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0.0]]),
        shift=np.zeros(3),
        linear=lambda level: level * 1.0,
        display=lambda light: np.clip(light, 0, 255),
        forward=lambda u: np.log(u + 1),
        backward=lambda f: np.exp(f) - 1,
        highest=255.0,
    ),
}


def to_lab(rgb: np.ndarray, space: str = "cielab") -> np.ndarray:
    """8-bit values (n, 3) in a Lab space, float64."""
    way = SPACES[space]
    return way.forward(way.linear(np.arange(256.0))[rgb] @ way.to_response.T) @ way.to_lab.T + way.shift


def to_rgb(lab: np.ndarray, space: str = "cielab") -> np.ndarray:
    """Colours (n, 3) of a Lab space as levels 0–255, float64."""
    way = SPACES[space]
    response = way.backward((lab - way.shift) @ np.linalg.inv(way.to_lab).T)
    return way.display(response @ np.linalg.inv(way.to_response).T)
