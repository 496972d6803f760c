"""Train an ensemble on some spots of a cohort: ``fit`` on all of them, ``evaluate`` on those of all groups but one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from h2e._ensemble.ensemble import Ensemble
from h2e._ensemble.extraction import Features
from h2e._ensemble.fitting import FitConfig, fit_members
from h2e._ensemble.fold_models import ALL, Spots, names_of
from h2e._ensemble.novelty import fit_novelty
from h2e._ensemble.recognition import positions_on_image
from h2e._ensemble.saving import HISTORY
from h2e._learners.folds import Fold, make_folds
from h2e._learners.learner import Learner
from h2e._learners.registry import LEARNERS, learner_of, with_settings
from h2e._sdata.cohort import Cohort
from h2e._sdata.features import features_record
from h2e._sdata.target_spec import TargetSpec
from h2e._slide.sections import same_sections
from h2e._warnings import log, refuse_if, warn

TOO_GOOD = "What is on both sides of a split makes held-out scores too good."
"""Why donors and sections must be told apart."""


def learners_of(learners: str | Learner | Sequence[str | Learner], device: str | None) -> tuple[Learner, ...]:
    """The learners that the user names or passes, on a device where they have one."""
    several = [learners] if isinstance(learners, str | Learner) else learners
    msg = f"learners must be a learner or a sequence of at least one, such as 'texture', got {learners!r}."
    refuse_if(not isinstance(several, Sequence) or not several, msg)
    instances = [learner_of(learner) for learner in several]
    if device is not None:
        instances = [with_settings(one, device=device) if hasattr(one, "device") else one for one in instances]
    ours = [one for one in instances if type(one) in LEARNERS.values()]
    for name in {device, *(getattr(one, "device", None) for one in ours)} - {None}:
        # Torch takes a second to import.
        from h2e._learners.training import find_device

        find_device(name)
    return tuple(instances)


def check_cohort(cohort: Cohort, spec: TargetSpec, group_key: str | None) -> None:
    """Refuse a section that is there twice and a group with the name that stands for all; warn of what looks wrong."""
    if alike := spelled_alike(cohort.groups):
        warn(f"groups {alike} differ in case, spaces, dashes or zeros only: give one donor one name. {TOO_GOOD}")
    warn_absent(spec, spec.targets)
    msg = f"a group is called {ALL!r}, which h2e calls the models of all groups; give it another name."
    refuse_if(ALL in cohort.groups, msg)
    twice = ", ".join(f"{one!r} and {other!r}" for one, other in same_sections(cohort.slides))
    msg = f"each slide must be a section of its own, but these show the same tissue under their spots: {twice}. "
    refuse_if(twice, f"{msg}Keep one of each pair in the table. {TOO_GOOD}")
    if len(cohort.slides) == 1:
        warn("one slide: its quarters are left out, so scores say nothing of another slide. Add slides.")
    elif group_key is None:
        warn("no group_key: slides are left out; scores are too good if a donor has several. Pass group_key.")
    for key in sorted({slide.image.key for slide in cohort.slides}):
        groups = sorted({slide.group for slide in cohort.slides if slide.image.key == key})
        if len(groups) > 1:
            what = "groups %s lie on one image, %r, and share its stain reference: cut it with sdata.query.bounding_box"
            log.warning(what, groups, key)
    if spec.n_empty:
        # To a model they say that there is nothing of any gene.
        log.warning("%d of %d spots on tissue have no counts: drop them", spec.n_empty, len(cohort.rows))


def warn_absent(spec: TargetSpec, targets: Sequence[str] | str | None) -> None:
    """Warn of genes that a whole slide has not got, as where its panel lacks them."""
    if absent := spec.absent(targets):
        msg = f"{len(absent)} times a whole slide has no count of a target, against the other slides: {absent[:5]}."
        warn(f"{msg} Genes that its panel lacks count as 0 there: leave out these targets, or the slide.")


def spelled_alike(names: Iterable[str]) -> list[str]:
    """Names that are most likely one: they differ in case, spaces, dashes, dots, and zeros before a number only.

    Examples
    --------
    >>> spelled_alike(["P1", "p 1", "P-01", "P11", "P1-1", "P2"])
    ['P-01', 'P1', 'p 1']
    """
    same: dict[str, list[str]] = {}
    for name in sorted(set(map(str, names))):
        # A separator of two numbers is none: 1-1 is not 11.
        key = re.sub(r"\.0$|(?<!\d)[\s_.-]+|[\s_.-]+(?!\d)|(?<!\d)0+(?=\d)", "", name.casefold())
        same.setdefault(re.sub(r"[\s_.-]+", "-", key), []).append(name)
    return [name for alike in same.values() if len(alike) > 1 for name in alike]


def folds_within(
    cohort: Cohort, spots: np.ndarray, learners: Sequence[Learner], n_folds: int | None = None
) -> list[Fold]:
    """Folds of some spots; a quarter of a slide keeps the extent of the largest tile from the others."""
    spacing_um = cohort.spacing_um(spots)
    buffer_um = max((view.extent_um(spacing_um) for learner in learners for view in learner.views), default=0.0)
    xy, slides, groups = cohort.xy_um[spots], cohort.names[spots], cohort.groups[spots]
    return make_folds(slides, groups, xy, buffer_um=min(buffer_um, 3 * spacing_um), n_folds=n_folds)


def inner_folds(cohort: Cohort, fold: Fold, learners: Sequence[Learner], n_folds: int | None = None) -> list[Fold]:
    """Folds of the training spots of a fold; without any the stack is the mean."""
    n_groups = len(np.unique(cohort.groups[fold.train]))
    n_folds = None if n_folds is None else min(n_folds, n_groups)
    return folds_within(cohort, fold.train, learners, n_folds) if n_groups > 1 else []


def train(
    features: Features,
    spec: TargetSpec,
    spots: np.ndarray,
    folds: Sequence[Fold],
    config: FitConfig,
    *,
    beside: Sequence[Learner] = (),
    left_out: str = "",
    bar: tqdm | None = None,
) -> tuple[Ensemble, pd.DataFrame, dict[str, np.ndarray]]:
    """An ensemble of some spots of a cohort. Targets, stain reference, models and stack see nothing of the others.

    ``folds`` are positions among these spots; features of the learners ``beside`` are extracted in the same pass.
    Returns, too, the measured values (spots, targets) and features by name of the learner of all spots of the cohort.
    """
    cohort = features.cohort
    values = spec.measured(spots)
    extracted = features.of((*config.learners, *beside), spots)
    x = extracted.x
    names = names_of(config.learners)
    genes = spec.genes if config.n_programmes else None
    own = {name: x[name] for name in names}
    used = Spots(cohort.names, cohort.groups, own, values.to_numpy(np.float32), genes).take(spots)
    result = fit_members(used, folds, config, bar)
    index = cohort.identity[spots]
    at = np.concatenate([positions_on_image(slide) for slide in cohort.slides])[spots]
    training = pd.DataFrame({"slide": used.slides, "group": used.groups, "x": at[:, 0], "y": at[:, 1]}, index=index)
    seen_slides = [(cohort.slides[i], cohort.thumbnails[i]) for i in cohort.of(spots)]
    history = [{"learner": m.learner, "held_out": m.held_out, **h} for m in result.members for h in m.history]
    first = next((name for name, learner in zip(names, config.learners, strict=True) if learner.uses != "xy"), None)
    ensemble = Ensemble(
        targets=tuple(values.columns),
        learners=config.learners,
        members=tuple(result.members),
        stack=result.stack,
        loo=pd.DataFrame(result.held_out.mean(axis=0), index=index, columns=values.columns),
        held_out=result.held_out,
        truth=used.y,
        calibration=result.calibration - used.y,
        novelty=fit_novelty(first, used.x[first], used.groups) if first else None,
        training=training,
        history=pd.DataFrame(history, columns=list(HISTORY)).astype(HISTORY),
        thumbnails={slide.region: colours for slide, colours in seen_slides if slide.region is not None},
        spacing_um=extracted.spacing_um,
        reference=extracted.reference,
        quality={slide.name: cohort.quality[slide.name].known() for slide, _ in seen_slides},
        settings={
            **spec.settings,
            "left_out": left_out,
            "learners": names,
            "transform": config.transform,
            "stack": config.stack,
            "n_programmes": int(config.n_programmes) if genes is not None else 0,
            "seed": int(config.seed),
            "keep_residual": cohort.keep_residual,
            "um_per_px": {slide.name: slide.um_per_px for slide, _ in seen_slides},
            "features": {one.obsm: features_record(cohort.table, one.obsm) for one in config.learners if one.obsm},
        },
    )
    return ensemble, values, x
