"""Choices that saw what is scored: targets and a stain reference that were chosen before, on slides left out now."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.provenance import get_provenance, settings_of
from h2e._sdata.table import labels_of
from h2e._sdata.targets import resolve_targets, stored_name
from h2e._warnings import warn

if TYPE_CHECKING:
    from h2e._sdata.cohort import Cohort
    from h2e._sdata.target_spec import TargetSpec


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
