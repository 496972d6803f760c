"""A small multilayer perceptron as a stack: the one of the method's source, on whatever predictions it is given."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from h2e._learners.network import Dropout, initialized, seed_dropout
from h2e._learners.standardization import mean_and_std

HIDDEN = (512, 256)
DROPOUT, LR, BATCH = 0.2, 1e-3, 64
PATIENCE = (10, 20)
"""Epochs without improvement until the rate is halved, and until training stops."""

MAX_EPOCHS = 300


@dataclass(frozen=True, eq=False)
class MlpStack:
    """All predictions of all inputs for all targets in, one value per target out."""

    kind: str
    weights: dict[str, np.ndarray]  # of the network, and how its inputs and outputs are scaled

    def combine(self, predictions: np.ndarray) -> np.ndarray:
        """(inputs, n, targets) → (n, targets), ``float32``."""
        state = {name: torch.from_numpy(np.array(value)) for name, value in self.weights.items()}
        x_mean, x_std, y_mean, y_std = (state.pop(name).numpy() for name in ("x mean", "x sd", "y mean", "y sd"))
        x = (_flat(predictions) - x_mean) / x_std
        network = _network(x.shape[1], len(y_mean), seed=0)
        network.load_state_dict(state)
        with torch.inference_mode():
            z = network.eval()(torch.from_numpy(x.astype(np.float32))).numpy()
        return (z * y_std + y_mean).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights and the scaling."""
        return self.weights


def fit_mlp(kind: str, predictions: np.ndarray, y: np.ndarray, validation: np.ndarray, *, seed: int) -> MlpStack:
    """Train until the error of the validation spots stops falling, and keep the weights of their best epoch.

    Parameters
    ----------
    predictions
        (inputs, n, targets).
    y
        (n, targets).
    validation
        (n,) which spots training stops by; the others are trained on.

    Examples
    --------
    >>> predictions = np.random.default_rng(0).normal(size=(2, 40, 3)).astype(np.float32)
    >>> stack = fit_mlp("mlp", predictions, predictions[0], np.arange(40) % 5 == 0, seed=0)
    >>> stack.combine(predictions).shape
    (40, 3)
    """
    inputs = _flat(predictions)
    (x_mean, x_std), (y_mean, y_std) = mean_and_std(inputs), mean_and_std(y)
    scales = {"x mean": x_mean, "x sd": x_std, "y mean": y_mean, "y sd": y_std}
    x = torch.from_numpy(((inputs - x_mean) / x_std).astype(np.float32))
    z = torch.from_numpy(((y - y_mean) / y_std).astype(np.float32))
    network = _network(x.shape[1], z.shape[1], seed=seed)
    inner, outer = torch.from_numpy(np.flatnonzero(~validation)), torch.from_numpy(np.flatnonzero(validation))
    state = _train(network, x[inner], z[inner], x[outer], z[outer], torch.Generator().manual_seed(seed + 1))
    arrays = {name: value.numpy().copy() for name, value in state.items()}
    return MlpStack(kind, arrays | {name: value.astype(np.float32) for name, value in scales.items()})


def _train(
    network: nn.Sequential, x: Tensor, z: Tensor, x_validation: Tensor, z_validation: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Adam, the rate halved and training stopped by the validation error; returns the best weights."""
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=PATIENCE[0])
    seed_dropout(network, generator)
    best, since = np.inf, 0
    state: dict[str, Tensor] = {}
    for _ in range(MAX_EPOCHS):
        network.train()
        for rows in torch.randperm(len(x), generator=generator).tensor_split(max(1, round(len(x) / BATCH))):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.mse_loss(network(x[rows]), z[rows]).backward()
            optimizer.step()
        network.eval()
        with torch.inference_mode():
            error = float(nn.functional.mse_loss(network(x_validation), z_validation))
        schedule.step(error)
        since += 1
        if error < best or not state:
            best, since = error, 0
            state = {name: value.detach().clone() for name, value in network.state_dict().items()}
        if since >= PATIENCE[1]:
            break
    return state


def _network(n_in: int, n_out: int, *, seed: int) -> nn.Sequential:
    """(n, inputs × targets) → 512 → 256 → (n, targets)."""

    def make() -> nn.Sequential:
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise((n_in, *HIDDEN)):
            layers += [nn.Linear(a, b), nn.LeakyReLU(0.01), nn.BatchNorm1d(b), Dropout(DROPOUT)]
        return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], n_out))

    return initialized(make, seed=seed)


def _flat(predictions: np.ndarray) -> np.ndarray:
    """(inputs, n, targets) → (n, inputs × targets)."""
    return predictions.transpose(1, 0, 2).reshape(predictions.shape[1], -1)
