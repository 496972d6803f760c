"""How long it takes to read spots, and to train or use models: an estimate, in one line before anything is read."""

from __future__ import annotations

from collections.abc import Sequence

from h2e._learners.learner import Learner
from h2e._learners.registry import DEFAULT_LEARNERS, learner_of
from h2e._warnings import announce

SPOTS_A_SECOND, SPOTS_A_MODEL, TILES_A_NETWORK = 100, 4000, 20
"""In a second on one core: spots described by one kind of features, of which the default learners have two; spots that
a model is trained on; tiles that a network is trained on, each once an epoch."""


def announce_models(
    doing: str, spots: int, slides: int, learners: Sequence[Learner], n: int, *, passes: int = 1, progress: bool
) -> None:
    """Say that ``n`` models are trained, or used to predict, on spots that are read so many times."""
    from dask.system import cpu_count

    # A network predicts eight views of a tile, each in half the time that training on it takes.
    epochs = [4 if doing == "predict" else one.epochs for one in learners if hasattr(one, "epochs")]
    kinds = {one.feature_key for one in learners if one.uses == "tiles"}
    seconds = passes * len(kinds) * spots / SPOTS_A_SECOND / min(slides, cpu_count())
    seconds += n * spots * (1 / SPOTS_A_MODEL + sum(epochs) / len(learners) / TILES_A_NETWORK)
    others = kinds - {learner_of(name).feature_key for name in DEFAULT_LEARNERS}
    but = " without a GPU" if epochs else ", and what other features take" if others else ""
    what = f"{doing}: {spots:,} spots of {slides} slide{'s' * (slides > 1)}, {n} models{but}"
    announce(what, seconds, progress=progress)
