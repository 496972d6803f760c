"""Slides that were read one by one as one SpatialData: each under its own name, with what is on record about it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import pandas as pd
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.expression import is_marked
from h2e._sdata.provenance import check_storable, get_provenance
from h2e._sdata.report import store_report, stored_report
from h2e._sdata.table import check_sdata, get_table, labels_of, region_keys
from h2e._sdata.table_slides import slide_from_table
from h2e._warnings import warn

if TYPE_CHECKING:
    from spatialdata import SpatialData

ELEMENT = ("image", "tissue_mask_key")
"""Facts on record that name an element."""

BINS = re.compile(r"_square_\d+um$")
"""Behind the name of a slide in that of its bins, as the reader of Visium HD calls them: it tells their size."""


@dataclass(frozen=True)
class Names:
    """New names of a slide's elements and coordinate systems; names that h2e derives from others stay derived."""

    slide: str
    # Beginnings of names that the name of the slide takes the place of.
    starts: tuple[str, ...]
    elements: frozenset[str]
    table_key: str

    def __call__(self, old: str) -> str:
        """The new name of something, also of what is on record and not there."""
        if old == self.table_key:
            return old
        for start in self.starts:
            if old == start or old.startswith(f"{start}_"):
                return self.slide + old[len(start) :]
        return f"{self.slide}_{old}"


def join(slides: Mapping[str, SpatialData | AnnData], table_key: str) -> SpatialData:
    """One SpatialData of all slides; what they were made of is not changed, and pixels are not read."""
    from spatialdata import SpatialData, concatenate

    parts, reports = [], []
    tables: dict[str, AnnData] = {}
    taken = {table_key.lower(): (table_key, table_key)}
    for slide, given in slides.items():
        try:
            check_storable(str(slide), "the name of a slide")
            sdata = slide_from_table(slide, given, table_key) if isinstance(given, AnnData) else given
            names = _names(slide, sdata, table_key)
            for old in names.elements:
                if (other := taken.setdefault(names(old).lower(), (slide, old))) != (slide, old):
                    msg = f"its element {old!r} would be {names(old)!r}, as is {other[1]!r} of {other[0]!r} (upper and "
                    msg += "lower case are one); give the slide another name."
                    raise ValueError(msg)
            elements = {table_key: None} | {names(key): _renamed(one, names) for _, key, one in sdata.gen_elements()}
        except (KeyError, TypeError, ValueError) as error:
            msg = f"slide {slide!r}: {error.args[0]}"
            raise type(error)(msg) from error
        attrs, table = _renamed_records(sdata.attrs, names), elements.pop(table_key)
        tables |= {} if table is None else {slide: table}
        for slot in (attrs, {} if table is None else table.uns):
            if (report := stored_report(slot)) is not None:
                reports.append(report.rename(index={old: names(old) for old in names.elements}))
                del slot[_keys.PREDICTION][_keys.REPORT]
        parts.append(SpatialData.init_from_elements(elements, attrs=attrs))
    joined = concatenate(parts, attrs_merge="unique")
    if tables:
        joined.tables[table_key] = _join_tables(tables, joined)
    _store_reports(joined, reports, table_key)
    return joined


def _names(slide: str, sdata: SpatialData, table_key: str) -> Names:
    """The new names of a slide; refuses what cannot be joined."""
    check_sdata(sdata)
    if not sdata.images:
        msg = "it must have an image, sdata.images is empty."
        raise ValueError(msg)
    elements, starts = frozenset(key for _, key, _ in sdata.gen_elements()) - {table_key}, [slide]
    if sdata.tables:
        table = get_table(sdata, table_key)
        regions = set(labels_of(table, region_keys(table)[0]))
        # A grid is called after its image, so that another one takes its place.
        if len(regions) == 1 and not regions & set(get_provenance(table, _keys.PARAMS)):
            starts = [*(BINS.sub("", region) for region in regions), slide]
    return Names(slide, tuple(starts), elements, table_key)


def _renamed(element: Any, names: Names) -> Any:
    """A table about the renamed slide; or an element with the same data, in coordinate systems of other names."""
    from spatialdata.transformations import get_transformation, set_transformation

    if isinstance(element, AnnData):
        return _renamed_table(element, names)
    placed = get_transformation(element, get_all=True)
    # Frames of dask, of points, know no other copy.
    copied = element.copy() if hasattr(element, "npartitions") else element.copy(deep=False)
    set_transformation(copied, {names(old): to for old, to in placed.items()}, set_all=True)
    return copied


def _renamed_table(table: AnnData, names: Names) -> AnnData:
    """A table about the renamed elements of a slide, with its own names of rows; matrices are shared."""
    from anndata.utils import make_index_unique

    table = table.to_memory() if table.isbacked else table
    obs, uns = table.obs.copy(), _renamed_records(table.uns, names)
    if not obs.index.str.startswith(f"{names.slide}_").all():
        obs.index = f"{names.slide}_" + obs.index
    obs.index = make_index_unique(obs.index)
    if "spatialdata_attrs" in uns:
        key = region_keys(table)[0]
        regions = labels_of(table, key)
        obs[key] = pd.Categorical([names(old) for old in regions])
        uns["spatialdata_attrs"] = {**uns["spatialdata_attrs"], "region": list(obs[key].cat.categories)}
        if "spatial" in uns:
            one = len(uns["spatial"]) == len(set(regions)) == 1
            uns["spatial"] = {names(regions[0] if one else old): facts for old, facts in uns["spatial"].items()}
    obsm = {k: one.set_axis(obs.index) if isinstance(one, pd.DataFrame) else one for k, one in table.obsm.items()}
    layers = {key: layer for key, layer in table.layers.items() if key is not None}
    return AnnData(table.X, obs, table.var.copy(), uns=uns, obsm=obsm, layers=layers, obsp=dict(table.obsp))


def _renamed_records(slot: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """``uns`` or ``attrs`` of a slide; h2e's records are of its elements only, under their new names."""
    records: Any = slot.get(_keys.PREDICTION)
    if not isinstance(records, Mapping):
        return dict(slot)
    out = dict(records)
    for kind in {_keys.STAINS, _keys.TISSUE, _keys.REALIGN, _keys.PARAMS} & set(records):
        out[kind] = {}
        for key, facts in records[kind].items():
            plain = facts if isinstance(facts, Mapping) else {}
            about = key if kind == _keys.REALIGN else plain.get("image")
            if about in names.elements:
                others = {of: names(old) for of, old in plain.items() if of in ELEMENT and old in names.elements}
                out[kind][names(key)] = {**facts, **others}
            elif about is None:
                out[kind][key] = facts
    return {**slot, _keys.PREDICTION: out}


def _join_tables(tables: Mapping[str, AnnData], sdata: SpatialData) -> AnnData:
    """The table over all slides, by name, with what they have in common; what is left out is told."""
    import anndata as ad
    from spatialdata.models import TableModel

    region_key, instance_key = _unify_keys(tables, sdata)
    every = _with_common_genes(tables)
    left_out = [f"{slot}[{key!r}]" for slot in ("layers", "obsm", "obsp") for key in _drop_partial(every, slot)]
    joined = ad.concat(every, join="outer", merge="unique", uns_merge="unique", pairwise=True)
    left_out += [f"var[{key!r}]" for key in {key for table in every for key in table.var} if key not in joined.var]
    for key in _mixed_predictions(every, joined.uns):
        for name in {key, *(beside(key) for beside in _keys.BESIDE)} & set(joined.obsm):
            left_out.append(f"obsm[{name!r}]")
            del joined.obsm[name]
    if left_out:
        warn(f"what some slides lack, or have otherwise, is left out: {', '.join(left_out)}.")
    joined.obs_names_make_unique()
    regions = joined.obs[region_key].cat.categories.tolist()
    joined.uns.pop("spatialdata_attrs", None)
    return TableModel.parse(joined, region=regions, region_key=region_key, instance_key=instance_key)


def _mixed_predictions(tables: Sequence[AnnData], kept: Mapping[str, Any]) -> set[str]:
    """Keys of predictions of several ensembles, whose unit or training slides have no common value to keep."""
    every = [(key, about) for table in tables for key, about in table.uns.items() if isinstance(about, Mapping)]
    made = [(key, {"unit", "training_slides"} & set(about)) for key, about in every if "training_slides" in about]
    return {key for key, facts in made if not facts <= set(kept.get(key, {}))}


def _unify_keys(tables: Mapping[str, AnnData], sdata: SpatialData) -> tuple[str, str]:
    """Call regions and instances as on the first slide; instances become strings, in ``sdata``, too, if any are."""
    wanted = region_keys(next(iter(tables.values())))
    for name, table in tables.items():
        renamed = {old: new for old, new in zip(region_keys(table), wanted, strict=True) if old != new}
        if taken := sorted(set(renamed.values()) & set(table.obs)):
            msg = (
                f"slide {name!r}: {taken} must be free for the region and the instance key of the first slide, but are "
            )
            msg += "other columns of obs; rename them."
            raise ValueError(msg)
        table.obs = table.obs.rename(columns=renamed)
    if len({pd.api.types.is_integer_dtype(table.obs[wanted[1]]) for table in tables.values()}) > 1:
        for table in tables.values():
            table.obs[wanted[1]] = table.obs[wanted[1]].astype(str).astype(object)
            for region in set(table.obs[wanted[0]]) & set(sdata.shapes):
                sdata.shapes[region].index = sdata.shapes[region].index.astype(str)
    return wanted


def _with_common_genes(tables: Mapping[str, AnnData]) -> list[AnnData]:
    """The tables with the genes that all have, in the order of the first; those that are left out are told."""
    every = list(tables.values())
    kinds = {name: "nothing" if t.X is None else "logarithms" * is_marked(t, t.X) for name, t in tables.items()}
    common = reduce(partial(pd.Index.intersection, sort=False), (table.var_names for table in every))
    alike = all(table.var_names.equals(every[0].var_names) for table in every)
    unique = all(table.var_names.is_unique for table in every)
    if len(set(kinds.values())) > 1 or not (alike or (unique and len(common))):
        held = {name: f"{kinds[name] or 'amounts'} of {list(table.var_names[:3])}" for name, table in tables.items()}
        msg = f"slides must have genes in common, each once, and one kind of values in X, got {held}. Name genes "
        msg += "alike, call var_names_make_unique(), or keep slides of another kind apart, in another table."
        raise ValueError(msg)
    if alike:
        return every
    left = {name: table.var_names.difference(common) for name, table in tables.items()}
    said = (f"{len(genes)} of {name!r} ({', '.join(genes[:3])} …)" for name, genes in left.items() if len(genes))
    warn(f"only the {len(common)} genes that all slides have are kept, without {', '.join(said)}.")
    return [table[:, common].copy() for table in every]


def _drop_partial(tables: Sequence[AnnData], slot: str) -> list[str]:
    """Drop what not every slide has, since gaps would be taken for values; frames are filled with NaN instead."""
    dropped = []
    for key in dict.fromkeys(key for table in tables for key in getattr(table, slot)):
        some = [getattr(table, slot)[key] for table in tables if key in getattr(table, slot)]
        frames = [isinstance(one, pd.DataFrame) for one in some]
        widths = {one.shape[1] for one in some if slot == "obsm"}
        if not all(frames) and (any(frames) or len(some) < len(tables) or len(widths) > 1):
            dropped.append(key)
            for table in tables:
                getattr(table, slot).pop(key, None)
    return dropped


def _store_reports(joined: SpatialData, reports: Sequence[pd.DataFrame], table_key: str) -> None:
    """Keep what was reported of the slides that are here: parts of a whole have the report of the whole."""
    columns = [
        table.obs[key] for table in joined.tables.values() for key in table.obs.select_dtypes(["object", "category"])
    ]
    here = {key for _, key, _ in joined.gen_elements()}.union(*columns)
    report = pd.concat([pd.DataFrame(), *reports])
    if len(report := report[report.index.isin(here) & ~report.index.duplicated()]):
        store_report(joined, report, table_key)
