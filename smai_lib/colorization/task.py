"""The colorization task: classify every pixel into a colour, from its grey value and around it."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from ..core.training import evaluate
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
        if self.config.mirror:
            mirrored = (torch.rand(len(train.images)) < 0.5).to(train.images.device)
            train = mirror(train, mirrored)
        if self.config.shift:
            most = self.config.shift
            shifts = torch.randint(-most, most + 1, (2, len(train.images)))
            train = shift(train, *shifts.to(train.images.device))
        return train

    def loss(
        self, output: torch.Tensor | ColorOutput, split: ColorSplit, index: torch.Tensor | slice
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of a batch, and the sums (2 + 2 NC,) float64 that `metrics` needs."""
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
            totals = torch.stack([torch.ones_like(cross_entropy), cross_entropy]).double()
            counts = [
                torch.bincount(subset, minlength=self.config.num_colors).double()
                for subset in (colors, colors[correct])
            ]
            sums = torch.cat([totals * len(colors), *counts])
        return cross_entropy + self.config.class_weight * class_loss, sums

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        """Return means over pixels: accuracies in [0, 1], nll in nats.

        Balanced accuracy is the mean of the accuracies of all colours that occur.
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

    def epoch_diagnostics(self, model: Colorizer, train: ColorSplit) -> dict[str, float]:
        """Return no further columns."""
        return {}

    def final_metrics(self, model: Colorizer, data: ColorizationData) -> dict:
        """Return all metrics of `metrics.Scores` on the test split.

        Those with `mirror` in their names, also on validation, average the probabilities of an
        image and its mirror image.
        """
        splits = {
            "test_": (data.test, False),
            "test_mirror_": (data.test, True),
            "val_mirror_": (data.validation, True),
        }
        final = {}
        for prefix, (split, mirrored) in splits.items():
            scores = metrics.score(model, split, data.palette, mirror=mirrored).metrics()
            final |= scores.add_prefix(prefix).iloc[0].to_dict()
        test = evaluate(model, self, data.test)
        final |= {f"test_{key}": value for key, value in test.items()}
        return {"metrics": final}

    def figures(self, final: dict, model: Colorizer, data: ColorizationData) -> dict[str, Figure]:
        """Return a figure of some test images: grey, true and colorized."""
        few = ColorSplit(*(column[:TRACKED_IMAGES] for column in data.test))
        columns = {
            "grey": few.grey,
            "truth": few.images,
            "truth in palette": decode(few.colors, data.palette),
            **colorize(model, few),
        }
        return {"colorized": plots.plot_pictures(columns).flat[0].figure}


def mirror(split: ColorSplit, mirrored: torch.Tensor) -> ColorSplit:
    """Return a split whose images are mirrored where `mirrored`, (N,) bool, says so."""
    *pictures, labels = split
    flipped = []
    for pixels in pictures:
        mask = mirrored.view(-1, *[1] * (pixels.ndim - 1))
        flipped.append(torch.where(mask, pixels.flip(-1), pixels))
    return ColorSplit(*flipped, labels)


def shift(split: ColorSplit, down: torch.Tensor, right: torch.Tensor) -> ColorSplit:
    """Return a split with every image shifted, and filled by its reflection at the border.

    Args:
        split: N images.
        down: (N,) whole pixels.
        right: (N,) whole pixels.
    """
    height, width = split.grey.shape[-2:]
    image = torch.arange(len(down), device=down.device).view(-1, 1, 1)
    row = _reflected(height, down)[:, :, None]
    column = _reflected(width, right)[:, None, :]

    def take(pixels: torch.Tensor) -> torch.Tensor:  # (N, C, H, W)
        shifted = pixels.permute(0, 2, 3, 1)[image, row, column]
        return shifted.permute(0, 3, 1, 2).contiguous()

    colors = split.colors[image, row, column]
    return ColorSplit(take(split.images), take(split.grey), colors, split.labels)


def _reflected(size: int, by: torch.Tensor) -> torch.Tensor:
    """Return the index (N, size) from which every pixel comes after a shift."""
    index = (torch.arange(size, device=by.device) - by.view(-1, 1)).abs()
    return torch.where(index < size, index, 2 * (size - 1) - index)
