"""What any run is asked to do: frozen, checked. The tasks add their own keys."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

OPTIMIZERS = ("Adam", "AdamW")
SCHEDULES = ("constant", "one_cycle")
WARM_UP = 0.25  # share of training in which the one-cycle schedule rises


class ConfigError(ValueError):
    """A configuration key that is unknown, of the wrong type or out of range."""


def require(ok: bool, key: str, value: Any, expected: str) -> None:
    """Raise ConfigError unless `ok`, naming the key, the value found and the values expected."""
    if not ok:
        raise ConfigError(f"config key {key!r}: found {value!r}, expected {expected}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Keys that every training run has. Subclasses add those of one task."""

    # what a task may turn into a key of its own
    schedule: ClassVar[str] = "constant"
    average_decay: ClassVar[float] = 0.0
    weight_decay: ClassVar[float] = 0.01

    learning_rate: float = 1e-3
    optimizer: str = "Adam"
    batch_size: int = 128
    epochs: int = 20

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
        require(self.optimizer in OPTIMIZERS, "optimizer", self.optimizer,
                f"one of {', '.join(OPTIMIZERS)}")
        require(self.batch_size >= 2, "batch_size", self.batch_size,
                "at least 2, since BatchNorm needs a spread")
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        require(self.schedule in SCHEDULES, "schedule", self.schedule, f"one of {', '.join(SCHEDULES)}")
        require(0 <= self.average_decay < 1, "average_decay", self.average_decay, "0 <= value < 1")
        require(0 <= self.weight_decay < 1, "weight_decay", self.weight_decay, "0 <= value < 1")

    def learning_rate_at(self, progress: float) -> float:
        """The learning rate when `progress`, 0 to 1, of all training steps are done.

        "one_cycle" (Smith 2018) rises for a quarter of training, then falls to nearly nothing.
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
