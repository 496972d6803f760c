"""Folds: which spots a model is trained on, and which it is scored on without having seen their group."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from h2e._warnings import refuse, refuse_if

QUARTERS = ("left, upper", "right, upper", "left, lower", "right, lower")
"""Of a slide that is cut into four."""

QUARTER = "quarter of the slide"
"""What is left out of a single slide."""


@dataclass(frozen=True, eq=False)
class Fold:
    """One group left out."""

    name: str
    train: np.ndarray  # positions of the spots to train on
    test: np.ndarray  # positions of the spots left out


def make_folds(
    slides: np.ndarray, groups: np.ndarray, xy_um: np.ndarray, *, buffer_um: float, n_folds: int | None = None
) -> list[Fold]:
    """Leave one group out, or with ``n_folds`` several at a time; of a single slide, leave one quarter of its area out.

    Quarters of one slide are told apart by its medians, and training spots within ``buffer_um`` of the left-out quarter
    are not used. Wider tiles than the buffer still show some of the same surroundings on both sides.

    Examples
    --------
    >>> names = np.array(["A", "A", "B"])
    >>> [(f.name, f.train.tolist(), f.test.tolist()) for f in make_folds(names, names, np.zeros((3, 2)), buffer_um=0)]
    [('A', [2], [0, 1]), ('B', [0, 1], [2])]
    """
    names = np.unique(groups)
    if n_folds is not None and not 2 <= n_folds <= len(names):
        refuse(f"n_folds must be between 2 and the number of groups, {len(names)}, got {n_folds}.")
    if n_folds is not None:
        from sklearn.model_selection import GroupKFold

        parts = GroupKFold(n_folds).split(groups, groups=groups)
        return [Fold(_together(np.unique(groups[test]).tolist()), train, test) for train, test in parts]
    if len(names) > 1:
        return [Fold(str(g), np.flatnonzero(groups != g), np.flatnonzero(groups == g)) for g in names]
    if len(np.unique(slides)) > 1:
        msg = f"groups must be at least 2 to leave one out, got {names.tolist()} for {len(np.unique(slides))} slides; "
        refuse(msg + "without group_key slides are left out.")
    return _quarters(xy_um, buffer_um)


def _together(names: list[str]) -> str:
    """What groups that are left out together are called.

    Examples
    --------
    >>> _together(["A", "B"]), _together(["A", "B", "C", "D"])
    ('A, B', 'A and 3 others')
    """
    return ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} others"


def quarters_of(xy: np.ndarray) -> np.ndarray:
    """Name of the quarter that each spot of a slide lies in; quarters are told apart by the medians.

    Examples
    --------
    >>> quarters_of(np.array([[0, 0], [9, 0], [0, 9], [9, 9]])).tolist()
    ['left, upper', 'right, upper', 'left, lower', 'right, lower']
    """
    return np.array(QUARTERS)[(xy > np.median(xy, axis=0)) @ [1, 2]]


def _quarters(xy_um: np.ndarray, buffer_um: float) -> list[Fold]:
    """The four quarters of a slide, each with the spots that are further from it than the buffer."""
    from scipy.spatial import KDTree

    refuse_if(len(xy_um) < 8, f"spots on tissue must be at least 8 for folds within a slide, got {len(xy_um)}.")
    quarter, folds = quarters_of(xy_um), []
    for name in QUARTERS:
        inside = quarter == name
        if not inside.any():
            continue
        distance, _ = KDTree(xy_um[inside]).query(xy_um)
        train = np.flatnonzero(distance > buffer_um)
        if len(train) < 2:
            msg = "the slide is too small for folds within it: at least 2 spots must be further than the extent of a "
            refuse(msg + f"tile, {buffer_um:.0f} µm, from its quarter {name!r}, got {len(train)}. Add slides.")
        folds.append(Fold(name, train, np.flatnonzero(inside)))
    return folds


def validation_group(groups: np.ndarray) -> np.ndarray:
    """Whether each spot is of the group to put aside for stopping: the one whose share is nearest to a fifth.

    Examples
    --------
    >>> validation_group(np.array(["A", "A", "A", "B"]))
    array([False, False, False,  True])
    """
    names, counts = np.unique(groups, return_counts=True)
    return groups == names[np.argmin(np.abs(counts / len(groups) - 0.2))]


def derive_seed(seed: int, *names: str) -> int:
    """A seed that depends on names and not on the order of anything.

    Examples
    --------
    >>> derive_seed(0, "A", "texture") == derive_seed(0, "A", "texture") != derive_seed(0, "B", "texture")
    True
    """
    return int.from_bytes(hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()[:4], "little")
