"""The config of a colorization run; it builds or loads the run's task and network."""

import os
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import nn

from ..core.config import Config, unused_key
from ..core.errors import ConfigError
from ..core.files import load_into, read_weights
from ..core.training import seeded
from .baselines import GreyTable, luminance_table, row_table
from .data import ColorizationData
from .model import ColorizationCNN, ColorizationUNet, Colorizer
from .palette import SUPPLIED
from .task import Colorization

# model -> function of the training images that makes its prior
PRIORS = {"cnn": None, "cnn_prior": luminance_table, "unet": row_table, "unet_no_prior": None}
CLASS_HEAD_WEIGHTS = "network.class_head."  # how their names begin; colouring does without them


class ColorizationConfig(Config):
    """One colorization run; the defaults are those of the reference report's best run."""

    kind: ClassVar[str] = "ColorizationConfig"
    task: ClassVar[str] = "colorization"

    batch_size: int = Field(32, ge=2, le=2**16, description="images per step")
    epochs: int = Field(25, ge=1, le=10**5, description="passes over the training images")
    model: Literal["cnn", "cnn_prior", "unet", "unet_no_prior"] = Field(
        "cnn", description="network, with or without a table of colours by grey level as prior"
    )
    num_filters: int = Field(32, ge=1, le=1024, description="NF, channels after the first block")
    kernel_size: int = Field(5, ge=1, le=1024, description="k of the convolutions, odd")
    num_colors: int = Field(24, ge=2, le=256, description="NC, colours of the palette")
    dropout_rate: float = Field(0.0, ge=0, lt=1, description="dropout of channels, U-Net only")
    mirror: bool = Field(False, description="mirror a random half of the training images")
    shift: int = Field(
        0, ge=0, le=16, description="shift training images by up to this many pixels, reflected"
    )
    class_weight: float = Field(
        0.0, ge=0, le=100, description="weight of an auxiliary class loss in training, U-Net only"
    )

    @field_validator("kernel_size")
    @classmethod
    def _check_kernel(cls, kernel_size: int) -> int:
        if kernel_size % 2 == 0:
            raise ValueError("an odd number, so that padding keeps the size")
        return kernel_size

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        for key in ("dropout_rate", "class_weight"):
            value = getattr(self, key)
            if value and not self.is_unet:
                raise unused_key(key, value, f"model {self.model!r} does not use it")
        return self

    @property
    def is_unet(self) -> bool:
        """Whether the network is a U-Net."""
        return self.model.startswith("unet")

    def build(self, data: ColorizationData, seed: int) -> tuple[Colorization, Colorizer]:
        """Return the task and the seeded, untrained network with palette and prior.

        Args:
            data: its palette is the network's, and its training images make the prior.
            seed: seed of the initial weights.

        Raises:
            ConfigError: the palette has another number of colours, or the kernel is larger than
                the images.
        """
        if len(data.palette) != self.num_colors:
            raise ConfigError(
                f"num_colors: found {self.num_colors}, but the palette of the data has "
                f"{len(data.palette)} colours; prepare the images with that number"
            )
        side = min(data.train.images.shape[-2:])
        if self.kernel_size > side:
            raise ConfigError(
                f"config key 'kernel_size': found {self.kernel_size}, expected at most {side}, "
                "the height and width of the images"
            )
        make_prior = PRIORS[self.model]
        prior = make_prior(data.train, self.num_colors) if make_prior else None
        with seeded(seed, "model"):
            network = self.build_network(len(data.names) if self.class_weight else 0)
            if self.model != "cnn":  # untrained, it predicts its prior, or all colours alike
                nn.init.zeros_(network.classifier.weight)
                nn.init.zeros_(network.classifier.bias)
            return Colorization(self), Colorizer(network, data.palette, prior)

    def load_model(self, file: str | os.PathLike) -> Colorizer:
        """Return the network with the weights in `file`, in evaluation mode.

        Palette and prior are part of the weights. Half precision is read, too. The auxiliary class
        head is left out: it is used in training only.

        Raises:
            IntegrityError: the file is missing, altered, or holds another network's weights.
        """
        state = {}
        for name, value in read_weights(file).items():
            if not name.startswith(CLASS_HEAD_WEIGHTS):
                state[name] = value.float() if value.is_floating_point() else value
        prior = None
        if PRIORS[self.model]:
            prior = GreyTable(torch.zeros_like(state.get("prior.log_probs", torch.empty(0))))
        # fitted palettes are uint8, the supplied one is float32
        dtype = state.get("palette", SUPPLIED).dtype
        palette = torch.zeros(self.num_colors, 3, dtype=dtype)
        return load_into(Colorizer(self.build_network(), palette, prior), state, file)

    def build_network(self, num_classes: int = 0) -> ColorizationCNN | ColorizationUNet:
        """Return the untrained network, without palette and prior.

        Args:
            num_classes: classes of the auxiliary head; 0: no head.
        """
        sizes = self.model_dump(include={"num_filters", "num_colors", "kernel_size"})
        if self.is_unet:
            return ColorizationUNet(
                **sizes, dropout_rate=self.dropout_rate, num_classes=num_classes
            )
        return ColorizationCNN(**sizes)
