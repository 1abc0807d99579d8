"""A config says what to train: a frozen model of keys, validated before anything is trained."""

import math
import os
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ConfigError
from .files import load_into, read_weights

WARM_UP = 0.25  # share of training in which the learning rate of the one-cycle schedule rises
LARGEST_SEED = 2**32 - 1


def whole_number(name: str, value: Any, least: int = 0) -> int:
    """Return `value` as an int; integers of numpy and pandas count as whole numbers.

    Raises:
        ConfigError: `value` is not a whole number from `least` to LARGEST_SEED, or is a bool.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ConfigError(f"{name}: found {value!r}, expected a whole number")
    if not least <= value <= LARGEST_SEED:
        raise ConfigError(f"{name}: found {value}, expected {least:,} to {LARGEST_SEED:,}")
    return int(value)


def unused_key(key: str, value: Any, reason: str) -> ValueError:
    """Return the error of a validator about a key that would have no effect.

    A key without effect must keep its default: it would change the run id, but not the run.
    """
    return ValueError(f"config key {key!r}: found {value!r}, expected its default, since {reason}")


class Config(BaseModel):
    """Keys that every training run has; a task's subclass adds its own and builds its network."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )
    kind: ClassVar[str]  # name of the config in run ids, which outlives the name of the class
    task: ClassVar[str]  # name of the task in paths and on the command line

    learning_rate: float = Field(
        1e-3, gt=0, lt=10, description="learning rate of the optimizer; the schedule's highest"
    )
    optimizer: Literal["Adam", "AdamW", "SGD", "Muon"] = Field(
        "Adam", description="optimizer; Muon: for convolutions, with AdamW for all else"
    )
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum, for SGD only")
    batch_size: int = Field(
        128, ge=2, le=2**16, description="images per step; BatchNorm needs at least 2"
    )
    epochs: int = Field(20, ge=1, le=10**5, description="passes over the training images")
    schedule: Literal["constant", "one_cycle"] = Field(
        "constant", description="schedule of the learning rate"
    )
    weight_decay: float = Field(
        0.01, ge=0, lt=1, description="weight decay, for AdamW and Muon only"
    )
    average_decay: float = Field(
        0.0, ge=0, lt=1, description="decay of the moving average of the weights; 0: no average"
    )
    keep: Literal["last", "best"] = Field(
        "last", description="epoch whose weights are tested: last, or best by validation loss"
    )

    def __init__(self, **values: Any):
        plain = {
            key: value.item() if isinstance(value, np.generic) else value
            for key, value in values.items()
        }
        try:
            super().__init__(**plain)
        except ValidationError as error:
            raise ConfigError(self._describe(error)) from None

    @model_validator(mode="after")
    def _check_optimizer(self) -> Self:
        changed = self.changed()
        for key, users in {"momentum": ("SGD",), "weight_decay": ("AdamW", "Muon")}.items():
            if key in changed and self.optimizer not in users:
                reason = f"optimizer {self.optimizer!r} does not use it"
                raise unused_key(key, changed[key], reason)
        return self

    @classmethod
    def _describe(cls, error: ValidationError) -> str:
        """Return one line per problem: the key, the value found and what was expected."""
        lines = []
        for problem in error.errors():
            key = "".join(problem["loc"])  # empty if a validator looks at several keys
            line = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            if problem["type"] == "extra_forbidden":
                line = f"unknown config key {key!r}; the keys are {', '.join(cls.model_fields)}"
            elif key:
                line = f"config key {key!r}: found {problem['input']!r:.60}, expected {line}"
            lines.append(line)
        return "\n".join(lines)

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with some keys changed."""
        return type(self)(**self.model_dump() | changes)

    def to_dict(self) -> dict[str, Any]:
        """Return all keys with their values."""
        return self.model_dump()

    def changed(self) -> dict[str, Any]:
        """Return the keys that differ from their defaults.

        Run ids are hashes of these, so a key that is added later changes no id of an old run.
        """
        fields = type(self).model_fields
        return {key: value for key, value in self if value != fields[key].default}

    def learning_rate_at(self, progress: float) -> float:
        """Return the learning rate after a share `progress` (0 to 1) of all training steps.

        The one-cycle schedule (Smith 2018) rises for a quarter of training, then falls to nearly
        zero. It depends on `progress` alone, so a resumed run has no scheduler state to restore.
        """
        if self.schedule == "constant":
            return self.learning_rate
        if progress < WARM_UP:
            rise = (1 - math.cos(math.pi * progress / WARM_UP)) / 2
            return self.learning_rate * (0.04 + 0.96 * rise)
        fall = (progress - WARM_UP) / (1 - WARM_UP)
        return self.learning_rate * max(1e-5, (1 + math.cos(math.pi * fall)) / 2)

    def build(self, data, seed: int) -> tuple[Any, torch.nn.Module]:
        """Return the task (see `training.Task`) and the seeded, untrained network.

        Args:
            data: the `Dataset` to train on; some networks depend on its statistics.
            seed: seed of the initial weights.
        """
        raise NotImplementedError

    def build_network(self) -> torch.nn.Module:
        """Return the untrained network."""
        raise NotImplementedError

    def load_model(self, file: str | os.PathLike) -> torch.nn.Module:
        """Return the network of this config with the weights in `file`, in evaluation mode.

        Raises:
            IntegrityError: the file is missing, altered, or holds another network's weights.
        """
        return load_into(self.build_network(), read_weights(file), file)
