"""What any model must beat: predictions that look at no pixel, at few features, or at the answer itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from h2e._ensemble.fitting import FitConfig, fit_members
from h2e._ensemble.fold_models import Spots
from h2e._learners.folds import Fold, derive_seed
from h2e._learners.learner import Learner
from h2e._learners.registry import learner_of
from h2e._learners.standardization import mean_and_std
from h2e._learners.texture import Texture
from h2e._statistics import center_by_slide, group_mean

BaselineName = Literal["mean", "coordinates", "texture", "knn", "shuffled", "domains", "depth"]
BASELINES: tuple[BaselineName, ...] = get_args(BaselineName)
"""The training mean; the spots at the same place on other slides; ridge and nearest neighbours on texture statistics;
texture ridge trained on shuffled labels. Oracles, which know what is scored: the mean of each domain of the tissue, taken
from half of the very spots; and the total count of each spot."""

METHODS = {
    "mean": "baseline: mean",
    "coordinates": "baseline: coordinates",
    "texture": "baseline: ridge on texture",
    "knn": "baseline: kNN on texture",
    "shuffled": "baseline: shuffled labels",
    "domains": "oracle: domains",
    "domains by chance": "oracle: domains by chance",
    "depth": "oracle: depth",
}
"""What each is called in a table of scores."""

N_DOMAINS = 8
"""Domains of a slide: k-means of its texture features."""

DOMAIN_FEATURES = "texture"
"""Name of the learner whose features tell the domains."""


def learners_beside(config: FitConfig) -> dict[str, Learner]:
    """The learners whose features the baselines and the domains need, by the name of the baseline."""
    models = {name: learner_of(name) for name in config.baselines if name not in ("domains", "shuffled", "depth")}
    needed = config.domains or {"domains", "shuffled"} & set(config.baselines)
    return {DOMAIN_FEATURES: Texture(), **models} if needed else models


def baseline_predictions(
    spots: Spots, fold: Fold, config: FitConfig, *, domains: np.ndarray | None, totals: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Predictions of the spots left out by each baseline; ``spots.x`` is by the name of the baseline."""
    predictions = {}
    train, test = spots.take(fold.train), spots.take(fold.test)
    seed = derive_seed(config.seed, fold.name)
    for name in config.baselines:
        if name == "domains" and domains is not None:
            predictions[name] = domain_means(test.y, test.slides, domains, seed=seed)
            chance = shuffled_within(domains, test.slides, seed=seed)
            predictions["domains by chance"] = domain_means(test.y, test.slides, chance, seed=seed)
        elif name == "depth":
            if totals is not None:
                predictions[name] = of_depth(train, np.log1p(totals[fold.train]), np.log1p(totals[fold.test]))
        elif name == "shuffled":
            # Each target by itself: of one order for all, the mean over targets would be that of one draw.
            seeds = [derive_seed(seed, str(i)) for i in range(train.y.shape[1])]
            columns = [shuffled_within(y, train.slides, seed=one) for y, one in zip(train.y.T, seeds, strict=True)]
            predictions[name] = _one_model(DOMAIN_FEATURES, replace(train, y=np.stack(columns, axis=1)), test.x, config)
        else:
            predictions[name] = _one_model(name, train, test.x, config)
    return {METHODS[name]: prediction for name, prediction in predictions.items()}


def domains_of(x: np.ndarray, slides: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Domain of each spot: k-means of the standardized features of its slide; names are unique over slides."""
    from sklearn.cluster import KMeans

    out = np.zeros(len(x), int)
    for i, slide in enumerate(np.unique(slides)):
        rows = slides == slide
        center, scale = mean_and_std(x[rows])
        k = min(N_DOMAINS, max(1, rows.sum() // 10))
        out[rows] = N_DOMAINS * i + KMeans(k, n_init=4, random_state=seed).fit_predict((x[rows] - center) / scale)
    return out


def domain_means(y: np.ndarray, slides: np.ndarray, domains: np.ndarray, *, seed: int) -> np.ndarray:
    """The mean of each domain over one half of its slide's spots, for the other half, and the other way round.

    Examples
    --------
    >>> domain_means(np.arange(4.0)[:, None], np.array(list("AAAA")), np.zeros(4, int), seed=0).shape
    (4, 1)
    """
    half, out = np.random.default_rng(seed).permutation(len(y)) % 2, np.empty_like(y)
    for slide in np.unique(slides):
        rows = np.flatnonzero(slides == slide)
        # Few spots may all have come to lie in one half.
        if len(np.unique(half[rows])) == 1:
            half[rows] = np.arange(len(rows)) % 2
        for measured, scored in ((rows[half[rows] == side], rows[half[rows] != side]) for side in (0, 1)):
            for domain in np.unique(domains[scored]):
                same = measured[domains[measured] == domain]
                out[scored[domains[scored] == domain]] = y[same if len(same) else measured].mean(axis=0)
    return out


def of_depth(train: Spots, log_totals: np.ndarray, new: np.ndarray) -> np.ndarray:
    """A line of each target over the logarithm of the totals, fitted within the training slides, at new totals."""
    depth, y = (center_by_slide(values, train.slides) for values in (log_totals[:, None], train.y))
    slope = (depth * y).sum(axis=0) / max((depth**2).sum(), 1e-12)
    return group_mean(train.y, train.groups) + (new - log_totals.mean())[:, None] * slope


def shuffled_within(values: np.ndarray, slides: np.ndarray, *, seed: int) -> np.ndarray:
    """The rows of each slide in another order."""
    rng, out = np.random.default_rng(seed), values.copy()
    for slide in np.unique(slides):
        rows = np.flatnonzero(slides == slide)
        out[rows] = values[rng.permutation(rows)]
    return out


def _one_model(name: str, spots: Spots, x: Mapping[str, np.ndarray], config: FitConfig) -> np.ndarray:
    """Predictions by one model of all training spots; names of learners are those of the baselines."""
    learner = learner_of(name)
    # The mean is that of the unit that is scored.
    transform = "log" if name == "mean" else config.transform
    own = replace(spots, x={name: spots.x[name]})
    fitted = fit_members(own, [], replace(config, learners=(learner,), transform=transform, progress=False))
    return fitted.members[0].predict(x[name])
