"""What is to be predicted: targets that are named, or chosen on the training spots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from h2e._sdata.cohort import Cohort
from h2e._sdata.expression import expression, gene_names
from h2e._sdata.selection import choose_targets, symbols_of
from h2e._sdata.targets import AS_IN_OBS, are_in_obs, as_list, counts_of, measured, refuse_predictions, resolve_targets
from h2e._statistics import Matrix
from h2e._warnings import log

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
            msg += "name targets with values (targets=)."
            raise ValueError(msg)
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
