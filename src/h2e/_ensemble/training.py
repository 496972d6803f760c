"""One training of an ensemble on some spots of a cohort; what ``fit`` does once and ``evaluate`` for every left-out group."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from h2e._ensemble.ensemble import HISTORY, Ensemble
from h2e._ensemble.fitting import FitConfig, fit_members
from h2e._ensemble.fold_models import Spots, names_of
from h2e._ensemble.novelty import fit_novelty
from h2e._ensemble.recognition import places, row_identity
from h2e._ensemble.stack import STACKS
from h2e._ensemble.transforms import TRANSFORMS
from h2e._learners.folds import Fold, make_folds
from h2e._learners.registry import Learner, learner_of
from h2e._sdata.expression import expression
from h2e._sdata.selection import choose_targets
from h2e._sdata.symbols import symbols_of
from h2e._sdata.targets import resolve_targets, storable_names, target_frame

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData

    from h2e._ensemble.cohort import Cohort
    from h2e._stains.reference import StainReference


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TargetSpec:
    """What is to be predicted: targets that are named, or chosen on the training spots."""

    table: AnnData
    targets: Sequence[str] | str | None
    n_targets: int
    obsm: str | None
    layer: str | None
    log_normalized: bool

    @property
    def chosen(self) -> bool:
        """Whether targets are chosen on the training spots."""
        return self.targets is None and self.obsm is None

    @property
    def unit(self) -> str:
        """Unit of the predictions."""
        return "log-normalized expression" if self.obsm is None else f"as in obsm[{self.obsm!r}]"

    @cached_property
    def expression(self) -> Any:
        """Log-normalized expression of all genes."""
        return expression(self.table, layer=self.layer, log_normalized=self.log_normalized)

    def genes(self, cohort: Cohort) -> Any:
        """Log-normalized expression of all genes at the spots of a cohort; ``None`` where targets are no genes."""
        return self.expression[cohort.rows] if self.obsm is None else None

    def of(self, cohort: Cohort, train: np.ndarray) -> pd.DataFrame:
        """The targets of all spots of a cohort, spots × targets; only the training spots have a say in which."""
        if self.obsm is not None:
            return target_frame(self.table[cohort.rows], self.targets, obsm=self.obsm)
        genes = self._choose(cohort, train) if self.chosen else resolve_targets(self.table, self.targets)
        columns = self.table.var_names.get_indexer_for(genes)
        values = self.expression[cohort.rows][:, columns]
        values = values.toarray() if sparse.issparse(values) else np.asarray(values)
        return pd.DataFrame(values, index=self.table.obs_names[cohort.rows], columns=storable_names(genes))

    def _choose(self, cohort: Cohort, train: np.ndarray) -> list[str]:
        """The genes that vary most in space over the training spots."""
        return choose_targets(
            self.expression[cohort.rows[train]],
            cohort.xy_um[train],
            genes=list(self.table.var_names),
            slides=cohort.names[train],
            groups=cohort.groups[train],
            n_targets=self.n_targets,
            symbols=symbols_of(self.table),
        )


def fit_config(
    learners: str | Learner | Sequence[str | Learner],
    *,
    transform: str,
    stack: str,
    n_programmes: int,
    seed: int,
    device: str | None,
    run_dir: str | PathLike | None,
    progress: bool,
) -> FitConfig:
    """Check how to train."""
    several = [learners] if isinstance(learners, str) or not isinstance(learners, Sequence) else list(learners)
    if not several:
        msg = "learners is empty; name at least one, such as 'texture'."
        raise ValueError(msg)
    found = tuple(learner_of(learner) for learner in several)
    if device is not None:
        found = tuple(replace(learner, device=device) if hasattr(learner, "device") else learner for learner in found)
    for what, value, known in (("transform", transform, TRANSFORMS), ("stack", stack, STACKS)):
        if value not in known:
            msg = f"{what} {value!r} is not one of {list(known)}."
            raise ValueError(msg)
    if not isinstance(n_programmes, Integral) or n_programmes < 0:
        msg = f"n_programmes is {n_programmes!r}; it must be 0 or a number of components."
        raise ValueError(msg)
    folder = None if run_dir is None else Path(run_dir)
    if folder is not None and folder.exists() and not folder.is_dir():
        msg = f"run_dir {str(folder)!r} is a file; pass a folder, which may be new."
        raise FileExistsError(msg)
    return FitConfig(found, transform, stack, int(seed), folder, progress, int(n_programmes))


def warn_of_empty_spots(cohort: Cohort, truth: TargetSpec) -> None:
    """Say how many spots on tissue have no counts: to a model they say that there is nothing of any gene."""
    if truth.obsm is None:
        total = np.asarray(truth.expression[cohort.rows].sum(axis=1)).ravel()
        if (total == 0).any():
            log.warning("%d of %d spots on tissue have no counts: drop them", (total == 0).sum(), len(total))


def warn_same_donor(cohort: Cohort, group_key: str | None) -> None:
    """Say where what is left out is close kin to what is trained on: slides without donors, quarters of one slide."""
    if group_key is None and len(cohort.slides) > 1:
        msg = (
            "no group_key: slides are left out, and if a donor has several, their scores are too good. Pass group_key."
        )
        warnings.warn(msg, stacklevel=3)
    if len(cohort.slides) == 1:
        msg = "one slide: its quarters are left out, so scores say nothing of another slide. Add slides."
        warnings.warn(msg, stacklevel=3)


def folds_within(cohort: Cohort, spots: np.ndarray, learners: Sequence[Learner]) -> list[Fold]:
    """Folds of some spots; a quarter of a slide keeps the extent of the largest tile from the others."""
    spacing_um = cohort.spacing_um(spots)
    buffer_um = max((view.extent_um(spacing_um) for learner in learners for view in learner.views), default=0.0)
    xy, slides, groups = cohort.xy_um[spots], cohort.names[spots], cohort.groups[spots]
    return make_folds(slides, groups, xy, buffer_um=min(buffer_um, 3 * spacing_um))


def train(
    cohort: Cohort,
    x: Mapping[str, np.ndarray],
    truth: pd.DataFrame,
    spots: np.ndarray,
    folds: Sequence[Fold],
    recipe: FitConfig,
    *,
    reference: StainReference | None,
    settings: Mapping[str, Any],
    genes: Any = None,
) -> Ensemble:
    """An ensemble of the given spots; rows of ``x``, ``truth`` and ``genes`` are all spots of the cohort."""
    genes = genes if recipe.n_programmes else None
    every = Spots(cohort.names, cohort.groups, x, truth.to_numpy(np.float32), genes)
    used = every.take(spots)
    fitted = fit_members(used, folds, recipe)
    index = row_identity(cohort.table, cohort.rows[spots])
    at = np.concatenate([places(slide) for slide in cohort.slides])[spots]
    of_whom = {"slide": used.slides, "group": used.groups, "x": at[:, 0], "y": at[:, 1]}
    seen = {cohort.slides[i].region: cohort.thumbnails[i] for i in cohort.of(spots)}
    names = names_of(recipe.learners)
    history = [{"learner": m.learner, "held_out": m.held_out, **h} for m in fitted.members for h in m.model.history]
    looking = [name for name, learner in zip(names, recipe.learners, strict=True) if learner.uses == "tiles"]
    return Ensemble(
        targets=tuple(truth.columns),
        learners=recipe.learners,
        members=tuple(fitted.members),
        stack=fitted.stack,
        loo=pd.DataFrame(fitted.held_out.mean(axis=0), index=index, columns=truth.columns),
        held_out=fitted.held_out,
        truth=used.y,
        calibration=fitted.calibration - used.y,
        novelty=fit_novelty(looking[0], used.x[looking[0]], used.groups) if looking else None,
        training=pd.DataFrame(of_whom, index=index),
        history=pd.DataFrame(history, columns=list(HISTORY)).astype(HISTORY),
        thumbnails=seen,
        spacing_um=cohort.spacing_um(spots),
        reference=reference,
        settings={
            **settings,
            "learners": names,
            "transform": recipe.transform,
            "stack": recipe.stack,
            "n_programmes": recipe.n_programmes if genes is not None else 0,
            "seed": recipe.seed,
            "keep_residual": cohort.keep_residual,
        },
    )
