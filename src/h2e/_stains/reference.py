"""What the stains of a slide, or of a cohort, look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np

from h2e._warnings import refuse, refuse_if

Method = Literal["macenko", "vahadane", "reinhard"]
METHODS = get_args(Method)
Triple = tuple[float, float, float]


@dataclass(frozen=True, repr=False)
class StainReference:
    """The stains that slides are brought to: plain numbers, comparable by value.

    Made by :func:`h2e.pp.fit_stain_reference`. Macenko and Vahadane describe the colour and the amount of two
    stains, Reinhard the mean and the spread of the colour of tissue.

    Parameters
    ----------
    method
        ``"macenko"``, ``"vahadane"`` or ``"reinhard"``.
    background
        Intensity + 1 at which nothing is absorbed; optical density is ``-log((rgb + 1) / background)``.
    stains
        Haematoxylin and eosin, two unit vectors of optical density in red, green and blue.
    concentrations
        Amount of each in tissue, at ``percentile``; ``None``: a slide keeps its own amounts.
    percentile
        At which amounts are compared. A high one compares the densest nuclei; a lower one would follow how much of the
        slide is tumour, and darken slides that are mostly fat and stroma.
    mean, std
        Of the colour of tissue in ``space``.
    space
        ``"cielab"`` or ``"ruderman"``.
    n_pixels
        Stained pixels that it was estimated from.
    n_patches, patch_px, seed
        How the tissue of every slide is sampled, so that slides are measured as the reference was.
    images
        Names of the images that it was estimated from; empty where nobody says. References are equal whatever these are.

    Examples
    --------
    >>> import h2e
    >>> reference = h2e.pp.StainReference(
    ...     "macenko", stains=((0.65, 0.70, 0.29), (0.07, 0.99, 0.11)), concentrations=(1.9, 1.0)
    ... )
    >>> h2e.pp.StainReference.from_dict(reference.to_dict()) == reference
    True
    """

    method: Method
    background: float = 240.0
    stains: tuple[Triple, Triple] | None = None
    concentrations: tuple[float, float] | None = None
    percentile: float = 99.0
    mean: Triple | None = None
    std: Triple | None = None
    space: str | None = None
    n_pixels: int = 0
    n_patches: int = 16
    patch_px: int = 256
    seed: int = 0
    images: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        refuse_if(self.method not in METHODS, f"method must be one of {list(METHODS)}, got {self.method!r}.")
        for name, shape in {"stains": (2, 3), "concentrations": (2,), "mean": (3,), "std": (3,)}.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, _plain(value, shape, name))
        object.__setattr__(self, "images", tuple(map(str, self.images)))
        needed = ("mean", "std", "space") if self.method == "reinhard" else ("stains",)
        missing = [name for name in needed if getattr(self, name) is None]
        refuse_if(missing, f"a reference of method {self.method!r} must have {needed}, got None for {missing}.")
        if self.space not in (None, "cielab", "ruderman"):
            refuse(f"space must be 'cielab' or 'ruderman', got {self.space!r}.")
        if self.background <= 0 or min(self.concentrations or (1,)) <= 0 or min(self.std or (1,)) <= 0:
            refuse(f"background, concentrations and std must be positive, got {self}.")
        if self.stains is not None and np.linalg.matrix_rank(self.stains, tol=1e-3) < 2:
            refuse(f"stains must have two different colours, got {self.stains}.")

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self._given().items())
        return f"StainReference({told})"

    @property
    def matrix(self) -> np.ndarray:
        """Haematoxylin, eosin and what is neither (their normal), the rows unit vectors, 3 × 3."""
        two = np.array(self.stains, float)
        rows = np.vstack([two, np.cross(*two)])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def to_dict(self) -> dict[str, Any]:
        """As plain strings, numbers and lists, for JSON and ``sdata.attrs``."""
        given = self._given().items()
        return {key: np.array(value).tolist() if isinstance(value, tuple) else value for key, value in given}

    def _given(self) -> dict[str, Any]:
        """What is there, by name."""
        return {name: value for name, value in asdict(self).items() if value not in (None, ())}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> StainReference:
        """From what :meth:`to_dict` returned."""
        known = {field.name for field in fields(cls)}
        if "method" not in stored or set(stored) - known:
            msg = f"entries of a stain reference must be 'method' and others of {sorted(known)}, got {sorted(stored)}."
            raise ValueError(msg)
        return cls(**stored)


def _plain(value: object, shape: tuple[int, ...], name: str) -> tuple:
    """Numbers as tuples, six decimals, of the right shape."""
    array = np.asarray(value, dtype=float)
    if array.shape != shape or not np.isfinite(array).all():
        refuse(f"{name} must be {' × '.join(map(str, shape))} finite numbers, got {value!r}.")
    rounded = np.round(array, 6).tolist()
    return tuple(map(tuple, rounded)) if array.ndim == 2 else tuple(rounded)


def sampling_of(reference: StainReference) -> dict[str, Any]:
    """How the tissue of every slide is sampled."""
    return {"n_patches": reference.n_patches, "patch_px": reference.patch_px, "seed": reference.seed}


def from_squidpy(reference: Any) -> StainReference:
    """A reference that ``squidpy.experimental.im.fit_stain_reference`` fitted, in our units."""
    if reference.method == "reinhard":
        return StainReference("reinhard", mean=reference.mu, std=reference.sigma, space="ruderman")
    white = np.array(reference.white_point, float)
    refuse_if(np.ptp(white) > 2, f"white_point must be one for all channels, got {white.tolist()}; fit without it.")
    amounts = reference.max_concentrations
    # Theirs are scaled so that an optical density of log(256) is 255.
    if amounts is not None:
        amounts = np.asarray(amounts) * np.log(256) / 255
    stains = tuple(np.array(reference.stain_matrix, float).T[:2])
    return StainReference(reference.method, float(white.mean()) + 1, stains, amounts)
