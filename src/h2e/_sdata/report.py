"""What the preparation found and did on each slide, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from h2e._sdata import keys as _keys
from h2e._sdata.provenance import get_provenance, replace_provenance
from h2e._slide.slide import Slide

if TYPE_CHECKING:
    from spatialdata import SpatialData


def report_of(sdata: SpatialData, slides: Sequence[Slide], placements: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row for each slide with spots and then each image without.

    The slides know their tissue; ``placements`` says how far the spots of each region were from their best place.
    """
    rows = {}
    for slide in slides:
        n_valid = int(slide.valid_spots().sum())
        spots: dict[str, Any] = {"spots": len(slide), "spots_invalid": len(slide) - n_valid, "spots_kept": n_valid}
        facts = placements.get(
            slide.region or "", {"shift": np.nan, "moved": False, "reason": "no spots", "orientation": ""}
        )
        spots |= {"shift": float(facts["shift"]), "moved": bool(facts["moved"]), "placement": str(facts["reason"])}
        spots["orientation"] = str(facts.get("orientation", ""))
        rows[slide.name] = _tissue(slide) | spots | _stains(sdata, slide.image.key)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("slide")


def store_report(sdata: SpatialData, report: pd.DataFrame, table_key: str) -> None:
    """Keep a report with the table or, without one, in ``sdata.attrs``, as what JSON can hold."""
    if table_key in sdata.tables:
        replace_provenance(sdata[table_key], _keys.REPORT, report)
        return
    plain = report.astype(object).where(report.notna(), None).reset_index().to_dict("list")
    replace_provenance(sdata, _keys.REPORT, plain)


def stored_report(slot: Mapping[str, Any]) -> pd.DataFrame | None:
    """The report that ``uns`` of a table or ``attrs`` of a SpatialData holds."""
    records = slot.get(_keys.PREDICTION, {})
    stored = records.get(_keys.REPORT) if isinstance(records, Mapping) else None
    if stored is None or isinstance(stored, pd.DataFrame):
        return stored
    # JSON has null where numbers are NaN.
    numbers = dict.fromkeys(("um_per_px", "tissue_mm2", "shift"), float)
    return pd.DataFrame(stored).set_index("slide").astype(numbers)


def _tissue(slide: Slide) -> dict[str, float | str]:
    """How much tissue there is; without the size of a pixel only its share of the image."""
    mask, scale = slide.require_tissue()
    um_per_px = np.nan if slide.um_per_px is None else float(slide.um_per_px)
    area_mm2 = float(mask.sum() * (scale * um_per_px / 1000) ** 2)
    return {
        "um_per_px": um_per_px,
        "um_per_px_from": slide.um_per_px_from,
        "tissue_mm2": area_mm2,
        "tissue_share": float(mask.mean()),
    }


def _stains(sdata: SpatialData, image_key: str) -> dict[str, str]:
    """The stains of a slide before normalization, as directions in the optical density of red, green and blue."""
    before = get_provenance(sdata, _keys.STAINS)[_keys.normalized(image_key)]["slide"] or {}
    vectors = (" ".join(f"{v:.2f}" for v in vector) for vector in before.get("stains", [[], []]))
    return dict(zip(("hematoxylin", "eosin"), vectors, strict=True))
