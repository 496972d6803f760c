"""What leaves h2e with an ensemble: its card, and a model for LazySlide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from h2e._ensemble.card import card_of, record_of
from h2e._learners.embedding import AS_IT_IS
from h2e._statistics import is_sparse
from h2e._warnings import refuse_if


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
