"""What a Q1 run may be asked; its objective and network, built or loaded."""

import os
import warnings
from dataclasses import dataclass

from ..core import weights
from ..core.config import Config, option, require, require_one_of
from ..core.training import seeded
from .fashion_mnist import FashionMNIST
from .model import MultiTaskCNN
from .objective import MultiTaskObjective

OF_THE_NETWORK = (
    "num_layers",
    "base_filters",
    "dropout_rate",
    "hidden",
    "ceil_mode",
    "backbone",
    "pairs",
    "pooling",
    "block_dropout",
    "ink_hidden",
    "ink_dropout",
    "normalize",
)


@dataclass(frozen=True, kw_only=True)
class MultiTaskConfig(Config):
    """One multi-task run on Fashion-MNIST: joint loss lambda1 * CE + lambda2 * MSE.

    What the reference report did not vary has a default that leaves its ten configurations as they are.
    """

    lambda1: float = option(1.0, "weight of the classification loss, a cross-entropy")
    lambda2: float = option(1.0, "weight of the ink loss, a mean squared error")
    dropout_rate: float = option(0.3, "before the class head's last layer")
    num_layers: int = option(3, "blocks of the shared backbone, 2 or 3")
    base_filters: int = option(32, "channels after the first block; each further one doubles them")
    ink_scaling: str = option(
        "raw", "raw, or z_score: the ink error in deviations of the training images' ink"
    )
    weighting: str = option(
        "fixed", "fixed, or uncertainty: learnt weights (Kendall et al. 2018), lambdas ignored"
    )
    label_smoothing: float = option(0.0, "probability that the class loss spreads over all classes")
    mirror: bool = option(False, "a random half of the images mirrored: ink stays")
    shift: int = option(
        0, "pixels that images move by at most, zeros moving in, as a random crop with that padding"
    )
    hidden: int = option(128, "units of either head's hidden layer")
    ceil_mode: bool = option(False, "pools that keep the border: 28 -> 14 -> 7 -> 4 instead of 3")
    rotation: float = option(0.0, "degrees that images turn by at most, zeros moving in")
    ink_target: str = option(
        "augmented", "the image whose ink is learnt: augmented, the one shown, or original"
    )
    backbone: str = option("plain", "plain, or residual")
    pairs: int = option(1, "residual pairs a block")
    pooling: str = option("flatten", "flatten the last maps, or the average of each")
    block_dropout: float = option(0.0, "after every block")
    ink_hidden: int = option(0, "units of the ink head's hidden layer; 0: as many as hidden")
    ink_dropout: float = option(
        0.0, "before the ink head's last layer; ink is a function of the image, so it only blurs"
    )
    normalize: bool = option(
        False, "pixels standardized, by the mean and deviation of Fashion-MNIST"
    )

    def __post_init__(self):
        super().__post_init__()
        for key in ("lambda1", "lambda2"):
            require(0 <= getattr(self, key) < float("inf"), key, getattr(self, key), "0 or more")
        require(
            self.lambda1 + self.lambda2 > 0,
            "lambda1",
            self.lambda1,
            "lambda1 and lambda2 not both 0: the joint loss would be constant",
        )
        for key in ("dropout_rate", "label_smoothing", "block_dropout", "ink_dropout"):
            require(0 <= getattr(self, key) < 1, key, getattr(self, key), "0 <= value < 1")
        require(self.num_layers in (2, 3), "num_layers", self.num_layers, "2 or 3")
        for key in ("base_filters", "hidden", "pairs"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")
        require_one_of(
            self,
            ink_scaling=("raw", "z_score"),
            weighting=("fixed", "uncertainty"),
            backbone=("plain", "residual"),
            pooling=("flatten", "average"),
            ink_target=("augmented", "original"),
        )
        require(
            self.pairs == 1 or self.backbone == "residual",
            "pairs",
            self.pairs,
            f"1, since backbone {self.backbone!r} has none",
        )
        require(self.ink_hidden >= 0, "ink_hidden", self.ink_hidden, "0 or more")
        require(
            0 <= self.shift <= 8,
            "shift",
            self.shift,
            "0 to 8 pixels, so that most of the image stays",
        )
        require(0 <= self.rotation <= 180, "rotation", self.rotation, "0 to 180 degrees")

    def build(self, data: FashionMNIST, seed: int) -> tuple[MultiTaskObjective, MultiTaskCNN]:
        """As for every config; `data` gives the scale of ink, from its training images."""
        if self.ink_target == "original" and (self.shift or self.rotation):
            warnings.warn(
                "config key 'ink_target': found 'original' with a shift or rotation, which moves ink out of "
                "the picture, so the target is stale; 'augmented' measures it anew",
                stacklevel=2,
            )
        scale = data.train.ink.mean().item(), data.train.ink.std(correction=0).item()
        with seeded(seed, "model"):
            return MultiTaskObjective(self, scale[1] ** 2), self.network(scale)

    def load(self, file: str | os.PathLike) -> MultiTaskCNN:
        return weights.fill(self.network(), weights.read(file), file)

    def network(self, ink_scale: tuple[float, float] = (0.0, 1.0)) -> MultiTaskCNN:
        """The untrained network; `ink_scale` (mean, deviation) matters to z-scored ink alone."""
        return MultiTaskCNN(
            **{key: getattr(self, key) for key in OF_THE_NETWORK},
            learn_weights=self.weighting == "uncertainty",
            ink_scale=ink_scale if self.ink_scaling == "z_score" else None,
        )
