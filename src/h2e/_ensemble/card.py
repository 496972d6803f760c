"""The card of an ensemble: what it was trained on, how well it does, and what of the data its folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from h2e._ensemble.fold_models import names_of
from h2e._learners.known_encoders import list_encoders
from h2e._learners.nearest import NearestModel
from h2e._learners.registry import to_json

TEMPLATE = Path(__file__).with_suffix(".md")

HELD = "measured targets, held-out predictions, names and places of all training spots, and thumbnails of their "
HELD += "images; `save(folder, private=True)` leaves these out, and training slides are not recognized any more"
NO_SCORES = "None were given: pass `scores`, what `h2e.tl.evaluate` returns."


def card_of(ensemble: Any, scores: pd.DataFrame | None) -> str:
    """The card as Markdown."""
    settings, skill, names = ensemble.settings, ensemble.held_out_skill(), names_of(ensemble.learners)
    slides = ensemble.training.groupby(["slide", "group"]).size().rename("spots").reset_index()
    sizes = settings.get("um_per_px", {})
    slides["µm/px"] = [sizes.get(slide, "not stored") for slide in slides["slide"]]
    if scores is not None:
        of_groups = scores.groupby(["method", "metric", "target", "group"], sort=False)["value"].mean()
        scores = of_groups.groupby(["method", "metric"], sort=False).mean().unstack().reset_index()
    learners = [_line(ensemble, *one) for one in zip(names, ensemble.learners, strict=True)]
    nearest = sorted({m.learner for m in ensemble.members if isinstance(m.model, NearestModel)})
    return TEMPLATE.read_text(encoding="utf-8").format(
        about=ensemble,
        slides=_table(slides),
        spacing_um=ensemble.spacing_um,
        learners="\n".join(learners),
        targets=", ".join(ensemble.targets),
        unit=settings.get("unit", "not stored"),
        weak=", ".join(skill.index[skill < 0]) or "none",
        scores=NO_SCORES if scores is None else _table(scores),
        n_novelty=0 if ensemble.novelty is None else len(ensemble.novelty.x),
        nearest=", ".join(nearest) or "none",
        held="nothing else: saved with `private=True`" if "private" in settings else HELD,
    )


def _table(frame: pd.DataFrame) -> str:
    """A frame as a table of Markdown."""
    rows = [list(frame), ["---"] * frame.shape[1], *frame.astype(object).to_numpy().tolist()]
    cells = ([f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def record_of(ensemble: Any, learner: Any) -> dict[str, Any]:
    """What its features are made by: views, encoder and kind of image; empty where that is not known."""
    if learner.uses == "obsm":
        return ensemble.settings.get("features", {}).get(learner.obsm, {})
    stains = None if ensemble.reference is None else ensemble.reference.to_dict()
    return learner.record(ensemble.spacing_um, stains) if hasattr(learner, "record") else {}


def _line(ensemble: Any, name: str, learner: Any) -> str:
    """A learner with its settings, what its features are made by, and the licence of its encoder."""
    record = record_of(ensemble, learner)
    licence = list_encoders()["licence"].dropna().get(record.get("encoder"), "see where the encoder is from")
    return f"- {name}: `{to_json(learner)}`" + (f"; features: `{record}`; licence: {licence}" if record else "")
