"""What a Q2 run may be asked; its objective and network, built or loaded."""

import os
from dataclasses import dataclass

import torch

from ..core import weights
from ..core.config import Config, option, require, require_one_of
from ..core.training import seeded
from .data import ColorizationData
from .model import ColorizationCNN, ColorizationUNet, Colorizer
from .objective import ColorizationObjective
from .palette import GREY_LEVELS, PaletteError
from .tables import GreyTable, luminance_table, row_table

PRIORS = {"cnn": None, "cnn_prior": luminance_table, "unet": row_table}  # of each model


@dataclass(frozen=True, kw_only=True)
class ColorizationConfig(Config):
    """One colorization run; the defaults are the reference report's best."""

    batch_size: int = option(32, "images a step")
    epochs: int = option(25, "how often every training image is seen")
    model: str = option("cnn", f"one of {', '.join(PRIORS)}")
    num_filters: int = option(32, "the report's NF, channels after the first block")
    kernel_size: int = option(5, "of the convolutions, odd")
    num_colors: int = option(24, "colours of the palette")
    dropout_rate: float = option(0.0, "of channels, for the U-Net")
    mirror: bool = option(False, "show a random half of the images mirrored")
    shift: int = option(0, "pixels that images move by at most, their own reflection moving in")

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.shift <= 16, "shift", self.shift, "0 to 16 pixels")
        require_one_of(self, model=tuple(PRIORS))
        require(self.num_filters >= 1, "num_filters", self.num_filters, "at least 1")
        odd = self.kernel_size >= 1 and self.kernel_size % 2 == 1
        require(odd, "kernel_size", self.kernel_size, "odd, so that padding keeps the size")
        require(2 <= self.num_colors <= 256, "num_colors", self.num_colors, "2 to 256")
        require(0 <= self.dropout_rate < 1, "dropout_rate", self.dropout_rate, "0 <= value < 1")
        require(
            self.model == "unet" or self.dropout_rate == 0,
            "dropout_rate",
            self.dropout_rate,
            f"0, since model {self.model!r} has no dropout",
        )

    def build(self, data: ColorizationData, seed: int) -> tuple[ColorizationObjective, Colorizer]:
        """As for every config; `data` gives the palette, and its training images the prior.

        Raises:
            PaletteError: the data are encoded in another number of colours than the config's.
            ConfigError: a kernel larger than the images.
        """
        if len(data.palette) != self.num_colors:
            raise PaletteError(
                f"the data's palette has {len(data.palette)} colours, expected the config's "
                f"{self.num_colors}; prepare the images with num_colors={self.num_colors}"
            )
        size = min(data.train.images.shape[-2:])
        require(
            self.kernel_size <= size,
            "kernel_size",
            self.kernel_size,
            f"at most {size}, the images' side",
        )
        table = PRIORS[self.model]
        prior = table and table(data.train.grey, data.train.colors, self.num_colors)
        with seeded(seed, "model"):
            return ColorizationObjective(self), Colorizer(self.network(), data.palette, prior)

    def load(self, file: str | os.PathLike) -> Colorizer:
        """As for every config; palette and prior are part of the weights, which may ship in half precision."""
        state = {
            name: value.float() if value.is_floating_point() else value
            for name, value in weights.read(file).items()
        }
        prior = state.get("prior.log_probs", torch.zeros(1, GREY_LEVELS, self.num_colors))
        kind = state["palette"].dtype if "palette" in state else torch.uint8
        empty = Colorizer(
            self.network(),
            torch.zeros(self.num_colors, 3, dtype=kind),
            GreyTable(torch.zeros_like(prior)) if PRIORS[self.model] else None,
        )
        return weights.fill(empty, state, file)

    def network(self) -> ColorizationCNN | ColorizationUNet:
        """The untrained network, without palette and prior."""
        sizes = {
            "num_filters": self.num_filters,
            "num_colors": self.num_colors,
            "kernel_size": self.kernel_size,
        }
        if self.model == "unet":
            return ColorizationUNet(**sizes, dropout_rate=self.dropout_rate)
        return ColorizationCNN(**sizes)
