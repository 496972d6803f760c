"""What the preparation found and did on each slide, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from h2e._sdata import keys as _keys
from h2e._sdata.expression import has_expression
from h2e._sdata.provenance import get_provenance, replace_provenance
from h2e._slide.image import same_image, thumbnail
from h2e._slide.quality import TOLERANCES, Quality, odd_ones, unlike_he
from h2e._slide.slide import Slide, by_image
from h2e._warnings import log

if TYPE_CHECKING:
    from spatialdata import SpatialData

ALL_ON_TISSUE = 0.8
"""A smaller share of spots on tissue is odd by itself: spots beside it are left out of tables, or 0 in ``in_tissue``."""


def report_of(
    sdata: SpatialData,
    slides: Sequence[Slide],
    placements: Mapping[str, Mapping[str, Any]],
    quality: Mapping[str, Quality],
    unranked: Sequence[str] = (),
) -> pd.DataFrame:
    """A row for each slide with spots and then each image without.

    The slides know their tissue; ``placements`` says how far the spots of each region were from their best place,
    ``quality`` of each slide the figures of its image; slides that are ``unranked`` have no expression.
    """
    rows, said, colours = {}, {}, {key: thumbnail(slide.image) for key, slide in by_image(slides).items()}
    for slide in slides:
        facts = placements.get(slide.region or "", {"shift": np.nan, "moved": False, "reason": "no spots"})
        n_valid, figures = int(slide.valid_spots().sum()), dict.fromkeys(TOLERANCES, np.nan)
        row = _tissue(slide) | {"spots": len(slide), "spots_invalid": len(slide) - n_valid, "spots_kept": n_valid}
        row |= {"shift": float(facts["shift"]), "moved": bool(facts["moved"]), "placement": str(facts["reason"])}
        row |= {"orientation": str(facts.get("orientation", ""))} | figures | quality[slide.name].known()
        if slide.in_tissue.any():
            row["on_tissue"] = n_valid / int(slide.in_tissue.sum())
        row["looks_like"] = _alike(slide, slides, colours)
        rows[slide.name] = row | _squidpy(sdata, slide.image.key) | _stains(sdata, slide.image.key)
        unknown = "ranks skipped: no expression" if slide.name in unranked else ""
        misplaced = facts["reason"] if facts.get("misplaced") and not facts["moved"] else ""
        said[slide.name] = [unknown, misplaced, unlike_he(quality[slide.name])]
    report = pd.DataFrame.from_dict(rows, orient="index").rename_axis("slide")
    odd = odd_figures(report)
    for name, row in rows.items():
        share, alike = row["on_tissue"], row["looks_like"]
        said[name] += ["no tissue was found" if row["tissue_share"] == 0 else ""]
        said[name] += [f"{1 - share:.0%} of its spots are on no tissue" if share < ALL_ON_TISSUE else ""]
        unlike = odd.columns[odd.loc[name]]
        said[name] += [f"{key} is {row[key]:.3g}, of all slides {report[key].median():.3g}" for key in unlike]
        said[name] += [f"looks like {alike}" if alike else ""]
    return report.assign(warnings=["; ".join(filter(None, words)) for words in said.values()])


def odd_figures(report: pd.DataFrame) -> pd.DataFrame:
    """Which figures of which slides lie far from those of the others, ``bool``."""
    figures = report.reindex(columns=list(TOLERANCES)).astype(float)
    return figures.apply(lambda column: odd_ones(column.to_numpy(), TOLERANCES[str(column.name)]))


def store_report(sdata: SpatialData, report: pd.DataFrame, table_key: str) -> None:
    """Keep a report with the table or, without one, in ``sdata.attrs``, as what JSON can hold."""
    plain = report.astype(object).where(report.notna(), None).reset_index().to_dict("list")
    where, kept = (sdata[table_key], report) if table_key in sdata.tables else (sdata, plain)
    replace_provenance(where, _keys.REPORT, kept)


def stored_report(slot: Mapping[str, Any]) -> pd.DataFrame | None:
    """The report that ``uns`` of a table or ``attrs`` of a SpatialData holds."""
    records = slot.get(_keys.PREDICTION, {})
    stored = records.get(_keys.REPORT) if isinstance(records, Mapping) else None
    if stored is None or isinstance(stored, pd.DataFrame):
        return stored
    # JSON has null where numbers are NaN.
    report = pd.DataFrame(stored).set_index("slide")
    return report.astype(dict.fromkeys(report.columns[report.isna().any()], float))


def _tissue(slide: Slide) -> dict[str, Any]:
    """How much tissue there is; without the size of a pixel only its share of the image."""
    mask, scale = slide.require_tissue()
    um_per_px = np.nan if slide.um_per_px is None else float(slide.um_per_px)
    size = {"um_per_px": um_per_px, "um_per_px_from": slide.um_per_px_from}
    return size | {"tissue_mm2": mask.sum() * (scale * um_per_px / 1000) ** 2, "tissue_share": mask.mean()}


def _alike(slide: Slide, slides: Sequence[Slide], colours: Mapping[str, np.ndarray]) -> str:
    """The names of slides that show the same on another image; ``colours`` are the thumbnails of images."""
    mine = colours[slide.image.key]
    others = (one for one in slides if one.image.key != slide.image.key and slide.require_tissue()[0].any())
    return " ".join(one.name for one in others if same_image(mine, colours[one.image.key]))


def _squidpy(sdata: SpatialData, image_key: str) -> dict[str, float]:
    """What ``squidpy.experimental.im.qc_image`` says of the tiles on tissue: share flagged, median of its metrics."""
    table = sdata.tables.get(f"qc_img_{image_key}")
    if table is None or "qc_image" not in table.uns:
        return {}
    tiles = table[table.obs["is_tissue"].astype(str) == "True"] if "is_tissue" in table.obs else table
    found = tiles.to_df().median().to_dict()
    if "qc_outlier" in tiles.obs:
        found["qc_outliers"] = (tiles.obs["qc_outlier"].astype(str) == "True").mean()
    return found


def _stains(sdata: SpatialData, image_key: str) -> dict[str, str]:
    """The stains of a slide before normalization, as directions in the optical density of red, green and blue."""
    before = get_provenance(sdata, _keys.STAINS)[_keys.normalized(image_key)]["slide"] or {}
    vectors = (" ".join(f"{v:.2f}" for v in vector) for vector in before.get("stains", [[], []]))
    return dict(zip(("hematoxylin", "eosin"), vectors, strict=True))


def unranked_slides(table: AnnData, slides: Sequence[Slide], layer: str | None) -> list[str]:
    """Names of slides whose spots have no expression to rank."""
    ranks = table.layers[_keys.RANK] if has_expression(table, layer) else None
    names = [slide.name for slide in slides if ranks is None or not ranks[slide.rows].sum() > 0]
    if names:
        log.info("ranks skipped: no expression, on slides %s", names)
    return names
