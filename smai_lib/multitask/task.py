"""The multi-task objective: class and ink, jointly; and the trivial answers to beat.

An objective turns a batch into a loss and into *sums* over images. Metrics come from the sums over a whole split: a
short last batch weighs what it should, and an RMSE is the root of a mean over images, never a mean of batch RMSEs.
"""

import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from ..core.training import EVALUATION_BATCH, evaluate
from . import figures
from .fashion_mnist import CLASSES, PIXEL_DEVIATION, PIXEL_MEAN, FashionMNIST, Split, ink_of
from .model import MultiTaskCNN, MultiTaskOutput

PICTURED = 8  # maps of each block in the tracking mirror
CHUNK = 1000  # images that are turned at once; more only needs more memory
DIAGNOSED = slice(0, 512)  # the training images on which gradients are compared


class MultiTaskObjective:
    """Joint loss lambda1 * CE + lambda2 * MSE of class and ink, in one of the ways that a config may ask for.

    With "z_score" the ink error is in standard deviations of the training images' ink, so that its square starts near 1
    and ends at 1 - R2. With "uncertainty" the joint loss is sum(L / (2 exp(s)) + s / 2) with one learnt s each (Kendall,
    Gal, Cipolla 2018).

    Args:
        config: a `MultiTaskConfig`.
        ink_variance: of the training images.
    """

    def __init__(self, config, ink_variance: float = 1.0):
        self.config = config
        self.ink_variance = ink_variance if config.ink_scaling == "z_score" else 1.0

    @staticmethod
    def inputs(split: Split, index: torch.Tensor | slice) -> torch.Tensor:
        """Raw images as the model wants them: (B, 1, 28, 28) float32 in [0, 1], channels last."""
        return split.images[index].float().div_(255).contiguous(memory_format=torch.channels_last)

    def augment(self, train: Split) -> Split:
        """The training images of one epoch: mirrored, which keeps ink, shifted and turned, which loses some."""
        images = train.images
        if self.config.mirror:
            mirrored = (torch.rand(len(images)) < 0.5).to(images.device)
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
        if self.config.shift:
            images = _shifted(images, self.config.shift)
        if self.config.rotation:
            images = _rotated(images, self.config.rotation)
        moved = self.config.shift or self.config.rotation
        ink = ink_of(images) if moved and self.config.ink_target == "augmented" else train.ink
        return Split(images, train.labels, ink)

    def joint(
        self, output: MultiTaskOutput, split: Split, index, cross_entropy, mse
    ) -> torch.Tensor:
        """What training minimises, from the two losses of a batch."""
        if self.config.label_smoothing:
            cross_entropy = F.cross_entropy(
                output.logits, split.labels[index], label_smoothing=self.config.label_smoothing
            )
        mse = mse / self.ink_variance
        if output.log_variances is None:
            return self.config.lambda1 * cross_entropy + self.config.lambda2 * mse
        losses = torch.stack([cross_entropy, mse])
        return (losses / (2 * output.log_variances.exp()) + output.log_variances / 2).sum()

    def loss(
        self, output: MultiTaskOutput, split: Split, index
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a batch, and the sums that `metrics` reads, (7,) float64."""
        labels, ink = split.labels[index], split.ink[index]
        cross_entropy = F.cross_entropy(output.logits, labels)
        mse = F.mse_loss(output.ink, ink)
        with torch.no_grad():
            error, target = (output.ink - ink).double(), ink.double()
            sums = torch.stack(
                [
                    torch.tensor(float(len(labels)), dtype=torch.float64, device=labels.device),
                    cross_entropy.double() * len(labels),
                    (output.logits.argmax(1) == labels).sum().double(),
                    error.square().sum(),
                    error.abs().sum(),
                    target.sum(),
                    target.square().sum(),
                ]
            )
        return self.joint(output, split, index, cross_entropy, mse), sums

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        """Means over the images summed; accuracy in [0, 1], ink errors in units of ink.

        `loss` is lambda1 * cross_entropy + lambda2 * mse, whatever else training minimises.
        """
        n, cross_entropy, correct, squared, absolute, ink, ink_squared = sums.tolist()
        mse = squared / n
        variance = ink_squared / n - (ink / n) ** 2
        return {
            "loss": self.config.lambda1 * cross_entropy / n + self.config.lambda2 * mse,
            "cross_entropy": cross_entropy / n,
            "accuracy": correct / n,
            "mse": mse,
            "mae": absolute / n,
            "rmse": mse**0.5,
            "r2": 1 - mse / variance,
        }

    def diagnose(self, model: MultiTaskCNN, train: Split) -> dict[str, float]:
        """Norms and cosine of the two losses' gradients on the shared backbone, unweighted.

        Of the same training images after every epoch, without dropout and with BatchNorm's running
        statistics. A cosine below 0 says that the tasks pull the backbone apart.
        """
        model.eval()
        parameters = list(model.backbone.parameters())
        output = model(self.inputs(train, DIAGNOSED))
        losses = (
            F.cross_entropy(output.logits, train.labels[DIAGNOSED]),
            F.mse_loss(output.ink, train.ink[DIAGNOSED]) / self.ink_variance,
        )
        first, second = (
            torch.cat(
                [g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True)]
            )
            for loss in losses
        )
        row = {
            "class_gradient": first.norm().item(),
            "ink_gradient": second.norm().item(),
            "gradient_cosine": F.cosine_similarity(first, second, dim=0).item(),
        }
        if output.log_variances is not None:
            # L1 / (2 exp(s1)) + L2 / (2 exp(s2)) weighs as lambda2 / lambda1 = exp(s1 - s2)
            s1, s2 = output.log_variances.tolist()
            row |= {"log_variance_class": s1, "log_variance_ink": s2}
        return row

    def examine(self, model: MultiTaskCNN, data: FashionMNIST) -> dict:
        """What the finished model is worth on the test images: metrics, and the nested confusion counts.

        Accuracy and ink RMSE also averaged over image and mirror image. Of a network that normalizes, `test_mistaken_rmse`
        is against the report's mistaken ink: the mean of the pixels normalized already, divided by 255 once more.
        """
        metrics = {f"test_{key}": value for key, value in evaluate(model, self, data.test).items()}
        for name, split in (("val", data.validation), ("test", data.test)):
            measured = evaluate(_Mirrored(model), self, split)
            metrics |= {f"{name}_mirror_{key}": measured[key] for key in ("accuracy", "rmse")}
        if self.config.normalize:
            mistaken = data.test._replace(ink=(data.test.ink - PIXEL_MEAN) / PIXEL_DEVIATION / 255)
            metrics["test_mistaken_rmse"] = evaluate(model, self, mistaken)["rmse"]
        return {"metrics": metrics, "nested": {"confusion": confusion(model, data.test).tolist()}}

    def pictures(
        self, examined: dict, model: MultiTaskCNN, data: FashionMNIST
    ) -> dict[str, Figure]:
        """Figures for the tracking mirror: the confusion matrix, and the first maps of a test image, one scale a block."""
        tiles, titles = [data.test.images[0]], ["input"]
        hidden = self.inputs(data.test, slice(0, 1))
        for number, block in enumerate(model.eval().backbone, start=1):
            with torch.inference_mode():
                hidden = block(hidden)
            tiles += (hidden[0, :PICTURED, None].float() / hidden.max().clamp_min(1e-6)).unbind(0)
            titles += [
                f"block {number}, {channel}" for channel in range(min(PICTURED, hidden.shape[1]))
            ]
        return {
            "confusion": figures.confusion(examined["nested"]["confusion"], CLASSES).figure,
            "feature_maps": figures.image_grid(tiles, titles, columns=PICTURED).flat[0].figure,
        }


class _Mirrored(torch.nn.Module):
    """The mean of a model's answers to an image and its mirror image."""

    def __init__(self, model: MultiTaskCNN):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> MultiTaskOutput:
        there, back = self.model(images), self.model(images.flip(-1))
        probabilities = (there.logits.softmax(1) + back.logits.softmax(1)) / 2
        return MultiTaskOutput(probabilities.log(), (there.ink + back.ink) / 2)


def _shifted(images: torch.Tensor, most: int) -> torch.Tensor:
    """Each image moved by up to `most` pixels either way, zeros moving in."""
    n, _, height, width = images.shape
    padded = F.pad(images, (most,) * 4)
    top, left = torch.randint(0, 2 * most + 1, (2, n)).to(images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)  # (N, H)
    columns = left[:, None] + torch.arange(width, device=images.device)  # (N, W)
    which = torch.arange(n, device=images.device)
    return padded[which[:, None, None], 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def _rotated(images: torch.Tensor, most: float) -> torch.Tensor:
    """Each image turned by up to `most` degrees either way about its centre, nearest pixel, zeros moving in."""
    angles = torch.deg2rad(most * (2 * torch.rand(len(images)) - 1)).to(images.device)
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    turns = torch.stack([cosine, -sine, zero, sine, cosine, zero], 1).view(-1, 2, 3)
    return torch.cat(
        [
            F.grid_sample(
                part.float(),
                F.affine_grid(turn, part.shape, align_corners=False),
                mode="nearest",
                align_corners=False,
            ).to(images.dtype)
            for part, turn in zip(images.split(CHUNK), turns.split(CHUNK), strict=True)
        ]
    )


@torch.inference_mode()
def confusion(model: MultiTaskCNN, split: Split) -> torch.Tensor:
    """(10, 10) counts of images: row is the true class, column the predicted."""
    model.eval()
    batches = (
        slice(start, start + EVALUATION_BATCH)
        for start in range(0, len(split.labels), EVALUATION_BATCH)
    )
    predicted = torch.cat(
        [model(MultiTaskObjective.inputs(split, index)).logits.argmax(1) for index in batches]
    )
    return torch.bincount(split.labels * 10 + predicted, minlength=100).view(10, 10)


def ink_baselines(data: FashionMNIST, split: Split) -> pd.DataFrame:
    """RMSE and R2 on `split` of three predictions of ink that need no network.

    The constant and the class means are those of the training images; the class mean is told the true class, so it is
    what perfect classification alone would buy. `x.mean()` is the definition of ink.
    """
    train = data.train
    class_means = torch.stack([train.ink[train.labels == label].mean() for label in range(10)])
    predictions = {
        "constant (training mean)": train.ink.mean().expand(len(split.ink)),
        "mean of the true class": class_means[split.labels],
        "x.mean()": split.images.float().div(255).mean((1, 2, 3)),
    }
    variance = split.ink.double().var(correction=0)
    errors = {
        name: (prediction - split.ink).double().square().mean()
        for name, prediction in predictions.items()
    }
    return pd.DataFrame(
        [
            {"ink predicted by": name, "rmse": mse.sqrt().item(), "r2": (1 - mse / variance).item()}
            for name, mse in errors.items()
        ]
    )
