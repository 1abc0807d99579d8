"""Colorization: the colour class of every pixel from its grey value and what surrounds it.

What the task asks of a model (`ColorizationObjective`), and how a model is built and loaded.
"""

import os

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from ..core.training import evaluate, seeded
from ..core.weights import read
from . import figures
from . import metrics as color_metrics
from .config import ColorizationConfig
from .data import ColorizationData, ColorSplit
from .model import ColorizationCNN, ColorizationUNet, Colorizer
from .palette import (
    PaletteError,
    colored,
    decode,
)
from .tables import GreyTable, luminance_table, row_table

PICTURED = 8  # test images in the tracking mirror


class ColorizationObjective:
    """Cross-entropy over pixels, in nats; a mirrored image is as good an example as the image."""

    def __init__(self, config: ColorizationConfig):
        self.num_colors, self.mirror, self.shift = config.num_colors, config.mirror, config.shift

    @staticmethod
    def inputs(split: ColorSplit, index: torch.Tensor | slice) -> torch.Tensor:
        """See `ColorSplit.inputs`."""
        return split.inputs(index)

    def augment(self, train: ColorSplit) -> ColorSplit:
        """The training images of one epoch: a random half mirrored and all moved, if the config says so."""
        if self.mirror:
            mirrored = (torch.rand(len(train.images)) < 0.5).to(train.images.device)
            train = ColorSplit(*(torch.where(mirrored.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)
                                 for x in train))
        if self.shift:
            moves = torch.randint(-self.shift, self.shift + 1, (2, len(train.images)))
            train = moved(train, *moves.to(train.images.device))
        return train

    def loss(
        self, output: torch.Tensor, split: ColorSplit, index
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a batch, and the sums that `metrics` reads, (2 + 2 NC,) float64."""
        colors = split.colors[index].flatten().long()
        # (B, NC, H, W) -> (BHW, NC), no copy where the network works channels last
        logits = output.permute(0, 2, 3, 1).reshape(-1, self.num_colors)
        cross_entropy = F.cross_entropy(logits, colors)
        with torch.no_grad():
            correct = logits.argmax(1) == colors
            sums = torch.cat([
                torch.stack([torch.ones_like(cross_entropy), cross_entropy]).double() * len(colors),
                torch.bincount(colors, minlength=self.num_colors).double(),
                torch.bincount(colors[correct], minlength=self.num_colors).double(),
            ])  # fmt: skip
        return cross_entropy, sums

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        """Means over the pixels summed; accuracies in [0, 1], nll in nats a pixel.

        Balanced accuracy is the mean over the colours that occur of each one's accuracy.
        """
        pixels, cross_entropy = sums[:2].tolist()
        counts, correct = sums[2:].cpu().chunk(2)
        occurs = counts > 0
        return {
            "loss": cross_entropy / pixels,
            "nll": cross_entropy / pixels,
            "accuracy": (correct.sum() / pixels).item(),
            "balanced_accuracy": (correct[occurs] / counts[occurs]).mean().item(),
        }

    def diagnose(self, model: Colorizer, train: ColorSplit) -> dict[str, float]:
        """Nothing beyond the metrics."""
        return {}

    def examine(self, model: Colorizer, data: ColorizationData) -> dict:
        """What the finished model is worth on the test images, all of `metrics`' measures.

        And on validation and test with test-time mirroring, `val_mirror_*` and `test_mirror_*`.
        """
        found = {}
        for prefix, split, mirror in (("test_", data.test, False), ("test_mirror_", data.test, True),
                                      ("val_mirror_", data.validation, True)):  # fmt: skip
            measured = color_metrics.score(model, split, data.palette, mirror=mirror).metrics().iloc[0]
            found |= {prefix + name: value for name, value in measured.items()}
        test = evaluate(model, self, data.test)
        return {"metrics": found | {f"test_{key}": value for key, value in test.items()}}

    def pictures(self, examined: dict, model: Colorizer, data: ColorizationData) -> dict[str, Figure]:
        """Figures for the tracking mirror: a few test images, grey, true and coloured."""
        few = ColorSplit(*(x[:PICTURED] for x in data.test))
        columns = {"grey": few.grey, "truth": few.images,
                   "truth in palette": decode(few.colors, data.palette)}  # fmt: skip
        return {"colorized": figures.pictures(columns | colored(model, few)).flat[0].figure}


def moved(split: ColorSplit, down: torch.Tensor, right: torch.Tensor) -> ColorSplit:
    """Each image moved by its own (N,) whole pixels; its reflection at the border moves in."""
    def source(size: int, move: torch.Tensor) -> torch.Tensor:  # (N, size), where a pixel comes from
        index = (torch.arange(size, device=move.device) - move.view(-1, 1)).abs()
        return torch.where(index < size, index, 2 * (size - 1) - index)

    height, width = split.grey.shape[-2:]
    image = torch.arange(len(down), device=down.device).view(-1, 1, 1)
    row, column = source(height, down)[:, :, None], source(width, right)[:, None, :]

    def move(pixels: torch.Tensor) -> torch.Tensor:  # (N, C, H, W)
        return pixels.permute(0, 2, 3, 1)[image, row, column].permute(0, 3, 1, 2).contiguous()

    return ColorSplit(move(split.images), move(split.grey), split.colors[image, row, column])


def build(
    config: ColorizationConfig, data: ColorizationData, seed: int
) -> tuple[ColorizationObjective, Colorizer]:
    """The objective and the seeded, untrained model of a configuration.

    Raises:
        PaletteError: the data are encoded in another number of colours than the config's.
        ValueError: a kernel larger than the images.
    """
    if len(data.palette) != config.num_colors:
        raise PaletteError(f"the data's palette has {len(data.palette)} colours, expected the "
                           f"config's {config.num_colors}; prepare the images with num_colors="
                           f"{config.num_colors}")
    size = min(data.train.images.shape[-2:])
    if config.kernel_size > size:
        raise ValueError(f"kernel_size: found {config.kernel_size}, expected at most {size}, the "
                         "images' side")
    table = {"cnn": None, "cnn_prior": luminance_table, "unet": row_table}[config.model]
    prior = table and table(data.train.grey, data.train.colors, config.num_colors)
    with seeded(seed, "model"):
        model = Colorizer(_network(config), data.palette, prior)
    return ColorizationObjective(config), model


def _network(config: ColorizationConfig) -> ColorizationCNN | ColorizationUNet:
    sizes = {"num_filters": config.num_filters, "num_colors": config.num_colors,
             "kernel_size": config.kernel_size}
    if config.model == "unet":
        return ColorizationUNet(**sizes, dropout_rate=config.dropout_rate)
    return ColorizationCNN(**sizes)


def load_colorizer(file: str | os.PathLike, config: ColorizationConfig,
                   palette: torch.Tensor | None = None) -> Colorizer:
    """A trained model from the weights that a run leaves, in evaluation mode.

    Palette and prior are part of the weights. Give `palette` to insist on one.

    Raises:
        WeightsError: the file is missing, altered or no safetensors file.
        PaletteError: the weights belong to another palette.
        ValueError: the weights belong to another configuration.
    """
    # weights ship in half precision
    state = {name: value.float() if value.is_floating_point() else value for name, value in read(file).items()}
    found = state.get("palette")
    if found is None or len(found) != config.num_colors:
        colors = "no palette" if found is None else f"a palette of {len(found)} colours"
        raise PaletteError(f"{file}: found {colors}, expected {config.num_colors} colours; load it "
                           "with the run's own config")
    if palette is not None and not torch.equal(found, palette):
        raise PaletteError(f"{file}: its palette starts {found[:3].tolist()}, expected "
                           f"{palette[:3].tolist()}; decode with the palette that the weights hold")
    prior = GreyTable(state["prior.log_probs"]) if "prior.log_probs" in state else None
    model = Colorizer(_network(config), found, prior)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{file} holds the weights of another network than {config} builds; load "
                         f"it with the run's own config ({error})") from error
    return model.eval()
