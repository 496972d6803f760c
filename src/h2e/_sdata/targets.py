"""Targets that are named: genes, or columns of ``.obsm`` or ``.obs``; checked, and measured."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real

import numpy as np
import pandas as pd
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.expression import FEATURE_TYPES, OTHER_FEATURES, expression, gene_names, gene_values, is_marked
from h2e._statistics import Matrix, is_sparse
from h2e._warnings import refuse, refuse_if, warn

AS_IN_OBS = "as in obs"
"""Unit of targets that are columns of ``.obs``."""

GENES = "adata.var_names"
"""Where genes are named."""


def resolve_targets(
    adata: AnnData, targets: Sequence[str] | None = None, *, obsm: str | None = None, obs: bool = False
) -> list[str]:
    """The targets that are meant, as the table names them: genes, or columns of ``.obsm`` or, with ``obs``, of ``.obs``.

    Checked, in the order asked. ``targets=None`` means the genes that ``var["h2e_target"]`` marks, or all columns of
    the ``.obsm`` frame. A name may also be that of a column of predictions, where ``/`` is ``_``.
    """
    known, source = _known(adata, obsm, obs=obs)
    if targets is None and obsm is None:
        if _keys.TARGET not in adata.var:
            msg = f"no targets: adata.var[{_keys.TARGET!r}] is not there; run h2e.pp.select_targets, or pass targets=."
            raise KeyError(msg)
        targets = known[known.isin(adata.var_names[adata.var[_keys.TARGET]])]
    names = as_list(known if targets is None else targets)
    refuse_if(not names, f"targets must name at least one of {source}, got none.")
    refuse_duplicates(names, "targets")
    others = adata.var_names.difference(known) if source == GENES else ()
    if other := [name for name in names if name in others]:
        kind = str(adata.var.loc[other[0], FEATURE_TYPES])
        msg = f"targets must be genes, got {other[:5]}, which are {kind!r} by var['{FEATURE_TYPES}']. {OTHER_FEATURES}"
        raise ValueError(msg)
    # A column of predictions stands for the one name that it was made from.
    stored, asked = pd.Index([stored_name(name) for name in known]), [stored_name(name) for name in names]
    if missing := [name for name, column in zip(names, asked, strict=True) if column not in stored]:
        raise KeyError(_missing(missing, list(known), source))
    at = stored.get_indexer_for(asked)
    refuse_duplicates(stored[at], source)
    return known[at].tolist()


def as_list(targets: Iterable[object] | str) -> list[str]:
    """The names of targets, of which one may be given alone."""
    if isinstance(targets, str):
        return [targets]
    names = list(targets) if isinstance(targets, Iterable) else [targets]
    if any(name is None or isinstance(name, Real | np.bool_) for name in names):
        refuse(f"targets must be names, got {names[:3]}; of a mask pass adata.var_names[mask].", TypeError)
    return [str(name) for name in names]


def refuse_predictions(adata: AnnData, names: Sequence[str] | None) -> None:
    """Refuse what h2e predicted as a measurement: frames in ``obsm`` and columns of ``obs`` beside them."""
    for name in names or ():
        about = adata.uns.get(_keys.base_of(name.removesuffix(_keys.novelty(""))))
        if isinstance(about, Mapping) and "training_slides" in about and name not in adata.var_names:
            refuse(f"targets must be measured, and {name!r} was predicted by h2e; name what was measured.")


def are_in_obs(adata: AnnData, targets: Sequence[str] | str | None) -> bool:
    """Whether named targets are columns of ``.obs``; a name that a gene has, too, or some of each are refused."""
    asked = [] if targets is None else [stored_name(name) for name in as_list(targets)]
    columns, genes = (targets_there(adata, asked, obs=obs) for obs in (True, False))
    if columns and genes:
        msg = f"targets must be genes or columns of adata.obs, got genes {genes[:5]} and columns {columns[:5]}; train "
        refuse(msg + "an ensemble of each, and rename columns that are called like genes.")
    return bool(columns)


def measured(
    adata: AnnData,
    targets: Sequence[str] | None = None,
    *,
    obsm: str | None = None,
    obs: bool | None = None,
    layer: str | None = None,
    log_normalized: bool = False,
    allow_missing: bool = False,
    genes: Matrix | None = None,
) -> pd.DataFrame:
    """Measured values of the targets, ``float32``, spots × targets: log-normalized expression or columns.

    Columns are named as those of predictions are. Those of ``.obsm`` and ``.obs`` may be NaN at some spots only where
    ``allow_missing``. ``obs=None``: the names tell whether they are columns of ``.obs``. ``genes`` is the expression of
    all genes where it is known already.
    """
    obs = obsm is None and (are_in_obs(adata, targets) if obs is None else obs)
    names = resolve_targets(adata, targets, obsm=obsm, obs=obs)
    columns = storable_names(names if targets is None else as_list(targets))
    known, source = _known(adata, obsm, obs=obs)
    at = known.get_indexer_for(names)
    if source == GENES:
        # Normalized over all genes: the depth of a spot is not that of its targets.
        x = expression(adata, at, layer=layer, log_normalized=log_normalized) if genes is None else genes[:, at]
        values = x.toarray() if is_sparse(x) else x
    else:
        frame = adata.obs if obsm is None else frame_of(adata, obsm)
        values = np.column_stack([_numbers(frame.iloc[:, column], source) for column in at])
        if not allow_missing and (bad := int((~np.isfinite(values)).any(axis=1).sum())):
            refuse(f"{source} holds NaN or infinite values in {bad} of {adata.n_obs} spots; fill or drop them.")
    return pd.DataFrame(values.astype(np.float32), index=adata.obs_names, columns=columns)


def counts_of(
    adata: AnnData, targets: Sequence[str], *, layer: str | None = None, log_normalized: bool = False
) -> tuple[np.ndarray, np.ndarray] | None:
    """Raw counts of genes, spots × targets, and of all genes, one a spot; ``None`` where values are log-normalized."""
    counts, _ = gene_values(adata, layer)
    if log_normalized or (layer is None and is_marked(adata, counts)):
        return None
    of_targets = counts[:, gene_names(adata).get_indexer_for(resolve_targets(adata, targets))]
    of_targets = of_targets.toarray() if is_sparse(of_targets) else np.asarray(of_targets)
    return of_targets, np.asarray(counts.sum(axis=1)).ravel()


def storable_names(names: Sequence[str]) -> list[str]:
    """The names with ``/``, which cannot be stored as a column, replaced by ``_``."""
    if changed := [name for name in names if "/" in name]:
        warn(f"'/' cannot be stored in a column name; replaced by '_' in {changed}.")
    columns = [stored_name(name) for name in names]
    refuse_duplicates(columns, "targets ('/' counts as '_')")
    return columns


def stored_name(name: object) -> str:
    """A target's name as a column of predictions has it."""
    return str(name).replace("/", "_")


def targets_there(adata: AnnData, targets: Sequence[str], *, obsm: str | None = None, obs: bool = False) -> list[str]:
    """Those of the columns of predictions that the table has measured values of."""
    stored = {stored_name(name) for name in _known(adata, obsm, obs=obs)[0]}
    return [target for target in targets if target in stored]


def refuse_duplicates(names: Sequence[str] | np.ndarray | pd.Index, source: str) -> None:
    """Refuse names that occur twice."""
    unique, counts = np.unique(names, return_counts=True)
    twice = unique[counts > 1].tolist()
    refuse_if(twice, f"{source}: {len(twice)} names occur more than once, such as {twice[:5]}; make them unique.")


def frame_of(adata: AnnData, key: str, *, otherwise: str = "") -> pd.DataFrame:
    """A DataFrame in ``.obsm``; ``otherwise`` says what to do where it is not there."""
    refuse_if(key not in adata.obsm, f"{key!r} is not in adata.obsm; it has {list(adata.obsm)}.{otherwise}", KeyError)
    frame = adata.obsm[key]
    if not isinstance(frame, pd.DataFrame):
        msg = f"adata.obsm[{key!r}] is a {type(frame).__name__} without names; store a DataFrame with named columns."
        raise TypeError(msg)
    return frame


def _known(adata: AnnData, obsm: str | None, *, obs: bool) -> tuple[pd.Index, str]:
    """Names of everything that may be a target, and what to call the place that they are in."""
    if obsm is not None:
        return frame_of(adata, obsm).columns.astype(str), f"adata.obsm[{obsm!r}]"
    return (adata.obs.columns.astype(str), "adata.obs") if obs else (gene_names(adata), GENES)


def _numbers(column: pd.Series, source: str) -> np.ndarray:
    """The numbers of a column, ``float32``, yes and no as 1 and 0; categories and text are refused by its name."""
    column = column.infer_objects()
    if not pd.api.types.is_numeric_dtype(column):
        example = next(iter(column.dropna()), None)
        msg = f"column {column.name!r} of {source} must hold numbers to be a target, got {column.dtype} (such as "
        msg += f"{example!r}); make a column of 0 and 1 for each class, as pandas.get_dummies does, or name others."
        raise ValueError(msg)
    return column.to_numpy(dtype=np.float32, na_value=np.nan)


def _missing(missing: list[str], names: list[str], source: str) -> str:
    """Which targets are missing, and which are spelled almost like them."""
    known = {name.lower(): name for name in names}
    close = {name: [known[like] for like in difflib.get_close_matches(name.lower(), known)] for name in missing[:5]}
    hints = [f"{name!r} (close: {', '.join(likes)})" if likes else repr(name) for name, likes in close.items()]
    hints += ["…"] if len(missing) > 5 else []
    also = ", nor are they columns of adata.obs" if source == GENES else ""
    return f"{len(missing)} targets are not in {source} ({len(names)} names): {', '.join(hints)}{also}."
