"""What a run is asked to do: frozen, checked, with the reference report's own keys."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

OPTIMIZERS = ("Adam", "AdamW")
COLORIZATION_MODELS = ("cnn", "cnn_prior", "unet")
SCHEDULES = ("constant", "one_cycle")
INK_SCALINGS = ("raw", "z_score")
WEIGHTINGS = ("fixed", "uncertainty")
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


@dataclass(frozen=True, kw_only=True)
class MultiTaskConfig(Config):
    """One multi-task run on Fashion-MNIST: joint loss lambda1 * CE + lambda2 * MSE."""

    # what a recipe turns into keys of its own
    ink_scaling: ClassVar[str] = "raw"
    weighting: ClassVar[str] = "fixed"
    hidden: ClassVar[int] = 128
    ceil_mode: ClassVar[bool] = False

    lambda1: float = 1.0
    lambda2: float = 1.0
    dropout_rate: float = 0.3
    num_layers: int = 3
    base_filters: int = 32

    def __post_init__(self):
        super().__post_init__()
        for key in ("lambda1", "lambda2"):
            require(0 <= getattr(self, key) < float("inf"), key, getattr(self, key), "0 or more")
        require(self.lambda1 + self.lambda2 > 0, "lambda1", self.lambda1,
                "lambda1 and lambda2 not both 0: the joint loss would be constant")
        require(0 <= self.dropout_rate < 1, "dropout_rate", self.dropout_rate, "0 <= value < 1")
        require(self.num_layers in (2, 3), "num_layers", self.num_layers, "2 or 3")
        require(self.base_filters >= 1, "base_filters", self.base_filters, "at least 1")


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(MultiTaskConfig):
    """A multi-task run with what the reference report did not vary; the defaults are the report's."""

    ink_scaling: str = "raw"  # "z_score" divides the ink error by the training images' deviation
    weighting: str = "fixed"  # "uncertainty" learns the weights (Kendall et al. 2018), lambdas ignored
    schedule: str = "constant"
    weight_decay: float = 0.01  # of AdamW; Adam has none
    label_smoothing: float = 0.0
    mirror: bool = False  # a random half of the images mirrored: ink stays
    shift: int = 0  # pixels that images move by at most, zeros moving in: ink is measured anew
    average_decay: float = 0.0  # of the moving average of the weights; 0 keeps the last ones

    def __post_init__(self):
        super().__post_init__()
        require(self.ink_scaling in INK_SCALINGS, "ink_scaling", self.ink_scaling,
                f"one of {', '.join(INK_SCALINGS)}")
        require(self.weighting in WEIGHTINGS, "weighting", self.weighting,
                f"one of {', '.join(WEIGHTINGS)}")
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "0 <= value < 1")
        require(0 <= self.shift <= 8, "shift", self.shift, "0 to 8 pixels")


@dataclass(frozen=True, kw_only=True)
class NetworkRecipeConfig(RecipeConfig):
    """A recipe that also varies what the reference report says nothing of in its network."""

    hidden: int = 128  # units of either head's hidden layer
    ceil_mode: bool = False  # pools that keep the border: 28 -> 14 -> 7 -> 4 instead of 3

    def __post_init__(self):
        super().__post_init__()
        require(self.hidden >= 1, "hidden", self.hidden, "at least 1")


@dataclass(frozen=True, kw_only=True)
class ColorizationConfig(Config):
    """One colorization run; the defaults are the reference report's best."""

    batch_size: int = 32
    epochs: int = 25
    model: str = "cnn"
    num_filters: int = 32  # the report's NF
    kernel_size: int = 5
    num_colors: int = 24
    dropout_rate: float = 0.0  # of channels, for the U-Net
    mirror: bool = False  # show a random half of the images mirrored
    shift: int = 0  # pixels that images move by at most, their own reflection moving in
    schedule: str = "constant"
    weight_decay: float = 0.01  # of AdamW; Adam has none
    average_decay: float = 0.0  # of the moving average of the weights; 0 keeps the last ones

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.shift <= 16, "shift", self.shift, "0 to 16 pixels")
        require(self.model in COLORIZATION_MODELS, "model", self.model,
                f"one of {', '.join(COLORIZATION_MODELS)}")
        require(self.num_filters >= 1, "num_filters", self.num_filters, "at least 1")
        odd = self.kernel_size >= 1 and self.kernel_size % 2 == 1
        require(odd, "kernel_size", self.kernel_size, "odd, so that padding keeps the size")
        require(2 <= self.num_colors <= 256, "num_colors", self.num_colors, "2 to 256")
        require(0 <= self.dropout_rate < 1, "dropout_rate", self.dropout_rate, "0 <= value < 1")
        require(self.model == "unet" or self.dropout_rate == 0, "dropout_rate", self.dropout_rate,
                f"0, since model {self.model!r} has no dropout")
