"""The colorization task: classify every pixel into a colour, from its grey value and around it."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from . import metrics, plots
from .coloring import colorize
from .data import ColorizationData, ColorSplit
from .model import Colorizer, ColorOutput
from .palette import decode

TRACKED_IMAGES = 8  # test images that wandb logging shows


class Colorization:
    """Cross-entropy over pixels, in nats.

    Args:
        config: a `ColorizationConfig`.
    """

    def __init__(self, config):
        self.config = config

    @staticmethod
    def inputs(split: ColorSplit, index: torch.Tensor | slice) -> torch.Tensor:
        """Return the network's input for the images at `index`: (B, 1, H, W) in [0, 1]."""
        return split.inputs(index)

    def augment(self, train: ColorSplit) -> ColorSplit:
        """Return the training images of one epoch, mirrored and shifted at random."""
        count, most = len(train.grey), self.config.shift
        if not (self.config.mirror or most):
            return train
        mirrored, shifts = torch.zeros(count, dtype=torch.bool), torch.zeros(2, count).long()
        if self.config.mirror:
            mirrored = torch.rand(count) < 0.5
        if most:
            shifts = torch.randint(-most, most + 1, (2, count))
        return mirror_and_shift(train, mirrored, *shifts)

    def loss(
        self, output: torch.Tensor | ColorOutput, split: ColorSplit, index: torch.Tensor | slice
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of a batch, and the sums (1 + 2 NC,) float64 that `metrics` needs.

        They are the cross-entropy, the pixels of each colour, and the correct ones of each colour.
        """
        class_loss = 0.0
        if isinstance(output, ColorOutput):
            class_loss = F.cross_entropy(output.class_logits, split.labels[index])
            output = output.logits
        colors = split.colors[index].flatten().long()
        # (B, NC, H, W) -> (BHW, NC), without a copy where the network works channels last
        logits = output.permute(0, 2, 3, 1).reshape(-1, self.config.num_colors)
        cross_entropy = F.cross_entropy(logits, colors)
        with torch.no_grad():
            correct = logits.max(1).indices == colors  # twice as fast as argmax, same result
            nothing = logits.new_zeros(self.config.num_colors, dtype=torch.float64)
            # unlike `bincount`, which reads the largest colour, this does not wait for a GPU
            pixels = nothing.index_add(0, colors, torch.ones_like(colors, dtype=torch.float64))
            found = nothing.index_add(0, colors, correct.double())
            sums = torch.cat([cross_entropy.double().view(1) * len(colors), pixels, found])
        return cross_entropy + self.config.class_weight * class_loss, sums

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        """Return means over pixels: accuracies in [0, 1], nll in nats.

        Balanced accuracy is the mean of the accuracies of all colours that occur.
        """
        cross_entropy, counts, correct = sums.cpu().split([1, *[self.config.num_colors] * 2])
        pixels, occurs = counts.sum(), counts > 0
        nll = (cross_entropy / pixels).item()
        return {
            "loss": nll,
            "nll": nll,
            "accuracy": (correct.sum() / pixels).item(),
            "balanced_accuracy": (correct[occurs] / counts[occurs]).mean().item(),
        }

    def epoch_diagnostics(self, model: Colorizer, train: ColorSplit) -> dict[str, float]:
        """Return no further columns."""
        return {}

    def final_metrics(self, model: Colorizer, data: ColorizationData) -> dict:
        """Return all metrics of the test split, see `metrics.score` and `metrics.aggregate`.

        Those with `mirror` in their names, also of validation, average the probabilities of an
        image and its mirror image.
        """
        splits = {
            "test_": (data.test, False),
            "test_mirror_": (data.test, True),
            "val_mirror_": (data.validation, True),
        }
        final = {}
        for prefix, (split, mirrored) in splits.items():
            scores = metrics.score(model, split, data.palette, mirror=mirrored)
            final |= {prefix + key: value for key, value in metrics.aggregate(scores).items()}
        return {"metrics": final | {"test_loss": final["test_nll"]}}

    def figures(self, final: dict, model: Colorizer, data: ColorizationData) -> dict[str, Figure]:
        """Return a figure of some test images: grey, true and colorized."""
        few = ColorSplit(*(column[:TRACKED_IMAGES] for column in data.test))
        rows = {
            "grey": few.grey,
            "truth": few.images,
            "truth in palette": decode(few.colors, data.palette),
            **colorize(model, few),
        }
        titles = [data.names[label] for label in few.labels]
        return {"colorized": plots.plot_colorizations(rows, titles)}


def mirror_and_shift(
    split: ColorSplit, mirrored: torch.Tensor, down: torch.Tensor, right: torch.Tensor
) -> ColorSplit:
    """Return a split with every image mirrored or not, then shifted.

    Pixels that are shifted in are the image's reflection at its border.

    Args:
        split: N images.
        mirrored: (N,) bool.
        down: (N,) whole pixels.
        right: (N,) whole pixels.
    """
    height, width = split.grey.shape[-2:]
    row = _reflect(torch.arange(height) - down[:, None], height)  # (N, H), the source of each pixel
    column = _reflect(torch.arange(width) - right[:, None], width)
    column = torch.where(mirrored[:, None], width - 1 - column, column)
    row, column = row.to(split.grey.device), column.to(split.grey.device)

    def take(pixels: torch.Tensor) -> torch.Tensor:  # (N, C, H, W)
        rows = pixels.gather(2, row[:, None, :, None].expand_as(pixels))
        return rows.gather(3, column[:, None, None, :].expand_as(pixels))

    colors = take(split.colors[:, None])[:, 0]
    return ColorSplit(take(split.images), take(split.grey), colors, split.labels)


def _reflect(index: torch.Tensor, size: int) -> torch.Tensor:
    """Return indices reflected into 0 to size - 1."""
    return (size - 1) - ((size - 1) - index.abs()).abs()
