"""Multiscale: the network of ``h2e._learners.network`` as a learner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from h2e._learners import folds, heads, standardization
from h2e._learners.learner import Learner, Model
from h2e._learners.training_config import TrainingConfig
from h2e._slide.tiles import View
from h2e._warnings import log, refuse, refuse_if

if TYPE_CHECKING:
    from h2e._learners.network import MultiscaleNetwork, NetworkConfig

Stopping = Literal["all epochs", "inner group"]
EncoderPart = Literal["tile", "subtiles", "center"]


@dataclass(frozen=True)
class MultiscaleModel(Model):
    """A trained network, and the mean and standard deviation that its outputs are scaled back by."""

    network: MultiscaleNetwork
    mean: np.ndarray  # (targets,)
    scale: np.ndarray  # (targets,)
    symmetries: bool
    device: str | None
    history: list[dict[str, float]] = field(default_factory=list)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """``float32`` (n, targets), from ``uint8`` tiles: the mean over their symmetries."""
        return self.tta_predictions(x).mean(axis=0)

    def tta_predictions(self, x: np.ndarray) -> np.ndarray:
        """Predictions of each of the eight symmetries of the tiles, or of one, ``float32`` (8 or 1, n, targets)."""
        from h2e._learners.training import predict_views

        scaled = predict_views(self.network, x, symmetries=self.symmetries, device=self.device)
        return (scaled * self.scale + self.mean).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights and the scaling."""
        from h2e._learners.training import arrays_of

        weights = {f"network.{name}": value for name, value in arrays_of(self.network).items()}
        return {"mean": self.mean, "scale": self.scale, **weights}


class BestEpoch:
    """Keeps the weights of the epoch whose error is least on tiles that are not trained on."""

    def __init__(self, tiles: np.ndarray, y: np.ndarray, *, device: str | None) -> None:
        self.tiles, self.y, self.device = tiles, y, device
        self.errors: list[float] = []

    def __call__(self, network: MultiscaleNetwork) -> None:
        """Score the network after an epoch."""
        from h2e._learners.training import arrays_of, predict_views

        prediction = predict_views(network, self.tiles, symmetries=False, device=self.device)[0]
        self.errors.append(float(((prediction - self.y) ** 2).mean()))
        if self.errors[-1] == min(self.errors):
            self.arrays = arrays_of(network)

    def network(self, config: NetworkConfig) -> MultiscaleNetwork:
        """The network of the best epoch."""
        from h2e._learners.training import network_of

        log.info("epoch %d of %d is kept", np.argmin(self.errors) + 1, len(self.errors))
        return network_of(config, self.arrays)


@dataclass(frozen=True)
class Multiscale(TrainingConfig, Learner):
    """The multiscale network on tiles of three spacings; the defaults are the published settings with augmentation.

    Parameters
    ----------
    epochs, lr, weight_decay, batch_size
        Of AdamW with a cosine schedule.
    symmetries
        Turn and flip tiles at random in training, and average over the eight symmetries in prediction.
    stain_jitter
        Standard deviation of the random change of stain concentrations in training; 0 turns it off.
    ema
        Decay of the moving average of the weights, which is what predicts; ``None``: the last weights. It is over about
        ``1 / (1 - ema)`` steps, which must be far fewer than there are: a thousand spots make 31 an epoch.
    dropout
        Of the decoder.
    extent
        Side of the tile in spot spacings.
    tile_px, subtile_px
        Sides of the tile and of each of its nine subtiles in pixels.
    encoders
        Which of ``"tile"``, ``"subtiles"`` and ``"center"`` there are.
    residual, pyramid_pooling
        Shortcuts in the blocks; pooling at several scales.
    stopping
        ``"all epochs"``, or ``"inner group"``, which trains on the training groups but one and keeps the epoch that is
        best on that one, if there are two.
    device
        ``None``: CUDA if there is one.

    Examples
    --------
    >>> Multiscale(epochs=12).views
    (View(extent=3.0, px=78, unit='spacing'),)
    """

    name = "multiscale"
    uses = "tiles"
    dropout: float = 0.1
    extent: float = 3.0
    tile_px: int = 78
    subtile_px: int = 26
    encoders: tuple[EncoderPart, ...] = get_args(EncoderPart)
    residual: bool = True
    pyramid_pooling: bool = True
    stopping: Stopping = "all epochs"
    device: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "encoders", tuple(self.encoders))
        if self.stopping not in get_args(Stopping):
            refuse(f"stopping must be one of {list(get_args(Stopping))}, got {self.stopping!r}.")
        refuse_if(self.extent <= 0, f"extent must be positive, got {self.extent}.")

    @property
    def views(self) -> tuple[View, ...]:  # type: ignore[override]
        """The tile; the network cuts the rest from it."""
        return (View(self.extent, self.tile_px),)

    def extract_features(self, tiles: list[np.ndarray]) -> np.ndarray:
        """The tiles themselves."""
        return tiles[0]

    def fit(
        self, x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, seed: int = 0, progress: bool = True, label: str = ""
    ) -> MultiscaleModel:
        """Train on targets of mean 0 and standard deviation 1."""
        from h2e._learners.training import train

        heads.check_training(x, y, groups)
        mean, scale = standardization.mean_and_std(y)
        z, best = ((y - mean) / scale).astype(np.float32), None
        if self.stopping == "inner group" and len(np.unique(groups)) > 1:
            outer = folds.validation_group(groups)
            best = BestEpoch(x[outer], z[outer], device=self.device)
            x, z = x[~outer], z[~outer]
        config, device = self._config(z.shape[1]), self.device
        network, history = train(
            config, x, z, settings=self, seed=seed, device=device, progress=progress, label=label, after_epoch=best
        )
        if best is not None:
            network = best.network(config)
        return MultiscaleModel(network, mean, scale, self.symmetries, self.device, history)

    def restore(self, arrays: dict[str, np.ndarray]) -> MultiscaleModel:
        """Make the model of these arrays; its history is not among them."""
        from h2e._learners.training import network_of

        weights = {name.removeprefix("network."): a for name, a in arrays.items() if name.startswith("network.")}
        network = network_of(self._config(len(arrays["mean"])), weights)
        return MultiscaleModel(network, arrays["mean"], arrays["scale"], self.symmetries, self.device)

    def _config(self, n_targets: int) -> NetworkConfig:
        """Configure the network."""
        from h2e._learners.network import NetworkConfig

        sizes = (n_targets, self.tile_px, self.subtile_px)
        return NetworkConfig(*sizes, self.dropout, self.encoders, self.residual, self.pyramid_pooling)
