"""What a multi-task run is asked to do, with the reference report's own keys."""

from dataclasses import dataclass
from typing import ClassVar

from ..core.config import Config, require

INK_SCALINGS = ("raw", "z_score")
WEIGHTINGS = ("fixed", "uncertainty")


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
