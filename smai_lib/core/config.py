"""What a run is asked to do: frozen, checked, with the reference report's own keys."""

import math
import os
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import torch

OPTIMIZERS = ("Adam", "AdamW", "SGD")
SCHEDULES = ("constant", "one_cycle")
EPOCHS_KEPT = ("last", "best")
WARM_UP = 0.25  # share of training in which the one-cycle schedule rises


class ConfigError(ValueError):
    """A configuration key that is unknown, of the wrong type or out of range."""


def require(ok: bool, key: str, value: Any, expected: str) -> None:
    """Raise ConfigError unless `ok`, naming the key, the value found and the values expected."""
    if not ok:
        raise ConfigError(f"config key {key!r}: found {value!r}, expected {expected}")


def require_one_of(config: "Config", **allowed: tuple[str, ...]) -> None:
    """Raise ConfigError unless each key's value is among those allowed."""
    for key, values in allowed.items():
        require(getattr(config, key) in values, key, getattr(config, key), f"one of {', '.join(values)}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Keys that every training run has. A task's subclass adds its own, and builds and loads its network."""

    learning_rate: float = 1e-3
    optimizer: str = "Adam"
    momentum: float = 0.0  # of SGD; the others have none
    batch_size: int = 128
    epochs: int = 20
    schedule: str = "constant"
    weight_decay: float = 0.01  # of AdamW; the others have none
    average_decay: float = 0.0  # of the moving average of the weights; 0 keeps the last ones
    keep: str = "last"  # the epoch whose weights are tested: "last", or "best" by validation loss

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            allowed = (int, float) if field.type is float else field.type
            # bool is an int to Python, never to us
            typed = isinstance(value, allowed) and (field.type is bool or not isinstance(value, bool))
            require(typed, field.name, value, f"a value of type {field.type.__name__}")
            if field.type is float:
                # 1 and 1.0 are one configuration, so they must have one run id
                object.__setattr__(self, field.name, float(value))
        require(0 < self.learning_rate < 10, "learning_rate", self.learning_rate, "0 < value < 10")
        require_one_of(self, optimizer=OPTIMIZERS, schedule=SCHEDULES, keep=EPOCHS_KEPT)
        require(0 <= self.momentum < 1, "momentum", self.momentum, "0 <= value < 1")
        require(self.momentum == 0 or self.optimizer == "SGD", "momentum", self.momentum,
                f"0, since optimizer {self.optimizer!r} takes none")
        require(self.batch_size >= 2, "batch_size", self.batch_size, "at least 2, since BatchNorm needs a spread")
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        for key in ("average_decay", "weight_decay"):
            require(0 <= getattr(self, key) < 1, key, getattr(self, key), "0 <= value < 1")

    def build(self, data, seed: int) -> tuple[Any, torch.nn.Module]:
        """The objective (see `training.Objective`) and the seeded, untrained network.

        Args:
            data: what it will be trained on, in case the network needs to know of it.
        """
        raise NotImplementedError

    def load(self, file: str | os.PathLike) -> torch.nn.Module:
        """The trained network in a weights file of this configuration, in evaluation mode.

        Raises:
            WeightsError: the file is missing, altered or of another network; see `weights`.
        """
        raise NotImplementedError

    def learning_rate_at(self, progress: float) -> float:
        """The learning rate when `progress`, 0 to 1, of all training steps are done.

        "one_cycle" (Smith 2018) rises for a quarter of training, then falls to nearly nothing. A
        function of progress alone, unlike torch's schedulers, so a resumed run has nothing to restore.
        """
        if self.schedule == "constant":
            return self.learning_rate
        if progress < WARM_UP:
            share = (1 - math.cos(math.pi * progress / WARM_UP)) / 2
            return self.learning_rate * (0.04 + 0.96 * share)
        fall = (progress - WARM_UP) / (1 - WARM_UP)
        return self.learning_rate * max(1e-5, (1 + math.cos(math.pi * fall)) / 2)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from a plain dictionary; unknown keys raise ConfigError with the known ones."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown config key {key!r}; the keys are {', '.join(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def changed(self) -> dict[str, Any]:
        """The keys whose value is not the default: a later key, at its default, changes nothing here."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}
