"""The ensemble: models that each left one group out, models of all groups, and the stack that combines the learners."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from h2e._ensemble import store as _store
from h2e._ensemble.conformal import half_widths
from h2e._ensemble.fold_models import ALL, FoldModel, averaged_members, names_of
from h2e._ensemble.novelty import Novelty
from h2e._ensemble.stack import PER_MODEL, Stack, restore_stack
from h2e._ensemble.transforms import Transform
from h2e._learners.registry import Learner, from_json, to_json
from h2e._stains.reference import StainReference
from h2e._statistics import center_by_slide

if TYPE_CHECKING:
    from os import PathLike

    from h2e._ensemble.mlp import MlpStack

log = logging.getLogger(__name__)

TRANSFORM = ("ranks", "values", "limits")
"""Arrays of a transform."""

HISTORY = {"learner": object, "held_out": object, "epoch": int, "loss": float, "seconds": float}
"""Columns of ``Ensemble.history``."""


@dataclass(frozen=True, eq=False)
class Ensemble:
    """What :func:`h2e.tl.fit` returns: everything that a prediction needs, and the held-out predictions.

    ``loo`` holds the held-out predictions of the training spots, indexed by region and instance: each the mean over
    the learners of models that did not see the spot's group. ``history`` is a tidy table of training losses.
    """

    targets: tuple[str, ...]
    learners: tuple[Learner, ...]
    members: tuple[FoldModel, ...]
    stack: Stack | MlpStack
    loo: pd.DataFrame
    held_out: np.ndarray  # (learners, training spots, targets), what loo is the mean of
    truth: np.ndarray  # (training spots, targets)
    calibration: (
        np.ndarray
    )  # (training spots, targets), held-out prediction of the stack minus truth; NaN if there is none
    novelty: Novelty | None
    training: pd.DataFrame  # per training spot: slide, group, and x, y as shares of the image's width and height
    thumbnails: Mapping[str, np.ndarray]  # by region, mean colours of parts of its image
    history: pd.DataFrame
    spacing_um: float
    reference: StainReference | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # plain numbers and strings

    def __repr__(self) -> str:
        groups = sorted(self.training["group"].unique())
        quarters = self.settings.get("left_out") == "quarter of the slide"
        learners = " + ".join(names_of(self.learners))
        return (
            f"Ensemble of {len(self.members)} models ({learners}; stack: {self.stack.kind}) for {len(self.targets)} targets, "
            f"trained on {len(self.training)} spots of {self.training['slide'].nunique()} slides, leaving out {'its quarters' if quarters else groups}"
        )

    def predict(self, x: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Prediction and spread (standard deviation over models and flips), both (n, targets), in the unit of the targets.

        :meta private:
        """
        inputs, every = [], []
        for name in names_of(self.learners):
            members = [member for member in self.members if member.learner == name]
            variants = [member.tta_predictions(x[name]) for member in members]
            means = {member.held_out: v.mean(axis=0) for member, v in zip(members, variants, strict=True)}
            every.extend(variants)
            if self.stack.kind in PER_MODEL:
                inputs.extend(mean for held_out, mean in means.items() if held_out != ALL)
            else:
                inputs.append(
                    np.mean([means[m.held_out] for m in averaged_members(members, name, self.n_groups)], axis=0)
                )
        return self.stack.combine(np.stack(inputs)), _spread(every)

    def predict_alone(self, x: Mapping[str, np.ndarray], name: str) -> np.ndarray:
        """What one learner says, (n, targets): the mean over its models that saw enough groups.

        :meta private:
        """
        return np.mean([m.predict(x[name]) for m in averaged_members(self.members, name, self.n_groups)], axis=0)

    @property
    def n_groups(self) -> int:
        """Groups that were trained on."""
        return self.training["group"].nunique()

    def half_width(self, level: float) -> np.ndarray | None:
        """Half width of the interval of each target that holds ``level`` of the held-out truths; ``None`` without folds.

        :meta private:
        """
        if not np.isfinite(self.calibration).all():
            return None
        return half_widths(self.calibration, self.training["group"].to_numpy(str), level=level)

    def error_correlation(self) -> pd.DataFrame:
        """How alike the held-out errors of the learners are: Pearson within slides, mean over slides and targets.

        Learners whose errors differ gain from being averaged; those whose errors agree do not.

        Returns
        -------
        A square DataFrame, learners × learners.

        Examples
        --------
        >>> import h2e
        >>> sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
        >>> options = {"targets": ["TOY01"], "group_key": "donor", "progress": False}
        >>> ensemble = h2e.tl.fit(sdata, learners=["texture", "mean"], **options)
        >>> ensemble.error_correlation().shape
        (2, 2)
        """
        slides = self.training["slide"].to_numpy()
        errors = center_by_slide(self.held_out - self.truth, slides)
        found = []
        for slide in np.unique(slides):
            e = errors[:, slides == slide]
            norm = np.sqrt((e**2).sum(axis=1))
            product = np.einsum("ant,bnt->abt", e, e) / np.maximum(norm[:, None] * norm[None], 1e-12)
            found.append(product.mean(axis=2))
        names = names_of(self.learners)
        return pd.DataFrame(np.mean(found, axis=0), index=names, columns=names)

    def save(self, folder: str | PathLike) -> None:
        """Write the ensemble to a new folder: ``ensemble.json`` and ``weights.safetensors``.

        Parameters
        ----------
        folder
            Must not exist, be empty, or hold an ensemble, which is replaced.

        Examples
        --------
        >>> import h2e, tempfile
        >>> sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
        >>> ensemble = h2e.tl.fit(sdata, learners="mean", group_key="donor", progress=False)
        >>> folder = tempfile.mkdtemp()
        >>> ensemble.save(folder)
        >>> h2e.Ensemble.load(folder).targets == ensemble.targets
        True
        """
        arrays = {"held_out": self.held_out, "truth": self.truth, "calibration": self.calibration}
        arrays |= {f"stack/{key}": value for key, value in self.stack.arrays().items()}
        if self.novelty is not None:
            arrays |= {f"novelty/{key}": value for key, value in self.novelty.arrays().items()}
        arrays |= {f"thumbnail/{region}": colours for region, colours in self.thumbnails.items()}
        for i, member in enumerate(self.members):
            parts = {key: getattr(member.transform, key) for key in TRANSFORM}
            parts |= {f"model/{key}": value for key, value in member.model.arrays().items()}
            arrays |= {f"{i}/{key}": value for key, value in parts.items()}
        about = {
            "targets": list(self.targets),
            "learners": [to_json(learner) for learner in self.learners],
            "members": [[m.learner, m.held_out, m.transform.kind] for m in self.members],
            "stack": self.stack.kind,
            "novelty": None if self.novelty is None else self.novelty.learner,
            "index": [[str(region), str(instance)] for region, instance in self.loo.index],
            "training": self.training.reset_index(drop=True).to_dict("list"),
            "history": self.history.to_dict("list"),
            "spacing_um": self.spacing_um,
            "reference": None if self.reference is None else self.reference.to_dict(),
            "settings": dict(self.settings),
        }
        _store.save(Path(folder), about, arrays)
        log.info("wrote ensemble to %s", folder)

    @classmethod
    def load(cls, folder: str | PathLike, *, encoders: Mapping[str, Any] | None = None) -> Ensemble:
        """Read an ensemble that :meth:`save` wrote; nothing is unpickled.

        Parameters
        ----------
        folder
            What :meth:`save` wrote.
        encoders
            The encoder of each learner that has one, by the learner's name: code is not stored.

        Returns
        -------
        The ensemble; on the same machine its predictions are those of the one that was saved.

        Raises
        ------
        FileNotFoundError
            There is no ensemble.
        ValueError
            A file is damaged, changed, or of a newer format.
        """
        about, arrays = _store.load(Path(folder))
        names = names_of([from_json(text) for text in about["learners"]])
        unknown = sorted(set(encoders or {}) - set(names))
        if unknown:
            msg = f"encoders {unknown} belong to no learner of the ensemble; it has {names}."
            raise ValueError(msg)
        pairs = zip(about["learners"], names, strict=True)
        learners = tuple(from_json(text, encoder=(encoders or {}).get(name)) for text, name in pairs)
        by_name = dict(zip(names_of(learners), learners, strict=True))
        members = []
        for i, (name, held_out, kind) in enumerate(about["members"]):
            transform = Transform(kind, **{key: arrays[f"{i}/{key}"] for key in TRANSFORM})
            members.append(FoldModel(name, held_out, by_name[name].restore(_under(f"{i}/model/", arrays)), transform))
        index = pd.MultiIndex.from_tuples([tuple(pair) for pair in about["index"]], names=["region", "instance"])
        return cls(
            targets=tuple(about["targets"]),
            learners=learners,
            members=tuple(members),
            stack=restore_stack(about["stack"], _under("stack/", arrays)),
            loo=pd.DataFrame(arrays["held_out"].mean(axis=0), index=index, columns=about["targets"]),
            held_out=arrays["held_out"],
            truth=arrays["truth"],
            calibration=arrays["calibration"],
            novelty=None if about["novelty"] is None else Novelty.restore(about["novelty"], _under("novelty/", arrays)),
            training=pd.DataFrame(about["training"], index=index),
            thumbnails=_under("thumbnail/", arrays),
            history=pd.DataFrame(about["history"]).astype(HISTORY),
            spacing_um=about["spacing_um"],
            reference=None if about["reference"] is None else StainReference.from_dict(about["reference"]),
            settings=about["settings"],
        )


def _spread(variants: Sequence[np.ndarray]) -> np.ndarray:
    """Standard deviation over models and over the flips of each, where every model counts the same."""
    within = np.mean([v.var(axis=0) for v in variants], axis=0)
    return np.sqrt(within + np.var([v.mean(axis=0) for v in variants], axis=0)).astype(np.float32)


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays whose names start with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
