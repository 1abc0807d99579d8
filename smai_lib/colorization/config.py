"""What a colorization run is asked to do; the defaults are the reference report's best."""

from dataclasses import dataclass

from ..core.config import Config, require

COLORIZATION_MODELS = ("cnn", "cnn_prior", "unet")


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
