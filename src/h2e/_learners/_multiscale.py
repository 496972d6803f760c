"""Multiscale: the network of ``h2e._network`` as a learner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from h2e._learners._heads import check_y, spread_of
from h2e._tiles import View

if TYPE_CHECKING:
    from h2e._network import MultiscaleNetwork, NetworkConfig


@dataclass(frozen=True)
class MultiscaleModel:
    """A trained network, and the mean and spread that its outputs are scaled back by."""

    network: MultiscaleNetwork
    mean: np.ndarray  # (targets,)
    scale: np.ndarray  # (targets,)
    symmetries: bool
    device: str | None
    history: list[dict[str, float]] = field(default_factory=list)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """``float32`` (n, targets), from ``uint8`` tiles: the mean of the variants."""
        return self.variants(x).mean(axis=0)

    def variants(self, x: np.ndarray) -> np.ndarray:
        """What the network says of each of the eight symmetries of the tiles (or of one), ``float32`` (8 or 1, n, targets)."""
        from h2e._training import predict_views

        scaled = predict_views(self.network, x, symmetries=self.symmetries, device=self.device)
        return (scaled * self.scale + self.mean).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """What to store."""
        from h2e._training import arrays_of

        weights = {f"network.{name}": value for name, value in arrays_of(self.network).items()}
        return {"mean": self.mean, "scale": self.scale, **weights}


@dataclass(frozen=True)
class Multiscale:
    """The multiscale network on tiles of three spacings; the defaults are the published recipe with augmentation.

    Examples
    --------
    >>> Multiscale(epochs=12).views
    (View(extent=3.0, px=78, unit='spacing'),)
    """

    name: ClassVar[str] = "multiscale"
    uses: ClassVar[str] = "tiles"
    epochs: int = 30
    lr: float = 1e-3
    weight_decay: float = 1e-3
    batch_size: int = 32
    symmetries: bool = True
    """Turn and flip tiles at random in training, and average over the eight symmetries in prediction."""
    stain_jitter: float = 0.1
    ema: float | None = 0.99
    dropout: float = 0.1
    extent: float = 3.0
    """Side of the tile in spot spacings."""
    tile_px: int = 78
    subtile_px: int = 26
    encoders: tuple[str, ...] = ("tile", "subtiles", "center")
    residual: bool = True
    pyramid_pooling: bool = True
    device: str | None = None
    """``None``: CUDA if there is one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoders", tuple(self.encoders))
        if self.extent <= 0:
            msg = f"extent must be positive, got {self.extent}."
            raise ValueError(msg)

    @property
    def views(self) -> tuple[View, ...]:
        """The tile; the network cuts the rest from it."""
        return (View(self.extent, self.tile_px),)

    def look(self, tiles: list[np.ndarray]) -> np.ndarray:
        """The tiles themselves."""
        return tiles[0]

    def fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        groups: np.ndarray,
        *,
        seed: int = 0,
        progress: bool = True,
        label: str = "",
    ) -> MultiscaleModel:
        """Train on targets of mean 0 and standard deviation 1."""
        from h2e._training import TrainingConfig, train

        check_y(x, y, groups)
        mean, scale = spread_of(y)
        settings = TrainingConfig(
            self.epochs, self.lr, self.weight_decay, self.batch_size, self.symmetries, self.stain_jitter, self.ema
        )
        scaled = ((y - mean) / scale).astype(np.float32)
        network, history = train(
            self._config(y.shape[1]),
            x,
            scaled,
            settings=settings,
            seed=seed,
            device=self.device,
            progress=progress,
            label=label,
        )
        return MultiscaleModel(network, mean, scale, self.symmetries, self.device, history)

    def restore(self, arrays: dict[str, np.ndarray]) -> MultiscaleModel:
        """The model that the arrays came from; its history is not among them."""
        from h2e._training import network_of

        weights = {name.removeprefix("network."): a for name, a in arrays.items() if name.startswith("network.")}
        network = network_of(self._config(len(arrays["mean"])), weights)
        return MultiscaleModel(network, arrays["mean"], arrays["scale"], self.symmetries, self.device)

    def _config(self, n_targets: int) -> NetworkConfig:
        """The network that these settings mean."""
        from h2e._network import NetworkConfig

        return NetworkConfig(
            n_targets,
            self.tile_px,
            self.subtile_px,
            self.dropout,
            self.encoders,
            self.residual,
            self.pyramid_pooling,
        )
