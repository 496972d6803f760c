"""What is to be predicted: targets that are named, or chosen on the training spots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from h2e._sdata.cohort import Cohort
from h2e._sdata.expression import expression
from h2e._sdata.selection import choose_targets, symbols_of
from h2e._sdata.targets import measured
from h2e._statistics import Matrix


@dataclass(frozen=True)
class TargetSpec:
    """Which targets, and where their measured values are; only the training spots have a say in which."""

    cohort: Cohort
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

    @property
    def settings(self) -> dict[str, Any]:
        """What is stored with an ensemble about its targets."""
        return {
            "unit": self.unit,
            "targets_chosen_on_all_groups": self.chosen,
            "obsm": self.obsm or "",
            "layer": self.layer or "",
            "log_normalized": self.log_normalized,
        }

    @cached_property
    def genes(self) -> Matrix | None:
        """Log-normalized expression of all genes at the spots of the cohort; ``None`` where targets are not genes."""
        if self.obsm is not None:
            return None
        values = expression(self.cohort.table, layer=self.layer, log_normalized=self.log_normalized)
        return values[self.cohort.rows]

    @property
    def n_empty(self) -> int:
        """How many spots of the cohort have no counts."""
        return 0 if self.genes is None else int((np.asarray(self.genes.sum(axis=1)).ravel() == 0).sum())

    def measured(self, train: np.ndarray) -> pd.DataFrame:
        """The targets of all spots of the cohort, spots × targets; only the training spots have a say in which."""
        cohort, targets = self.cohort, self.targets
        if self.genes is not None and targets is None:
            targets = choose_targets(
                self.genes[train],
                cohort.xy_um[train],
                genes=list(cohort.table.var_names),
                slides=cohort.names[train],
                groups=cohort.groups[train],
                n_targets=self.n_targets,
                symbols=symbols_of(cohort.table),
            )
        rows = cohort.table[cohort.rows]
        return measured(rows, targets, obsm=self.obsm, layer=self.layer, log_normalized=self.log_normalized)
