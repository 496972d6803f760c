"""The ensemble: models that each left one group out, models of all groups, and the stack that combines the learners."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from h2e._ensemble import store as _store
from h2e._ensemble.exports import Exports
from h2e._ensemble.fold_models import ALL, FoldModel, averaged_members, names_of
from h2e._ensemble.novelty import Novelty
from h2e._ensemble.saving import describe, rebuild, restore_learners, without_data
from h2e._ensemble.scale_cue import ScaleCue
from h2e._ensemble.stack import PER_MODEL, Stack
from h2e._learners.folds import QUARTER
from h2e._learners.learner import Learner
from h2e._stains.reference import StainReference
from h2e._statistics import group_mean, half_widths, unit_deviations
from h2e._warnings import log

if TYPE_CHECKING:
    from h2e._ensemble.mlp import MlpStack


@dataclass(frozen=True, eq=False)
class Ensemble(Exports):
    """What :func:`h2e.tl.fit` returns: everything that a prediction needs, and the held-out predictions.

    ``loo`` holds the held-out predictions of the training spots, indexed by region and instance: each the mean over
    the learners of models that did not see the spot's group. ``history`` is a tidy table of training losses.
    """

    targets: tuple[str, ...]
    learners: tuple[Learner, ...]
    members: tuple[FoldModel, ...]
    stack: Stack | MlpStack
    loo: pd.DataFrame
    held_out: np.ndarray  # (learners, training spots, targets), what loo is the mean of
    truth: np.ndarray  # (training spots, targets)
    # (training spots, targets), held-out prediction of the stack minus truth; NaN if there is none
    calibration: np.ndarray
    novelty: Novelty | None
    training: pd.DataFrame  # per training spot: slide, group, and x, y as shares of the image's width and height
    thumbnails: Mapping[str, np.ndarray]  # by region, mean colours of parts of its image
    history: pd.DataFrame
    spacing_um: float
    reference: StainReference | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # plain numbers and strings
    scale_cue: ScaleCue | None = None  # None of one group, where no image is looked at, and of older ensembles
    # by slide, figures of its image that are known; none in ensembles of version 0.1
    quality: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __repr__(self) -> str:
        n_slides, groups = self.training["slide"].nunique(), sorted(self.training["group"].unique())
        left_out = "its quarters" if self.settings.get("left_out") == QUARTER else groups
        return (
            f"Ensemble of {len(self.members)} models ({' + '.join(names_of(self.learners))}; stack: {self.stack.kind}) "
            f"for {len(self.targets)} targets, trained on {len(self.training)} spots of {n_slides} slides, "
            f"leaving out {left_out}"
        )

    def predict(self, x: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Prediction and standard deviation over models and flips, (n, targets), in the unit of the targets.

        :meta private:
        """
        inputs, every = list[np.ndarray](), list[np.ndarray]()
        for name in names_of(self.learners):
            members = [member for member in self.members if member.learner == name]
            versions = [member.tta_predictions(x[name]) for member in members]
            means = {member.held_out: v.mean(axis=0) for member, v in zip(members, versions, strict=True)}
            every.extend(versions)
            if self.stack.kind in PER_MODEL:
                inputs.extend(mean for held_out, mean in means.items() if held_out != ALL)
            else:
                averaged = averaged_members(members, name, self.n_groups)
                inputs.append(np.mean([means[member.held_out] for member in averaged], axis=0))
        return self.stack.combine(np.stack(inputs)), _std(every)

    def predict_alone(self, x: Mapping[str, np.ndarray], name: str) -> np.ndarray:
        """Predictions of one learner, (n, targets): the mean over its models that saw enough groups.

        :meta private:
        """
        return np.mean([m.predict(x[name]) for m in averaged_members(self.members, name, self.n_groups)], axis=0)

    @property
    def n_groups(self) -> int:
        """Groups that were trained on."""
        return self.training["group"].nunique()

    @property
    def lowest(self) -> float:
        """Smallest measured value."""
        return self.settings["private"]["lowest"] if "private" in self.settings else float(self.truth.min())

    def half_width(self, level: float) -> np.ndarray | None:
        """Half width of each target's interval that holds ``level`` of the held-out truths; ``None`` without folds.

        :meta private:
        """
        if not np.isfinite(self.calibration).all():
            return None
        return half_widths(self.calibration, self.training["group"].to_numpy(str), level=level)

    def held_out_skill(self) -> pd.Series:
        """Share of squared error that held-out predictions save against the mean of the other groups, per target.

        Below 0 the mean would have been the better prediction. Targets were chosen on all groups, which flatters:
        :func:`h2e.tl.evaluate` chooses them anew.

        Returns
        -------
        A Series by target, the mean over groups; of a single slide against the mean of the whole slide, and NaN without
        folds.

        Examples
        --------
        >>> import h2e
        >>> sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
        >>> options = {"targets": ["TOY01"], "group_key": "donor", "progress": False}
        >>> h2e.tl.fit(sdata, learners="mean", **options).held_out_skill().round(2) + 0
        TOY01    0.0
        dtype: float64
        """
        if "private" in self.settings:
            return pd.Series(self.settings["private"]["skill"], index=list(self.targets), dtype=float)
        groups, loo, skill = self.training["group"].to_numpy(str), self.loo.to_numpy(), []
        for name in np.unique(groups):
            own = groups == name
            others = self.truth if own.all() else self.truth[~own]
            mean = group_mean(others, groups if own.all() else groups[~own])
            worse = ((self.truth[own] - mean) ** 2).sum(axis=0)
            skill.append(1 - ((self.truth[own] - loo[own]) ** 2).sum(axis=0) / np.maximum(worse, 1e-12))
        return pd.Series(np.mean(skill, axis=0), index=list(self.targets))

    def error_correlation(self) -> pd.DataFrame:
        """How alike the held-out errors of the learners are: Pearson within slides, mean over slides and targets.

        Learners whose errors differ gain from being averaged; those whose errors agree do not.

        Returns
        -------
        A square DataFrame, learners × learners.

        Examples
        --------
        >>> import h2e
        >>> sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
        >>> options = {"targets": ["TOY01"], "group_key": "donor", "progress": False}
        >>> ensemble = h2e.tl.fit(sdata, learners=["texture", "mean"], **options)
        >>> ensemble.error_correlation().shape
        (2, 2)
        """
        if "private" in self.settings:
            msg = "the held-out predictions are not here: the ensemble was saved with private=True; load one that was not."
            raise ValueError(msg)
        errors, slides, names = self.held_out - self.truth, self.training["slide"].to_numpy(), names_of(self.learners)
        unit = [unit_deviations(errors[:, slides == slide]) for slide in np.unique(slides)]
        correlation = np.mean([np.einsum("ant,bnt->ab", each, each) for each in unit], axis=0) / len(self.targets)
        return pd.DataFrame(correlation, index=names, columns=names)

    def save(self, folder: str | PathLike[str], *, scores: pd.DataFrame | None = None, private: bool = False) -> None:
        """Write the ensemble to a folder: ``ensemble.json``, ``weights.safetensors`` and its card, ``README.md``.

        The arrays of models are stored, and the settings of learners; their code is not, be it an encoder or a
        :class:`h2e.tl.Learner` of your own.

        Parameters
        ----------
        folder
            Must not exist, be empty, or hold an ensemble, which is replaced; other files beside it stay. If saving
            fails, what was there is kept. So does a ``README.md`` that h2e did not write.
        scores
            For the card, as in :meth:`card`.
        private
            Leave out measured targets, held-out predictions, names and places of spots, and thumbnails: slides that it
            was trained on are not recognized, and ``loo`` is empty. What models of nearest neighbours hold stays.

        Examples
        --------
        >>> import h2e, tempfile
        >>> sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
        >>> ensemble = h2e.tl.fit(sdata, learners="mean", group_key="donor", progress=False)
        >>> folder = tempfile.mkdtemp()
        >>> ensemble.save(folder)
        >>> h2e.Ensemble.load(folder).targets == ensemble.targets
        True
        """
        ensemble = replace(self, **without_data(self)) if private else self
        _store.save(Path(folder), *describe(ensemble), readme=ensemble.card(scores))
        log.info("wrote ensemble to %s", folder)

    @classmethod
    def load(
        cls,
        folder: str | PathLike[str],
        *,
        encoders: Mapping[str, Any] | None = None,
        learners: Mapping[str, Callable[..., Learner]] | None = None,
        allow_download: bool = False,
    ) -> Ensemble:
        """Read an ensemble that :meth:`save` wrote.

        Nothing is unpickled, imported, downloaded or written because a file says so: what is code is passed again, and
        of encoders only the one that comes with h2e is taken from the file, unless ``allow_download``.

        Parameters
        ----------
        folder
            What :meth:`save` wrote.
        encoders
            The encoder of each learner that has one, a name too, by the name of the learner in the ensemble; weights
            other than those that were trained on are refused. Without it an ensemble can be loaded, but not predict.
        learners
            For each learner of your own its class, by the name of the class, or a function that makes it of its
            settings.
        allow_download
            Whether encoders that the file names are fetched and built when they are needed. What runs code of a
            repository is not: pass it as :class:`h2e.tl.Encoder` with ``trust_remote_code=True``.

        Returns
        -------
        The ensemble; on the same machine its predictions are those of the one that was saved.

        Raises
        ------
        FileNotFoundError
            There is no ensemble.
        ValueError
            A file is damaged, changed, or of a newer format, or a learner of your own is not passed.
        """
        about, arrays = _store.load(Path(folder))
        by_name = restore_learners(about["learners"], encoders or {}, learners or {}, allow_download=allow_download)
        return cls(**rebuild(about, arrays, by_name))


def _std(versions: Sequence[np.ndarray]) -> np.ndarray:
    """Standard deviation over models and over the flips of each, where every model counts the same."""
    within = np.mean([v.var(axis=0) for v in versions], axis=0)
    return np.sqrt(within + np.var([v.mean(axis=0) for v in versions], axis=0)).astype(np.float32)
