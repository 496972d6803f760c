"""Learn and predict: ``fit`` returns an ensemble, ``predict`` writes, ``evaluate`` scores; learners are what is trained."""

from __future__ import annotations

from h2e._learners.embedding import Embedding
from h2e._learners.learner import Learner, Model
from h2e._learners.multiscale import Multiscale
from h2e._learners.texture import Texture
from h2e._slide.tiles import View
from h2e.tl._evaluate import evaluate
from h2e.tl._fit import fit
from h2e.tl._predict import predict

__all__ = ["Embedding", "Learner", "Model", "Multiscale", "Texture", "View", "evaluate", "fit", "predict"]
