"""An ensemble as what is stored of it, a description and arrays, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from h2e._ensemble.fold_models import FoldModel, names_of
from h2e._ensemble.novelty import Novelty
from h2e._ensemble.scale_cue import ScaleCue
from h2e._ensemble.stack import restore_stack
from h2e._ensemble.transforms import Transform
from h2e._learners.encoders import MissingEncoder
from h2e._learners.learner import Learner
from h2e._learners.registry import from_json, to_json, with_settings
from h2e._stains.reference import StainReference

OwnLearners = Mapping[str, Callable[..., Learner]]
"""What makes the learners that a user wrote, by their names."""

TRANSFORM = ("ranks", "values", "limits")
"""Arrays of a transform."""

HISTORY = {"learner": object, "held_out": object, "epoch": int, "loss": float, "seconds": float}
"""Columns of ``Ensemble.history``."""


def describe(ensemble: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Everything of an ``Ensemble`` that is not an array, for JSON, and its arrays by name."""
    arrays = {key: getattr(ensemble, key) for key in ("held_out", "truth", "calibration")}
    arrays |= {f"stack/{key}": value for key, value in ensemble.stack.arrays().items()}
    if ensemble.novelty is not None:
        arrays |= {f"novelty/{key}": np.atleast_1d(value) for key, value in vars(ensemble.novelty).items()}
        del arrays["novelty/learner"]
    if ensemble.scale_cue is not None:
        arrays |= {f"scale_cue/{key}": np.asarray(value) for key, value in vars(ensemble.scale_cue).items()}
    arrays |= {f"thumbnail/{region}": colours for region, colours in ensemble.thumbnails.items()}
    for i, member in enumerate(ensemble.members):
        arrays |= {f"{i}/{key}": getattr(member.transform, key) for key in TRANSFORM}
        arrays |= {f"{i}/model/{key}": value for key, value in member.model.arrays().items()}
    about = {
        "targets": list(ensemble.targets),
        "learners": [to_json(getattr(learner, "pinned", learner)) for learner in ensemble.learners],
        "members": [[m.learner, m.held_out, m.transform.kind] for m in ensemble.members],
        "stack": ensemble.stack.kind,
        "novelty": None if ensemble.novelty is None else ensemble.novelty.learner,
        "index": [[str(region), str(instance)] for region, instance in ensemble.loo.index],
        "training": ensemble.training.reset_index(drop=True).to_dict("list"),
        "history": ensemble.history.to_dict("list"),
        "spacing_um": ensemble.spacing_um,
        "reference": None if ensemble.reference is None else ensemble.reference.to_dict(),
        "settings": dict(ensemble.settings),
        "quality": dict(ensemble.quality),
    }
    return about, arrays


def rebuild(
    about: Mapping[str, Any], arrays: Mapping[str, np.ndarray], by_name: Mapping[str, Learner]
) -> dict[str, Any]:
    """The fields of the ensemble that was described, with what :func:`restore_learners` gives."""
    members = []
    for i, (name, held_out, kind) in enumerate(about["members"]):
        transform = Transform(kind, **{key: arrays[f"{i}/{key}"] for key in TRANSFORM})
        members.append(FoldModel(name, held_out, by_name[name].restore(_under(f"{i}/model/", arrays)), transform))
    index = pd.MultiIndex.from_arrays(list(zip(*about["index"], strict=True)) or [(), ()], names=["region", "instance"])
    novelty, reference, scale_cue = _under("novelty/", arrays), about["reference"], _under("scale_cue/", arrays)
    novelty |= {"typical": float(novelty["typical"][0])} if novelty else {}
    return {
        **{key: arrays[key] for key in ("held_out", "truth", "calibration")},
        **{key: about[key] for key in ("spacing_um", "settings")},
        "quality": about.get("quality", {}),
        "targets": tuple(about["targets"]),
        "learners": tuple(by_name.values()),
        "members": tuple(members),
        "stack": restore_stack(about["stack"], _under("stack/", arrays)),
        "loo": pd.DataFrame(arrays["held_out"].mean(axis=0), index=index, columns=about["targets"]),
        "novelty": Novelty(about["novelty"], **novelty) if novelty else None,
        "scale_cue": ScaleCue(**{key: value[()] for key, value in scale_cue.items()}) if scale_cue else None,
        "training": pd.DataFrame(about["training"], index=index if len(index) else None),
        "thumbnails": _under("thumbnail/", arrays),
        "history": pd.DataFrame(about["history"]).astype(HISTORY),
        "reference": None if reference is None else StainReference.from_dict(reference),
    }


def without_data(ensemble: Any) -> dict[str, Any]:
    """Fields of the ensemble without the training data that no prediction of new slides needs.

    Held-out errors calibrate the intervals; those of a group are sorted target by target, so that they tell of no spot.
    """
    order = np.argsort(ensemble.training["group"].to_numpy(str), kind="stable")
    training = ensemble.training[["slide", "group"]].iloc[order].reset_index(drop=True)
    by_group = pd.DataFrame(ensemble.calibration[order]).groupby(training["group"].to_numpy(str))
    kept = {"lowest": ensemble.lowest, "skill": ensemble.held_out_skill().tolist()}
    return {
        "truth": ensemble.truth[:0],
        "held_out": ensemble.held_out[:, :0],
        "loo": ensemble.loo.iloc[:0],
        "calibration": np.concatenate([np.sort(errors.to_numpy(), axis=0) for _, errors in by_group]),
        "training": training,
        "thumbnails": {},
        "settings": {**ensemble.settings, "private": kept},
    }


def restore_learners(
    texts: Sequence[str], encoders: Mapping[str, Any], own: OwnLearners, *, allow_download: bool
) -> dict[str, Learner]:
    """The learners of a description by their names in the ensemble; code comes from the user alone."""
    made = [from_json(text, own) for text in texts]
    learners = dict(zip(names_of(made), made, strict=True))
    stored = {name: learner.encoder for name, learner in learners.items() if hasattr(learner, "encoder")}
    if unknown := sorted(set(encoders) - set(stored)):
        msg = f"encoders must be those of learners that have one, {list(stored)}, got {unknown}."
        raise ValueError(msg)
    missing = {name: encoder for name, encoder in stored.items() if isinstance(encoder, MissingEncoder)}
    named = {name: one.encoder for name, one in missing.items() if one.encoder is not None and allow_download}
    given = {name: missing[name].replaced_by(one) if name in missing else one for name, one in encoders.items()}
    return learners | {name: with_settings(learners[name], encoder=one) for name, one in (named | given).items()}


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The arrays whose names start with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
