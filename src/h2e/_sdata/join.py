"""Slides that were read one by one as one SpatialData: each under its own name, with what is on record about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import pandas as pd
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.expression import is_marked
from h2e._sdata.provenance import check_storable, get_provenance
from h2e._sdata.report import store_report, stored_report
from h2e._sdata.table import check_sdata, get_table, labels_of, region_keys, unused_keys
from h2e._sdata.table_slides import slide_from_table
from h2e._warnings import refuse, refuse_if, warn

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
    elements: tuple[str, ...]

    def __call__(self, old: str) -> str:
        """The new name of something, also of what is on record and not there."""
        for start in self.starts:
            if f"{old}_".startswith(f"{start}_"):
                return self.slide + old.removeprefix(start)
        return f"{self.slide}_{old}"


def join(slides: Mapping[str, SpatialData | AnnData], table_key: str) -> SpatialData:
    """One SpatialData of all slides; what they were made of is not changed, and pixels are not read."""
    from spatialdata import SpatialData, concatenate

    parts: list[SpatialData] = []
    tables: dict[str, AnnData] = {}
    reports: list[pd.DataFrame] = []
    taken = {table_key.lower()}
    for slide, given in slides.items():
        try:
            if not isinstance(slide, str) or slide.lower() == table_key.lower():
                msg = f"the name of a slide must be text, and not that of the table, {table_key!r}, got "
                refuse(msg + f"{slide!r}; give the slide another name.")
            check_storable(slide, "the name of a slide")
            sdata = slide_from_table(slide, given, table_key) if isinstance(given, AnnData) else given
            names = _names(slide, sdata, table_key)
            new = {names(old).lower() for old in names.elements}
            if new & taken or len(new) < len(names.elements):
                refuse(f"names of its elements, {sorted(new)}, must be new (upper and lower case are one); rename it.")
            taken |= new
            elements = {names(key): _renamed(sdata[key], names) for key in names.elements}
            parts.append(SpatialData.init_from_elements(elements, attrs=_renamed_records(sdata.attrs, names)))
            if table_key in sdata.tables:
                tables[slide] = _renamed_table(sdata[table_key], names)
            stored = map(stored_report, [*(table.uns for table in sdata.tables.values()), sdata.attrs])
            # A part of a whole has the report of the whole.
            here = (report[report.index.isin(names.elements)] for report in stored if report is not None)
            reports += [report.rename(index=names) for report in here]
        except (KeyError, TypeError, ValueError) as error:
            msg = f"slide {slide!r}: {error.args[0]}"
            # Errors of other packages may need more than a message.
            raise next(kind for kind in (KeyError, TypeError, ValueError) if isinstance(error, kind))(msg) from error
    joined = concatenate(parts, attrs_merge="unique")
    if tables:
        joined.tables[table_key] = _join_tables(tables, joined)
    if reports:
        report = pd.concat(reports)
        store_report(joined, report[~report.index.duplicated()], table_key)
    return joined


def _names(slide: str, sdata: SpatialData, table_key: str) -> Names:
    """The new names of a slide; refuses what cannot be joined."""
    check_sdata(sdata)
    refuse_if(not sdata.images, "it must have an image, sdata.images is empty.")
    starts = [slide]
    if sdata.tables:
        table = get_table(sdata, table_key)
        regions = set(labels_of(table, region_keys(table)[0]))
        # A grid is called after its image, so that another one takes its place.
        if len(regions) == 1 and not regions & set(get_provenance(table, _keys.PARAMS)):
            starts.insert(0, BINS.sub("", regions.pop()))
    return Names(slide, tuple(starts), tuple(key for _, key, _ in sdata.gen_elements() if key != table_key))


def _renamed(element: Any, names: Names) -> Any:
    """A table about the renamed slide; or an element with the same data, in coordinate systems of other names."""
    from spatialdata.transformations import get_transformation, set_transformation

    if isinstance(element, AnnData):
        return _renamed_table(element, names)
    renamed = copy(element)
    placed = get_transformation(element, get_all=True)
    set_transformation(renamed, {names(old): to for old, to in placed.items()}, set_all=True)
    return renamed


def _renamed_table(table: AnnData, names: Names) -> AnnData:
    """A table about the renamed elements of a slide, with its own names of rows."""
    table = table.to_memory() if table.isbacked else table.copy()
    del table.raw
    if not table.obs_names.str.startswith(f"{names.slide}_").all():
        table.obs_names = f"{names.slide}_" + table.obs_names
    table.uns = uns = _renamed_records(table.uns, names)
    if "spatialdata_attrs" in uns:
        key = region_keys(table)[0]
        regions = labels_of(table, key)
        table.obs[key] = pd.Categorical([names(old) for old in regions])
        uns["spatialdata_attrs"] = {**uns["spatialdata_attrs"], "region": list(table.obs[key].cat.categories)}
        if "spatial" in uns:
            one = len(uns["spatial"]) == len(set(regions)) == 1
            uns["spatial"] = {names(regions[0] if one else old): facts for old, facts in uns["spatial"].items()}
    return table


def _renamed_records(slot: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """``uns`` or ``attrs`` of a slide; h2e's records are of its elements only, under their new names."""
    records = slot.get(_keys.PREDICTION)
    if not isinstance(records, Mapping):
        return dict(slot)
    out = {kind: facts for kind, facts in records.items() if kind != _keys.REPORT}
    for kind in {_keys.STAINS, _keys.TISSUE, _keys.REALIGN, _keys.PARAMS} & set(records):
        # Columns and layers of the table keep their names.
        kept = records[kind] if kind == _keys.PARAMS else {}
        out[kind] = {key: facts for key, facts in kept.items() if key not in names.elements}
        for key in set(names.elements) & set(records[kind]):
            facts = dict(records[kind][key])
            if kind == _keys.STAINS:
                # Names of images before they were joined would tell nothing, or something wrong.
                facts["reference"] = {of: fact for of, fact in facts["reference"].items() if of != "images"}
            out[kind][names(key)] = {**facts, **{of: names(facts[of]) for of in ELEMENT if facts.get(of)}}
    return {**slot, _keys.PREDICTION: out}


def _join_tables(tables: Mapping[str, AnnData], sdata: SpatialData) -> AnnData:
    """The table over all slides, by name, with what they have in common; what is left out is told."""
    import anndata as ad
    from spatialdata.models import TableModel

    region_key, instance_key = _unify_keys(list(tables.values()), sdata)
    every = _with_common_genes(tables)
    left_out = [f"{slot}[{key!r}]" for slot in ("layers", "obsm", "obsp") for key in _drop_partial(every, slot)]
    joined = ad.concat(every, join="outer", merge="unique", uns_merge="unique", pairwise=True)
    left_out += [f"var[{key!r}]" for key in {key for table in every for key in table.var} if key not in joined.var]
    for name in list(joined.obsm):
        # What predictions of several ensembles tell of themselves has no common value.
        key = _keys.base_of(name)
        told = {fact for table in every for fact in table.uns.get(key, ())}
        if {"unit", "training_slides"} & told - set(joined.uns.get(key, ())):
            left_out.append(f"obsm[{name!r}]")
            del joined.obsm[name]
    if left_out:
        warn(f"what some slides lack, or have otherwise, is left out: {', '.join(left_out)}.")
    joined.obs_names_make_unique()
    regions = joined.obs[region_key].cat.categories.tolist()
    joined.uns.pop("spatialdata_attrs", None)
    return TableModel.parse(joined, region=regions, region_key=region_key, instance_key=instance_key)


def _unify_keys(tables: list[AnnData], sdata: SpatialData) -> tuple[str, str]:
    """Call regions and instances as on the first slide; instances become strings, in ``sdata``, too, if any are."""
    others = {column for table in tables for column in table.obs.columns.difference(region_keys(table))}
    region_key, instance_key = wanted = unused_keys(*region_keys(tables[0]), others)
    for table in tables:
        table.obs = table.obs.rename(columns=dict(zip(region_keys(table), wanted, strict=True)))
    if len({pd.api.types.is_integer_dtype(table.obs[instance_key]) for table in tables}) > 1:
        for table in tables:
            table.obs[instance_key] = table.obs[instance_key].astype(str).astype(object)
            for region in set(table.obs[region_key]) & set(sdata.shapes):
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
        refuse(msg + "alike, call var_names_make_unique(), or keep slides of another kind apart, in another table.")
    if alike:
        return every
    left = {name: table.var_names.difference(common) for name, table in tables.items()}
    said = (f"{len(genes)} of {name!r} ({', '.join(genes[:3])} …)" for name, genes in left.items() if len(genes))
    warn(f"only the {len(common)} genes that all slides have are kept, without {', '.join(said)}.")
    return [table[:, common].copy() for table in every]


def _drop_partial(tables: list[AnnData], slot: str) -> list[str]:
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
