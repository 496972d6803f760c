"""Choices that saw what is scored: targets that were chosen before, on slides that are left out now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.provenance import get_provenance, settings_of
from h2e._sdata.table import labels_of
from h2e._sdata.targets import resolve_targets, stored_name
from h2e._warnings import warn

if TYPE_CHECKING:
    from h2e._sdata.target_spec import TargetSpec


def warn_of_choices(spec: TargetSpec) -> None:
    """Warn where genes that are named were chosen, by h2e, on spots of groups that are left out."""
    if spec.targets is None or spec.obsm is not None or spec.in_obs:
        return
    cohort, targets = spec.cohort, set(resolve_targets(spec.cohort.table, spec.targets))
    for what, seen in (*_selected(cohort.table, targets), *_of_ensembles(cohort.table, targets)):
        if groups := np.unique(cohort.groups[seen[cohort.rows]]).tolist():
            msg = f"targets were chosen on groups {groups}, which are scored here (by {what}): scores are too good. "
            msg += "Pass targets=None, which chooses anew without each group, or score groups that had no say."
            warn(msg)


def _selected(table: AnnData, targets: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """What ``select_targets`` is on record for that chose these targets, and which spots it saw, (n,)."""
    for key, facts in get_provenance(table, _keys.PARAMS).items():
        if facts.get("function") == "select_targets" and key in table.var and "slides" in facts:
            column = str(facts["library_key"])
            if targets <= set(table.var_names[table.var[key]]) and (not column or column in table.obs):
                slides = labels_of(table, column) if column else np.full(table.n_obs, "all")
                yield f"h2e.pp.select_targets, var[{key!r}]", np.isin(slides.astype(str), [*map(str, facts["slides"])])


def _of_ensembles(table: AnnData, targets: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Ensembles behind predictions that chose these targets, and which spots they were trained on, (n,)."""
    columns = {stored_name(target) for target in targets}
    for key in table.uns:
        held_out = table.obsm.get(_keys.held_out(key), ())
        if settings_of(table, key).get("targets_chosen_on_all_groups") and columns <= set(held_out):
            yield f"the ensemble behind obsm[{key!r}]", held_out.notna().any(axis=1).to_numpy()
