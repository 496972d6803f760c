"""How a network is trained, without the library that trains it."""

from __future__ import annotations

from dataclasses import dataclass

from h2e._warnings import refuse, refuse_if


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one training run."""

    epochs: int = 30
    lr: float = 1e-3
    weight_decay: float = 1e-3
    batch_size: int = 32
    symmetries: bool = True
    """Turn and flip each tile at random."""
    stain_jitter: float = 0.1
    """Standard deviation of the factors on the stain concentrations of each tile; 0 switches it off."""
    ema: float | None = 0.95
    """Decay of the moving average of the weights, which is what is kept; ``None`` keeps the last ones. Over as many
    steps as there are in a short run (0.99), it would remember the first weights and predict next to nothing."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or self.lr <= 0 or self.weight_decay < 0 or self.stain_jitter < 0:
            refuse(f"epochs must be ≥ 1, batch_size ≥ 2, lr > 0, weight_decay ≥ 0, stain_jitter ≥ 0, got {self}.")
        refuse_if(self.ema is not None and not 0 <= self.ema < 1, f"ema must be in [0, 1) or None, got {self.ema}.")
