"""What a run is asked to do: frozen, checked, with the reference report's own keys."""

import dataclasses
import math
import os
import reprlib
import sys
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import torch

OPTIMIZERS = ("Adam", "AdamW", "SGD")
SCHEDULES = ("constant", "one_cycle")
EPOCHS_KEPT = ("last", "best")
LARGEST, LARGEST_OF = (
    1024,
    {"batch_size": 2**16, "epochs": 10**5, "seed": 2**32 - 1},
)  # no machine has room for more
WARM_UP = 0.25  # share of training in which the one-cycle schedule rises


class ConfigError(ValueError):
    """A configuration key that is unknown, of the wrong type or out of range."""


def require(ok: bool, key: str, value: Any, expected: str) -> None:
    """Raise ConfigError unless `ok`, naming the key, the value found and the values expected."""
    if not ok:
        raise ConfigError(f"config key {key!r}: found {reprlib.repr(value)}, expected {expected}")


def require_number(key: str, value: Any, kind: type) -> None:
    """Raise ConfigError unless `value` is a `kind`, int or float, of a size that can be worked with."""
    typed = isinstance(value, (int, kind)) and not isinstance(
        value, bool
    )  # which is an int to Python, never to us
    require(typed, key, value, f"a value of type {kind.__name__}")
    most = LARGEST_OF.get(key, LARGEST) if kind is int else sys.float_info.max
    require(not abs(value) > most, key, value, f"at most {most:,}")


def require_one_of(config: "Config", **allowed: tuple[str, ...]) -> None:
    """Raise ConfigError unless each key's value is among those allowed."""
    for key, values in allowed.items():
        require(
            getattr(config, key) in values, key, getattr(config, key), f"one of {', '.join(values)}"
        )


def option(default: Any, meaning: str) -> Any:
    """A key of a config; the command line's help says what it means."""
    return dataclasses.field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True, kw_only=True)
class Config:
    """Keys that every training run has. A task's subclass adds its own, and builds and loads its network."""

    learning_rate: float = option(1e-3, "of the optimizer; the highest of the schedule")
    optimizer: str = option("Adam", f"one of {', '.join(OPTIMIZERS)}")
    momentum: float = option(0.0, "of SGD; the others have none")
    batch_size: int = option(128, "images a step")
    epochs: int = option(20, "how often every training image is seen")
    schedule: str = option("constant", f"of the learning rate, one of {', '.join(SCHEDULES)}")
    weight_decay: float = option(0.01, "of AdamW; the others have none")
    average_decay: float = option(
        0.0, "of the moving average of the weights; 0 keeps the last ones"
    )
    keep: str = option(
        "last", "the epoch whose weights are tested: last, or best by validation loss"
    )

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in (int, float):
                require_number(field.name, value, field.type)
            else:
                require(
                    isinstance(value, field.type),
                    field.name,
                    value,
                    f"a value of type {field.type.__name__}",
                )
            if field.type is float:
                # 1 and 1.0 are one configuration, so they must have one run id
                object.__setattr__(self, field.name, float(value))
        require(0 < self.learning_rate < 10, "learning_rate", self.learning_rate, "0 < value < 10")
        require_one_of(self, optimizer=OPTIMIZERS, schedule=SCHEDULES, keep=EPOCHS_KEPT)
        require(0 <= self.momentum < 1, "momentum", self.momentum, "0 <= value < 1")
        require(
            self.momentum == 0 or self.optimizer == "SGD",
            "momentum",
            self.momentum,
            f"0, since optimizer {self.optimizer!r} takes none",
        )
        require(
            self.batch_size >= 2,
            "batch_size",
            self.batch_size,
            "at least 2, since BatchNorm needs a spread",
        )
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
        return {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        }
