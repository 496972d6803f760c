"""What leaves h2e with an ensemble: its card, and a model for LazySlide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from h2e._ensemble.fold_models import names_of
from h2e._learners.embedding import AS_IT_IS
from h2e._learners.known_encoders import list_encoders
from h2e._learners.nearest import NearestModel
from h2e._learners.registry import to_json
from h2e._statistics import is_sparse
from h2e._warnings import refuse_if

TEMPLATE = Path(__file__).with_name("card.md")

HELD = "measured targets, held-out predictions, names and places of all training spots, and thumbnails of their "
HELD += "images; `save(folder, private=True)` leaves these out, and training slides are not recognized any more"
NO_SCORES = "None were given: pass `scores`, what `h2e.tl.evaluate` returns."


@dataclass(frozen=True)
class LazySlideModel:
    """What ``lazyslide.tl.feature_prediction`` takes as ``model`` (``FeaturePredictionModelProtocol``)."""

    model: Any  # the ensemble
    tile_um: float  # side of the tiles that it wants features of
    features_model_name: str | None  # the encoder in LazySlide's registry; else feature_key must be passed
    name: str = "h2e"

    def get_transform(self) -> None:
        """Nothing is done with images."""

    def to(self, device: Any) -> LazySlideModel:
        """Heads stay on the processor."""
        return self

    def try_compile(self, **compile_kws: Any) -> None:
        """There is nothing to compile."""

    def predict(self, features: Any, coords: Any = None, *_: Any, **__: Any) -> dict[str, np.ndarray]:
        """For each target the predictions, (tiles,)."""
        x = np.asarray(features.toarray() if is_sparse(features) else features, np.float32)
        return dict(zip(self.model.targets, self.model.predict({self.model.learners[0].label: x})[0].T, strict=True))


class Exports:
    """Methods of an ensemble that others read."""

    def card(self, scores: pd.DataFrame | None = None) -> str:
        """Describe the ensemble: training data, encoders and their licences, scores, intended use, limits.

        Parameters
        ----------
        scores
            What :func:`h2e.tl.evaluate` returned of the same data.

        Returns
        -------
        Markdown, which :meth:`save` writes as ``README.md``. It says what of the training data such a folder holds.

        Examples
        --------
        >>> import h2e
        >>> sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
        >>> ensemble = h2e.tl.fit(sdata, learners="mean", group_key="donor", progress=False)
        >>> ensemble.card().splitlines()[0]
        '# An ensemble of h2e'
        """
        return card_of(self, scores)

    def to_lazyslide(self) -> LazySlideModel:
        """Make a model for ``lazyslide.tl.feature_prediction``, which then predicts a whole-slide file.

        Its ``tile_um`` is the side of the tiles that it wants, whose features must be of the same encoder:
        ``zs.pp.tile_tissues(wsi, 224, mpp=model.tile_um / 224)``.

        Returns
        -------
        An object that fulfils LazySlide's ``FeaturePredictionModelProtocol``.

        Raises
        ------
        ValueError
            There are other learners than one :class:`h2e.tl.Embedding` with one view (``tile=0, surroundings=0``) on
            images that are not normalized.
        """
        facts = record_of(self, self.learners[0]) if len(self.learners) == 1 else {}  # type: ignore[attr-defined]
        msg = "LazySlide has features of one tile of an image as it is, so the ensemble must have one Embedding with "
        msg += "one view, such as Embedding('lazyslide:uni2', tile=0, surroundings=0), on images not normalized, got "
        refuse_if(len(facts.get("views_um", ())) != 1 or facts.get("image", AS_IT_IS) != AS_IT_IS, f"{msg}{self}.")
        kind, _, name = facts["encoder"].partition(":")
        return LazySlideModel(self, float(facts["views_um"][0]), name if kind == "lazyslide" else None)


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
