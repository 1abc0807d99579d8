"""What a Q1 run may be asked; its objective and network, built or loaded."""

import os
from dataclasses import dataclass

from ..core import weights
from ..core.config import Config, require, require_one_of
from ..core.training import seeded
from .fashion_mnist import FashionMNIST
from .model import MultiTaskCNN
from .objective import MultiTaskObjective

INK_SCALINGS = ("raw", "z_score")
WEIGHTINGS = ("fixed", "uncertainty")


@dataclass(frozen=True, kw_only=True)
class MultiTaskConfig(Config):
    """One multi-task run on Fashion-MNIST: joint loss lambda1 * CE + lambda2 * MSE.

    What the reference report did not vary has a default that leaves its ten configurations as they are.
    """

    lambda1: float = 1.0
    lambda2: float = 1.0
    dropout_rate: float = 0.3
    num_layers: int = 3
    base_filters: int = 32
    ink_scaling: str = "raw"  # "z_score" divides the ink error by the training images' deviation
    weighting: str = "fixed"  # "uncertainty" learns the weights (Kendall et al. 2018), lambdas ignored
    label_smoothing: float = 0.0
    mirror: bool = False  # a random half of the images mirrored: ink stays
    shift: int = 0  # pixels that images move by at most, zeros moving in: ink is measured anew
    hidden: int = 128  # units of either head's hidden layer
    ceil_mode: bool = False  # pools that keep the border: 28 -> 14 -> 7 -> 4 instead of 3

    def __post_init__(self):
        super().__post_init__()
        for key in ("lambda1", "lambda2"):
            require(0 <= getattr(self, key) < float("inf"), key, getattr(self, key), "0 or more")
        require(self.lambda1 + self.lambda2 > 0, "lambda1", self.lambda1,
                "lambda1 and lambda2 not both 0: the joint loss would be constant")
        for key in ("dropout_rate", "label_smoothing"):
            require(0 <= getattr(self, key) < 1, key, getattr(self, key), "0 <= value < 1")
        require(self.num_layers in (2, 3), "num_layers", self.num_layers, "2 or 3")
        for key in ("base_filters", "hidden"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        require_one_of(self, ink_scaling=INK_SCALINGS, weighting=WEIGHTINGS)
        require(0 <= self.shift <= 8, "shift", self.shift, "0 to 8 pixels")

    def build(self, data: FashionMNIST, seed: int) -> tuple[MultiTaskObjective, MultiTaskCNN]:
        """As for every config; `data` gives the scale of ink, from its training images."""
        scale = data.train.ink.mean().item(), data.train.ink.std(correction=0).item()
        with seeded(seed, "model"):
            return MultiTaskObjective(self, scale[1] ** 2), self.network(scale)

    def load(self, file: str | os.PathLike) -> MultiTaskCNN:
        return weights.fill(self.network(), weights.read(file), file)

    def network(self, ink_scale: tuple[float, float] = (0.0, 1.0)) -> MultiTaskCNN:
        """The untrained network; `ink_scale` (mean, deviation) matters to z-scored ink alone."""
        return MultiTaskCNN(
            num_layers=self.num_layers, base_filters=self.base_filters, dropout_rate=self.dropout_rate,
            hidden=self.hidden, ceil_mode=self.ceil_mode, learn_weights=self.weighting == "uncertainty",
            ink_scale=ink_scale if self.ink_scaling == "z_score" else None)
