"""Learn and predict: ``fit`` trains an ensemble, ``predict`` writes its predictions, ``evaluate`` scores it."""

from h2e._learners.embedding import Embedding
from h2e._learners.encoders import Encoder
from h2e._learners.known_encoders import list_encoders
from h2e._learners.learner import Learner, Model
from h2e._learners.multiscale import Multiscale
from h2e._learners.texture import Texture
from h2e._slide.tiles import View
from h2e.tl._embed import embed
from h2e.tl._evaluate import evaluate
from h2e.tl._fit import fit
from h2e.tl._predict import predict

__all__ = ["Embedding", "Encoder", "Learner", "Model", "Multiscale", "Texture", "View"]
__all__ += ["embed", "evaluate", "fit", "list_encoders", "predict"]
