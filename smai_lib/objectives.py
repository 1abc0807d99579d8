"""What a task asks of a model: its inputs, its loss, its metrics, and the trivial answers to beat.

An objective turns a batch into a loss and into *sums* over images; metrics are computed from the
sums over a whole split, so that a short last batch weighs what it should and an RMSE is the root
of a mean over images, never a mean of batch RMSEs.
"""

import pandas as pd
import torch
import torch.nn.functional as F

from .config import MultiTaskConfig
from .data import FashionMNIST, Split
from .models import MultiTaskOutput


class MultiTaskObjective:
    """Joint loss lambda1 * CE + lambda2 * MSE of class and ink."""

    def __init__(self, config: MultiTaskConfig):
        self.lambda1, self.lambda2 = config.lambda1, config.lambda2

    @staticmethod
    def inputs(split: Split, index: torch.Tensor | slice) -> torch.Tensor:
        """Raw images as the model wants them: (B, 1, 28, 28) float32 in [0, 1], channels last."""
        return split.images[index].float().div_(255).contiguous(memory_format=torch.channels_last)

    def augment(self, train: Split) -> Split:
        """The training images of one epoch, as they are: other images would have other ink."""
        return train

    def loss(self, output: MultiTaskOutput, split: Split, index) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a batch, and the sums that `metrics` reads, (7,) float64."""
        labels, ink = split.labels[index], split.ink[index]
        cross_entropy = F.cross_entropy(output.logits, labels)
        mse = F.mse_loss(output.ink, ink)
        with torch.no_grad():
            error = (output.ink - ink).double()
            target = ink.double()
            sums = torch.stack([
                torch.tensor(float(len(labels)), dtype=torch.float64, device=labels.device),
                cross_entropy.double() * len(labels),
                (output.logits.argmax(1) == labels).sum().double(),
                error.square().sum(),
                error.abs().sum(),
                target.sum(),
                target.square().sum(),
            ])  # fmt: skip
        return self.lambda1 * cross_entropy + self.lambda2 * mse, sums

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        """Means over the images summed; accuracy in [0, 1], ink errors in units of ink."""
        n, cross_entropy, correct, squared, absolute, ink, ink_squared = sums.tolist()
        mse = squared / n
        variance = ink_squared / n - (ink / n) ** 2
        return {
            "loss": self.lambda1 * cross_entropy / n + self.lambda2 * mse,
            "cross_entropy": cross_entropy / n,
            "accuracy": correct / n,
            "mse": mse,
            "mae": absolute / n,
            "rmse": mse**0.5,
            "r2": 1 - mse / variance,
        }


def ink_baselines(data: FashionMNIST, split: Split) -> pd.DataFrame:
    """RMSE and R2 on `split` of three predictions of ink that need no network.

    The constant and the class means are those of the training images; the class mean is told the
    true class, so it is what perfect classification alone would buy. `x.mean()` is the definition
    of ink.
    """
    train = data.train
    class_means = torch.stack([train.ink[train.labels == label].mean() for label in range(10)])
    predictions = {
        "constant (training mean)": train.ink.mean().expand(len(split.ink)),
        "mean of the true class": class_means[split.labels],
        "x.mean()": split.images.float().div(255).mean((1, 2, 3)),
    }
    variance = split.ink.double().var(correction=0)
    rows = []
    for name, prediction in predictions.items():
        mse = (prediction - split.ink).double().square().mean()
        rows.append({"ink predicted by": name, "rmse": mse.sqrt().item(),
                     "r2": (1 - mse / variance).item()})
    return pd.DataFrame(rows)
