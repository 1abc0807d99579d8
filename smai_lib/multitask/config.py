"""Config of a multi-task run: what to train on Fashion-MNIST, and the network that it builds."""

import warnings
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ..core.config import Config, unused_key
from ..core.errors import ConfigError
from ..core.training import seeded
from .data import FashionMNIST
from .model import MultiTaskCNN
from .task import MultiTask


class MultiTaskConfig(Config):
    """One multi-task run; the joint loss is lambda1 * cross-entropy + lambda2 * MSE of ink.

    A key that the reference report did not vary has a default that matches its ten configurations.
    """

    kind: ClassVar[str] = "MultiTaskConfig"
    task: ClassVar[str] = "multitask"

    lambda1: float = Field(1.0, ge=0, description="weight of the classification loss, a CE")
    lambda2: float = Field(1.0, ge=0, description="weight of the ink loss, an MSE")
    dropout_rate: float = Field(
        0.3, ge=0, lt=1, description="dropout before the class head's last layer"
    )
    num_layers: int = Field(3, ge=2, le=3, description="blocks of the shared backbone")
    base_filters: int = Field(
        32, ge=1, le=1024, description="channels of the first block; each further one doubles them"
    )
    ink_scaling: Literal["raw", "z_score"] = Field(
        "raw", description="unit of the ink loss; z_score: the training images' standard deviation"
    )
    weighting: Literal["fixed", "uncertainty"] = Field(
        "fixed", description="loss weights: the lambdas, or learned (Kendall et al. 2018)"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="probability mass that the labels spread over all classes"
    )
    mirror: bool = Field(False, description="mirror a random half of the training images")
    shift: int = Field(
        0, ge=0, le=8, description="largest random shift in pixels, zero-padded (a random crop)"
    )
    hidden: int = Field(128, ge=1, le=2**14, description="units of each head's hidden layer")
    ceil_mode: bool = Field(
        False, description="pools round up and keep the border: 28 -> 14 -> 7 -> 4 instead of 3"
    )
    rotation: float = Field(
        0.0, ge=0, le=180, description="largest random rotation in degrees, zero-padded"
    )
    ink_target: Literal["augmented", "original"] = Field(
        "augmented", description="image whose ink is the target: the augmented or the original one"
    )
    backbone: Literal["plain", "residual"] = Field("plain", description="kind of blocks")
    pairs: int = Field(1, ge=1, le=64, description="residual pairs of convolutions in a block")
    pooling: Literal["flatten", "average"] = Field(
        "flatten", description="features of the heads: all values of the last maps, or their means"
    )
    block_dropout: float = Field(0.0, ge=0, lt=1, description="dropout after every block")
    ink_hidden: int = Field(
        0, ge=0, le=2**14, description="units of the ink head's hidden layer; 0: as many as hidden"
    )
    ink_dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout before the ink head's last layer"
    )
    normalize: bool = Field(
        False, description="standardize pixels by mean and deviation of Fashion-MNIST"
    )

    @model_validator(mode="after")
    def _check_network(self) -> Self:
        if self.pairs != 1 and self.backbone != "residual":
            raise unused_key("pairs", self.pairs, f"backbone {self.backbone!r} has no pairs")
        return self

    @model_validator(mode="after")
    def _check_ink_target(self) -> Self:
        if self.ink_target != "augmented" and not (self.shift or self.rotation):
            reason = "without shift and rotation no ink leaves the image"
            raise unused_key("ink_target", self.ink_target, reason)
        return self

    @model_validator(mode="after")
    def _check_lambdas(self) -> Self:
        if self.lambda1 == self.lambda2 == 0:
            raise ValueError(
                "config keys 'lambda1' and 'lambda2': found 0 for both, expected one above 0"
            )
        return self

    def build(self, data: FashionMNIST, seed: int) -> tuple[MultiTask, MultiTaskCNN]:
        """Return the task and the seeded, untrained network.

        Args:
            data: its training images give mean and standard deviation of ink.
            seed: seed of the initial weights.

        Raises:
            ConfigError: ink is to be z-scored, but all training images have the same.
        """
        if self.ink_target == "original" and (self.shift or self.rotation):
            warnings.warn(
                "config key 'ink_target': found 'original' with a shift or rotation, which moves "
                "ink out of the image, so the target is stale; 'augmented' measures it again",
                stacklevel=2,
            )
        mean, deviation = data.train.ink.mean().item(), data.train.ink.std(correction=0).item()
        if self.ink_scaling == "z_score" and not deviation:
            raise ConfigError(
                "config key 'ink_scaling': found 'z_score', but all training images have the same "
                "ink; use 'raw', or more images"
            )
        with seeded(seed, "model"):
            network = self.build_network((mean, deviation))
        return MultiTask(self, deviation**2), network

    def build_network(self, ink_scale: tuple[float, float] = (0.0, 1.0)) -> MultiTaskCNN:
        """Return the untrained network.

        Args:
            ink_scale: mean and standard deviation of ink, which z-scored ink needs.
        """
        return MultiTaskCNN(self, ink_scale)
