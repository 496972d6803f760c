"""Targets that are named: genes, or columns of ``.obsm``; checked, and measured."""

from __future__ import annotations

import difflib
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from h2e._sdata import keys as _keys
from h2e._sdata.expression import expression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


def resolve_targets(adata: AnnData, targets: Sequence[str] | None = None, *, obsm: str | None = None) -> list[str]:
    """The targets that are meant, as the table names them: genes, or columns of ``.obsm``; checked, in the order asked.

    ``targets=None`` means the genes that ``var["h2e_target"]`` marks, or all columns of the ``.obsm`` frame.
    """
    if isinstance(targets, str):
        targets = [targets]
    if obsm is not None:
        there, where = frame_of(adata, obsm).columns.astype(str), f"adata.obsm[{obsm!r}]"
    else:
        there, where = adata.var_names.astype(str), "adata.var_names"
    if targets is None:
        if obsm is None and _keys.TARGET not in adata.var:
            msg = f"no targets: adata.var[{_keys.TARGET!r}] is not there; run h2e.pp.select_targets, or pass targets=."
            raise KeyError(msg)
        targets = there if obsm is not None else there[adata.var[_keys.TARGET]]
    names = np.asarray(list(targets), dtype=str)
    if len(names) == 0:
        msg = f"targets is empty; name at least one of {where}."
        raise ValueError(msg)
    refuse_duplicates(names, "targets")
    refuse_duplicates(there[there.isin(names)].to_numpy(dtype=str), where)
    missing = [name for name in names.tolist() if name not in there]
    if missing:
        raise KeyError(_missing(missing, list(there), where))
    return names.tolist()


def target_frame(
    adata: AnnData,
    targets: Sequence[str] | None = None,
    *,
    obsm: str | None = None,
    layer: str | None = None,
    log_normalized: bool = False,
) -> pd.DataFrame:
    """What the targets are measured to be, ``float32``, spots × targets: log-normalized expression or ``.obsm`` columns."""
    names = resolve_targets(adata, targets, obsm=obsm)
    columns = storable_names(names)
    if obsm is None:
        x = expression(adata, layer=layer, log_normalized=log_normalized)[:, adata.var_names.get_indexer_for(names)]
        values = x.toarray() if sparse.issparse(x) else x
    else:
        frame = frame_of(adata, obsm)
        values = frame.set_axis(frame.columns.astype(str), axis=1)[names].to_numpy(dtype=np.float32)
        bad = int((~np.isfinite(values)).any(axis=1).sum())
        if bad:
            msg = f"adata.obsm[{obsm!r}] holds NaN or infinite values in {bad} of {adata.n_obs} spots; fill them, or drop these spots."
            raise ValueError(msg)
    return pd.DataFrame(values.astype(np.float32), index=adata.obs_names, columns=columns)


def storable_names(names: Sequence[str]) -> list[str]:
    """The names with ``/``, which cannot be stored as a column, replaced by ``_``."""
    columns = [stored_name(name) for name in names]
    if columns != list(names):
        changed = [name for name in names if "/" in name]
        warnings.warn(f"'/' cannot be stored in a column name; replaced by '_' in {changed}.", stacklevel=2)
    refuse_duplicates(np.asarray(columns, dtype=str), "targets ('/' counts as '_')")
    return columns


def stored_name(name: object) -> str:
    """A target's name as a column of predictions has it."""
    return str(name).replace("/", "_")


def places_of(targets: Sequence[str], there: Sequence[str], where: str) -> dict[str, int]:
    """Where each target is that is there, under the name that predictions have; none may be there twice."""
    stored = np.array([stored_name(name) for name in there], dtype=str)
    found = np.flatnonzero(np.isin(stored, np.asarray(targets, dtype=str)))
    refuse_duplicates(stored[found], where)
    return dict(zip(stored[found].tolist(), found.tolist(), strict=True))


def refuse_duplicates(names: np.ndarray, where: str) -> None:
    """Refuse names that occur twice."""
    unique, counts = np.unique(names, return_counts=True)
    twice = unique[counts > 1].tolist()
    if twice:
        msg = f"{where}: {len(twice)} names occur more than once, such as {twice[:5]}; make them unique."
        raise ValueError(msg)


def frame_of(adata: AnnData, key: str, *, otherwise: str = "") -> pd.DataFrame:
    """A DataFrame in ``.obsm``; ``otherwise`` says what to do where it is not there."""
    if key not in adata.obsm:
        msg = f"{key!r} is not in adata.obsm; it has {list(adata.obsm)}.{otherwise}"
        raise KeyError(msg)
    frame = adata.obsm[key]
    if not isinstance(frame, pd.DataFrame):
        msg = f"adata.obsm[{key!r}] is a {type(frame).__name__} without names; store a DataFrame whose columns name the targets."
        raise TypeError(msg)
    return frame


def _missing(missing: list[str], there: list[str], where: str) -> str:
    """Which targets are missing, and which are spelled almost like them."""
    known = {name.lower(): name for name in there}
    hints = []
    for name in missing[:5]:
        close = difflib.get_close_matches(name.lower(), known, n=3)
        hints.append(f"{name!r} (close: {', '.join(known[match] for match in close)})" if close else repr(name))
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return f"{len(missing)} targets are not in {where} ({len(there)} names): {', '.join(hints)}{more}."


def measured_truth(
    adata: AnnData, targets: list[str], *, layer: str | None, obsm: str | None, log_normalized: bool
) -> pd.DataFrame:
    """Measured values of the targets, whose names are those of the predictions."""
    there = adata.var_names if obsm is None else frame_of(adata, obsm).columns
    where = "adata.var_names" if obsm is None else f"obsm[{obsm!r}]"
    place = places_of(targets, there, where)
    missing = [target for target in targets if target not in place]
    if missing:
        msg = f"{len(missing)} of {len(targets)} predicted targets are not in {where}: {missing[:5]}."
        raise KeyError(msg)
    columns = [place[target] for target in targets]
    if obsm is not None:
        return frame_of(adata, obsm).iloc[:, columns].set_axis(targets, axis=1)
    # normalized over all genes first: the depth of a spot is not that of its targets
    values = expression(adata, layer=layer, log_normalized=log_normalized)[:, columns]
    values = values if isinstance(values, np.ndarray) else values.toarray()
    return pd.DataFrame(values, index=adata.obs_names, columns=targets)
