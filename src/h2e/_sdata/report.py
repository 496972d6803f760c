"""What the preparation found and did on each slide, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from h2e._sdata import keys as _keys
from h2e._sdata.masks import find_mask
from h2e._sdata.provenance import get_provenance, replace_provenance

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from h2e._slide.slide import Slide


def report_of(
    sdata: SpatialData,
    slides: list[Slide],
    images: Mapping[str, float | None],
    placements: Mapping[str, Mapping[str, object]],
    fraction: np.ndarray | None,
) -> pd.DataFrame:
    """A row for each slide with spots and each image without.

    ``images`` gives µm per pixel, where known; ``placements`` what was found on the place of the spots of each region;
    ``fraction`` the share of tissue in the subtile of each row of the table.
    """
    rows = {}
    for slide in slides:
        invalid = 0 if fraction is None else int((fraction[slide.rows] == 0).sum())
        spots = {"spots": len(slide), "spots_invalid": invalid, "spots_kept": len(slide) - invalid}
        placement = _placement(placements[slide.region])
        rows[slide.name] = _tissue(sdata, slide.image.key, slide.um_per_px) | spots | placement
        rows[slide.name] |= _stains(sdata, slide.image.key)
    for key in sorted(set(images) - {slide.image.key for slide in slides}):
        spots = {"spots": 0, "spots_invalid": 0, "spots_kept": 0}
        none = {"shift": np.nan, "moved": False, "placement": "no spots"}
        rows[key] = _tissue(sdata, key, images[key]) | spots | none | _stains(sdata, key)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("slide")


def store_report(sdata: SpatialData, report: pd.DataFrame, table_key: str) -> None:
    """Keep a report with the table or, without one, in ``sdata.attrs``, as what JSON can hold."""
    if table_key in sdata.tables:
        replace_provenance(sdata[table_key], _keys.REPORT, report)
        return
    plain = report.astype(object).where(report.notna(), None).reset_index().to_dict("list")
    replace_provenance(sdata, _keys.REPORT, plain)


def _tissue(sdata: SpatialData, image_key: str, um_per_px: float | None) -> dict[str, float]:
    """How much tissue there is; without the size of a pixel only its share of the image."""
    mask, scale = find_mask(sdata, image_key)
    size = np.nan if um_per_px is None else scale * um_per_px / 1000
    return {
        "um_per_px": np.nan if um_per_px is None else float(um_per_px),
        "tissue_mm2": float(mask.sum() * size**2),
        "tissue_share": float(mask.mean()),
    }


def _placement(found: Mapping[str, object]) -> dict[str, object]:
    """How far from the best placement the spots were, in spacings, and whether they were moved there."""
    return {"shift": float(found["shift"]), "moved": bool(found["moved"]), "placement": str(found["reason"])}


def _stains(sdata: SpatialData, image_key: str) -> dict[str, str]:
    """The stains of a slide before normalization, as directions in the optical density of red, green and blue."""
    found = get_provenance(sdata, _keys.STAINS)[_keys.normalized(image_key)]["slide"]
    vectors = (found or {}).get("stains", [[], []])
    return {
        name: " ".join(f"{v:.2f}" for v in vector)
        for name, vector in zip(("hematoxylin", "eosin"), vectors, strict=True)
    }
