"""What colorization asks of a model: the colour class of every pixel from its grey value and what surrounds it."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from ..core.training import evaluate
from . import figures, metrics
from .data import ColorizationData, ColorSplit
from .model import Colorizer
from .palette import colored, decode

PICTURED = 8  # test images in the tracking mirror


class ColorizationObjective:
    """Cross-entropy over pixels, in nats; a mirrored image is as good an example as the image."""

    def __init__(self, config):
        self.num_colors, self.mirror, self.shift = config.num_colors, config.mirror, config.shift

    @staticmethod
    def inputs(split: ColorSplit, index: torch.Tensor | slice) -> torch.Tensor:
        """See `ColorSplit.inputs`."""
        return split.inputs(index)

    def augment(self, train: ColorSplit) -> ColorSplit:
        """The training images of one epoch: a random half mirrored and all moved, if the config says so."""
        if self.mirror:
            mirrored = (torch.rand(len(train.images)) < 0.5).to(train.images.device)
            *pictures, labels = train
            train = ColorSplit(
                *(
                    torch.where(mirrored.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)
                    for x in pictures
                ),
                labels,
            )
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
            correct = (
                logits.max(1).indices == colors
            )  # the first of equals, as argmax, in half its time
            over_pixels = torch.stack(
                [torch.ones_like(cross_entropy), cross_entropy]
            ).double() * len(colors)
            counts = [
                torch.bincount(some, minlength=self.num_colors).double()
                for some in (colors, colors[correct])
            ]
            sums = torch.cat([over_pixels, *counts])
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
        """What the finished model is worth on the test images, all of `color_metrics`' measures.

        And on validation and test with test-time mirroring, `val_mirror_*` and `test_mirror_*`.
        """
        found = {}
        for prefix, split, mirror in (
            ("test_", data.test, False),
            ("test_mirror_", data.test, True),
            ("val_mirror_", data.validation, True),
        ):
            measured = metrics.score(model, split, data.palette, mirror=mirror).metrics()
            found |= measured.add_prefix(prefix).iloc[0].to_dict()
        test = evaluate(model, self, data.test)
        return {"metrics": found | {f"test_{key}": value for key, value in test.items()}}

    def pictures(
        self, examined: dict, model: Colorizer, data: ColorizationData
    ) -> dict[str, Figure]:
        """Figures for the tracking mirror: a few test images, grey, true and coloured."""
        few = ColorSplit(*(x[:PICTURED] for x in data.test))
        columns = {
            "grey": few.grey,
            "truth": few.images,
            "truth in palette": decode(few.colors, data.palette),
        }
        return {"colorized": figures.pictures(columns | colored(model, few)).flat[0].figure}


def moved(split: ColorSplit, down: torch.Tensor, right: torch.Tensor) -> ColorSplit:
    """Each image moved by its own (N,) whole pixels; its reflection at the border moves in."""

    def source(
        size: int, move: torch.Tensor
    ) -> torch.Tensor:  # (N, size), where a pixel comes from
        index = (torch.arange(size, device=move.device) - move.view(-1, 1)).abs()
        return torch.where(index < size, index, 2 * (size - 1) - index)

    height, width = split.grey.shape[-2:]
    image = torch.arange(len(down), device=down.device).view(-1, 1, 1)
    row, column = source(height, down)[:, :, None], source(width, right)[:, None, :]

    def move(pixels: torch.Tensor) -> torch.Tensor:  # (N, C, H, W)
        return pixels.permute(0, 2, 3, 1)[image, row, column].permute(0, 3, 1, 2).contiguous()

    return ColorSplit(
        move(split.images), move(split.grey), split.colors[image, row, column], split.labels
    )
