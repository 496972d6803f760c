"""What is to be predicted: targets that are named, or chosen on the training spots; and choices that saw the others."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.cohort import Cohort
from h2e._sdata.expression import expression, gene_names
from h2e._sdata.provenance import get_provenance, settings_of
from h2e._sdata.selection import choose_targets, symbols_of
from h2e._sdata.table import labels_of
from h2e._sdata.targets import (
    AS_IN_OBS,
    are_in_obs,
    as_list,
    counts_of,
    measured,
    refuse_predictions,
    resolve_targets,
    stored_name,
)
from h2e._statistics import Matrix
from h2e._warnings import log, refuse, warn

EXPECTED, COMMON = 10, 0.1
"""A slide lacks a gene where no spot has it, and so many, and such a share of its spots, should by any other slide."""


@dataclass(frozen=True)
class TargetSpec:
    """Which targets, and where their measured values are; only the training spots have a say in which."""

    cohort: Cohort
    targets: Sequence[str] | str | None
    n_targets: int
    obsm: str | None
    layer: str | None
    log_normalized: bool

    def __post_init__(self) -> None:
        if self.targets is not None:
            object.__setattr__(self, "targets", as_list(self.targets))
        refuse_predictions(self.cohort.table, self.targets if self.obsm is None else [self.obsm])

    @property
    def chosen(self) -> bool:
        """Whether targets are chosen on the training spots."""
        return self.targets is None and self.obsm is None

    @cached_property
    def in_obs(self) -> bool:
        """Whether the targets are columns of ``obs``."""
        return self.obsm is None and are_in_obs(self.cohort.table, self.targets)

    @property
    def unit(self) -> str:
        """Unit of the predictions."""
        if self.obsm is not None:
            return f"as in obsm[{self.obsm!r}]"
        return AS_IN_OBS if self.in_obs else "log-normalized expression"

    @property
    def settings(self) -> dict[str, Any]:
        """What is stored with an ensemble about its targets."""
        source = {"obsm": self.obsm or "", "layer": self.layer or "", "log_normalized": self.log_normalized}
        return {"unit": self.unit, "targets_chosen_on_all_groups": self.chosen} | source

    @cached_property
    def genes(self) -> Matrix | None:
        """Log-normalized expression of all genes at the spots of the cohort; ``None`` where targets are not genes."""
        if self.obsm is not None or self.in_obs:
            return None
        return expression(self.cohort.table, layer=self.layer, log_normalized=self.log_normalized)[self.cohort.rows]

    def counts(self, targets: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
        """Raw counts of the targets, (n, targets), and of all genes, (n,), at the spots of the cohort, if there are any."""
        if self.genes is None:
            return None
        counts = counts_of(self.cohort.table, targets, layer=self.layer, log_normalized=self.log_normalized)
        return None if counts is None else (counts[0][self.cohort.rows], counts[1][self.cohort.rows])

    @property
    def n_empty(self) -> int:
        """How many spots of the cohort have no counts."""
        return 0 if self.genes is None else int((np.asarray(self.genes.sum(axis=1)).ravel() == 0).sum())

    def measured(self, train: np.ndarray) -> pd.DataFrame:
        """The targets of all spots of the cohort, spots × targets; only the training spots have a say in which."""
        cohort, targets = self.cohort, self.targets
        if self.genes is not None and targets is None:
            about: dict[str, Any] = {"genes": list(gene_names(cohort.table)), "symbols": symbols_of(cohort.table)}
            about |= {"slides": cohort.names[train], "groups": cohort.groups[train], "n_targets": self.n_targets}
            targets = choose_targets(self.genes[train], cohort.xy_um[train], **about)
        return measured(cohort.table[cohort.rows], targets, obsm=self.obsm, obs=self.in_obs, genes=self.genes)

    def with_values(self) -> TargetSpec:
        """The same for the spots that have a value of each target: those of ``obsm`` and ``obs`` may have gaps."""
        if self.obsm is None and not self.in_obs:
            return self
        table = self.cohort.table[self.cohort.rows]
        missing = measured(table, self.targets, obsm=self.obsm, obs=self.in_obs, allow_missing=True).isna()
        gap = missing.any(axis=1).to_numpy()
        if not gap.any():
            return self
        by_slide = pd.Series(self.cohort.names[gap]).value_counts(sort=False).to_dict()
        msg = f"{gap.sum()} of {len(gap)} spots on tissue have no value of some target (most of "
        msg += f"{missing.sum().idxmax()!r}), by slide {by_slide}: "
        if gap.all():
            refuse(msg + "name targets with values (targets=).")
        log.warning("%sthey are left out", msg)
        return replace(self, cohort=self.cohort.take(~gap))

    def absent(self, targets: Sequence[str] | str | None) -> list[str]:
        """Genes that no spot of a slide has, though by each other slide that has them some should; with the numbers."""
        if self.genes is None or targets is None:
            return []
        names, slides = resolve_targets(self.cohort.table, targets), self.cohort.slides
        detected, of_spots = self.genes > 0, self.cohort.names
        counts = np.array([np.asarray(detected[of_spots == one.name].sum(axis=0)).ravel() for one in slides])
        n, totals = np.array([[len(one)] for one in slides]), counts.sum(axis=1, keepdims=True)
        counts = counts[:, gene_names(self.cohort.table).get_indexer_for(names)]
        # As a share of the detections of all genes: slides differ in depth.
        shares = np.where(counts > 0, counts / np.maximum(totals, 1), 1)
        expected = np.minimum(shares.min(axis=0) * totals, n)
        lacking = (counts == 0) & counts.any(axis=0) & (expected >= np.maximum(EXPECTED, COMMON * n))
        return [
            f"{names[k]!r} on {slides[i].name!r} (0 of {n[i, 0]} spots, {expected[i, k]:.0f} expected)"
            for i, k in np.argwhere(lacking)
        ]


def warn_of_choices(spec: TargetSpec) -> None:
    """Warn where targets that are named, or a stain reference that is kept, saw groups that are left out."""
    if spec.targets is not None and spec.obsm is None and not spec.in_obs:
        _warn_of_targets(spec.cohort, set(resolve_targets(spec.cohort.table, spec.targets)))
    if spec.cohort.reference is not None and not spec.cohort.pooled:
        _warn_of_reference(spec.cohort, spec.cohort.reference.images)


def _warn_of_targets(cohort: Cohort, targets: set[str]) -> None:
    """Warn of genes that h2e is on record for having chosen on spots of the cohort."""
    for what, seen in (*_selected(cohort.table, targets), *_of_ensembles(cohort.table, targets)):
        if groups := np.unique(cohort.groups[seen[cohort.rows]]).tolist():
            msg = f"targets were chosen on groups {groups}, which are scored here (by {what}): scores are too good. "
            msg += "Pass targets=None, which chooses anew without each group, or score groups that had no say."
            warn(msg)


def _warn_of_reference(cohort: Cohort, images: Collection[str]) -> None:
    """Warn of a reference that was given, unless the names of images tell that it was fitted on others.

    Joining slides puts something before or behind a name, so a name in another may be the same image.
    """
    maybe = [slide for slide in cohort.slides if any(a in slide.image.key or slide.image.key in a for a in images)]
    if images and not maybe:
        return
    where = f"fitted on images {list(images)}, groups {sorted({slide.group for slide in maybe})} among them"
    msg = "the stain reference that images were normalized with was given, and is kept for all groups left out: it was "
    msg += where if images else "fitted on images that nobody names (images= of StainReference)"
    msg += ". What saw the slides that are scored makes scores too good: normalize without a reference, and it is "
    msg += "estimated anew without each group, or fit one on other slides with h2e.pp.fit_stain_reference."
    warn(msg)


def _selected(table: AnnData, targets: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """What ``select_targets`` is on record for that chose these targets, and which spots it saw, (n,)."""
    for key, facts in get_provenance(table, _keys.PARAMS).items():
        if facts.get("function") == "select_targets" and key in table.var and "slides" in facts:
            column = str(facts["library_key"])
            if targets <= set(table.var_names[table.var[key].to_numpy(bool)]) and (not column or column in table.obs):
                slides = labels_of(table, column) if column else np.full(table.n_obs, "all")
                yield f"h2e.pp.select_targets, var[{key!r}]", np.isin(slides.astype(str), [*map(str, facts["slides"])])


def _of_ensembles(table: AnnData, targets: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Ensembles behind predictions that chose these targets, and which spots they were trained on, (n,)."""
    columns = {stored_name(target) for target in targets}
    for key in table.uns:
        held_out = table.obsm.get(_keys.held_out(key))
        predicts = isinstance(held_out, pd.DataFrame) and columns <= set(held_out)
        if predicts and settings_of(table, key).get("targets_chosen_on_all_groups"):
            yield f"the ensemble behind obsm[{key!r}]", held_out.notna().any(axis=1).to_numpy()
