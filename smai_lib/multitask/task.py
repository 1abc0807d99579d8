"""The multi-task problem: classify an image and predict its ink, by one joint loss.

Metrics are computed from sums over all images of a split. A short last batch therefore has the
right weight, and an RMSE is the root of a mean over images, not a mean of RMSEs of batches.
"""

import math

import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from ..core.layers import scale_pixels
from ..core.training import EVALUATION_BATCH, evaluate
from . import plots
from .data import CLASSES, PIXEL_DEVIATION, PIXEL_MEAN, FashionMNIST, Split, ink_of
from .model import MultiTaskCNN, MultiTaskOutput

ROTATION_BATCH = 1000  # images; more only need more memory
DIAGNOSED = slice(0, 512)  # training images whose gradients are compared


class MultiTask:
    """Joint loss lambda1 * CE + lambda2 * MSE of class and ink, with its metrics and augmentation.

    Z-scored ink divides the MSE by the variance of ink: it starts near 1 and ends at 1 - R². With
    learned weights the loss is sum(L / (2 exp(s)) + s / 2), with one parameter s for each task's
    loss L (Kendall, Gal, Cipolla 2018).

    Args:
        config: a `MultiTaskConfig`.
        ink_variance: variance of the training images' ink.
    """

    def __init__(self, config, ink_variance: float = 1.0):
        self.config = config
        self.ink_variance = ink_variance if config.ink_scaling == "z_score" else 1.0

    @staticmethod
    def inputs(split: Split, index: torch.Tensor | slice) -> torch.Tensor:
        """Return the network's input for the images at `index`: (B, 1, 28, 28) in [0, 1]."""
        return scale_pixels(split.images[index])

    def augment(self, train: Split) -> Split:
        """Return the training images of one epoch, mirrored, shifted and rotated at random.

        Mirroring keeps the ink; shifts and rotations move some out of the image.
        """
        images = train.images
        if self.config.mirror:
            mirrored = (torch.rand(len(images)) < 0.5).to(images.device)
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
        if self.config.shift:
            images = shift_randomly(images, self.config.shift)
        if self.config.rotation:
            images = rotate_randomly(images, self.config.rotation)
        moved = self.config.shift or self.config.rotation
        ink = ink_of(images) if moved and self.config.ink_target == "augmented" else train.ink
        return Split(images, train.labels, ink)

    def loss(
        self, output: MultiTaskOutput, split: Split, index: torch.Tensor | slice
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the joint loss of a batch, and the sums (7,) float64 that `metrics` needs."""
        labels, ink = split.labels[index], split.ink[index]
        cross_entropy = F.cross_entropy(output.logits, labels)
        mse = F.mse_loss(output.ink, ink)
        with torch.no_grad():
            error, target = (output.ink - ink).double(), ink.double()
            sums = [
                torch.full((), len(labels), dtype=torch.float64, device=labels.device),
                cross_entropy.double() * len(labels),
                (output.logits.argmax(1) == labels).sum().double(),
                error.square().sum(),
                error.abs().sum(),
                target.sum(),
                target.square().sum(),
            ]
        if self.config.label_smoothing:
            cross_entropy = F.cross_entropy(
                output.logits, labels, label_smoothing=self.config.label_smoothing
            )
        return self._joint_loss(output, cross_entropy, mse), torch.stack(sums)

    def _joint_loss(self, output: MultiTaskOutput, cross_entropy, mse) -> torch.Tensor:
        mse = mse / self.ink_variance
        if output.log_variances is None:
            return self.config.lambda1 * cross_entropy + self.config.lambda2 * mse
        losses = torch.stack([cross_entropy, mse])
        return (losses / (2 * output.log_variances.exp()) + output.log_variances / 2).sum()

    def metrics(self, sums: torch.Tensor) -> dict[str, float]:
        """Return means over images: accuracy in [0, 1], errors in units of ink.

        `loss` is always lambda1 * cross_entropy + lambda2 * mse, also if training minimizes a
        variant of it. R² is NaN if all images have the same ink.
        """
        n, cross_entropy, correct, squared, absolute, ink, ink_squared = sums.tolist()
        mse = squared / n
        mean_square, squared_mean = ink_squared / n, (ink / n) ** 2
        same_ink = math.isclose(mean_square, squared_mean)
        return {
            "loss": self.config.lambda1 * cross_entropy / n + self.config.lambda2 * mse,
            "cross_entropy": cross_entropy / n,
            "accuracy": correct / n,
            "mse": mse,
            "mae": absolute / n,
            "rmse": mse**0.5,
            "r2": math.nan if same_ink else 1 - mse / (mean_square - squared_mean),
        }

    def epoch_diagnostics(self, model: MultiTaskCNN, train: Split) -> dict[str, float]:
        """Return norms and cosine of the two unweighted losses' gradients in the backbone.

        All epochs are compared on the same training images, in evaluation mode. A cosine below 0
        means that the tasks conflict. Learned log variances are returned, too.
        """
        model.eval()
        parameters = list(model.backbone.parameters())
        output = model(self.inputs(train, DIAGNOSED))
        losses = (
            F.cross_entropy(output.logits, train.labels[DIAGNOSED]),
            F.mse_loss(output.ink, train.ink[DIAGNOSED]) / self.ink_variance,
        )
        gradients = []
        for loss in losses:
            parts = torch.autograd.grad(loss, parameters, retain_graph=True)
            gradients.append(torch.cat([part.flatten() for part in parts]))
        of_class, of_ink = gradients
        row = {
            "class_gradient": of_class.norm().item(),
            "ink_gradient": of_ink.norm().item(),
            "gradient_cosine": F.cosine_similarity(of_class, of_ink, dim=0).item(),
        }
        if output.log_variances is not None:
            # the loss L1 / (2 exp(s1)) + L2 / (2 exp(s2)) has the ratio of weights exp(s1 - s2)
            s1, s2 = output.log_variances.tolist()
            row |= {"log_variance_class": s1, "log_variance_ink": s2}
        return row

    def final_metrics(self, model: MultiTaskCNN, data: FashionMNIST) -> dict:
        """Return the trained network's test metrics, and its confusion counts as "nested".

        Columns with `mirror` are of predictions averaged over the image and its mirror image. For
        a network that normalizes, `test_mistaken_rmse` repeats a mistake of the reference report:
        its test ink is the mean of normalized pixels, divided by 255 once more.
        """
        metrics = {f"test_{key}": value for key, value in evaluate(model, self, data.test).items()}
        for name, split in (("val", data.validation), ("test", data.test)):
            mirrored = evaluate(MirrorAverage(model), self, split)
            metrics |= {f"{name}_mirror_{key}": mirrored[key] for key in ("accuracy", "rmse")}
        if self.config.normalize:
            wrong = (data.test.ink - PIXEL_MEAN) / PIXEL_DEVIATION / 255
            mistaken = data.test._replace(ink=wrong)
            metrics["test_mistaken_rmse"] = evaluate(model, self, mistaken)["rmse"]
        counts = confusion_counts(model, data.test)
        return {"metrics": metrics, "nested": {"confusion": counts}}

    def figures(self, final: dict, model: MultiTaskCNN, data: FashionMNIST) -> dict[str, Figure]:
        """Return the confusion matrix, and the first feature maps of a test image."""
        with torch.inference_mode():
            _, blocks = model.eval()(self.inputs(data.test, slice(0, 1)), return_maps=True)
        return {
            "confusion": plots.plot_confusion(final["nested"]["confusion"]),
            "feature_maps": plots.plot_first_maps(blocks),
        }


class MirrorAverage(torch.nn.Module):
    """A network whose predictions are averaged over an image and its mirror image."""

    def __init__(self, model: MultiTaskCNN):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> MultiTaskOutput:
        """Return the logarithm of the mean probabilities, and the mean ink."""
        plain, mirrored = self.model(images), self.model(images.flip(-1))
        probabilities = (plain.logits.softmax(1) + mirrored.logits.softmax(1)) / 2
        return MultiTaskOutput(probabilities.log(), (plain.ink + mirrored.ink) / 2)


def shift_randomly(images: torch.Tensor, most: int) -> torch.Tensor:
    """Return the images, each shifted by up to `most` pixels along both axes, zero-padded."""
    n, _, height, width = images.shape
    device = images.device
    padded = F.pad(images, (most,) * 4)
    top, left = torch.randint(0, 2 * most + 1, (2, n)).to(device)
    rows = top[:, None] + torch.arange(height, device=device)  # (N, H)
    columns = left[:, None] + torch.arange(width, device=device)  # (N, W)
    image = torch.arange(n, device=device)[:, None, None]
    return padded[image, 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def rotate_randomly(images: torch.Tensor, most: float) -> torch.Tensor:
    """Return the images, each rotated about its centre by up to `most` degrees either way.

    Each pixel takes the nearest one's value; pixels from outside the image are 0.
    """
    angles = torch.deg2rad(most * (2 * torch.rand(len(images)) - 1)).to(images.device)
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    matrices = torch.stack([cosine, -sine, zero, sine, cosine, zero], 1).view(-1, 2, 3)
    batches = zip(images.split(ROTATION_BATCH), matrices.split(ROTATION_BATCH), strict=True)
    rotated = []
    for batch, matrix in batches:
        grid = F.affine_grid(matrix, batch.shape, align_corners=False)
        moved = F.grid_sample(batch.float(), grid, mode="nearest", align_corners=False)
        rotated.append(moved.to(images.dtype))
    return torch.cat(rotated)


@torch.inference_mode()
def predict_classes(model: MultiTaskCNN, split: Split) -> torch.Tensor:
    """Return the predicted class of every image of a split, (N,)."""
    model.eval()
    batches = split.images.split(EVALUATION_BATCH)
    return torch.cat([model(scale_pixels(batch)).logits.argmax(1) for batch in batches])


def confusion_counts(model: MultiTaskCNN, split: Split) -> list[list[int]]:
    """Return counts of images, ten rows of ten: row is the true class, column the predicted."""
    predicted, classes = predict_classes(model, split), range(len(CLASSES))
    return confusion_matrix(split.labels, predicted, labels=classes).tolist()


def ink_baselines(data: FashionMNIST) -> pd.DataFrame:
    """Return RMSE and R² on the test images of three predictions of ink without a network.

    The constant and the class means are those of the training images. The mean of the true class
    is what perfect classification alone would give. `x.mean()` is the definition of ink. R² is NaN
    if all test images have the same ink.
    """
    train, test = data.train, data.test
    class_means = torch.stack([train.ink[train.labels == label].mean() for label in range(10)])
    predictions = {
        "constant (training mean)": train.ink.mean().expand(len(test.ink)),
        "mean of the true class": class_means[test.labels],
        "x.mean()": test.images.float().div(255).mean((1, 2, 3)),
    }
    variance = test.ink.double().var(correction=0)
    rows = []
    for name, prediction in predictions.items():
        mse = (prediction - test.ink).double().square().mean()
        r2 = 1 - mse / variance if variance else torch.tensor(math.nan)
        rows.append({"ink predicted by": name, "rmse": mse.sqrt().item(), "r2": r2.item()})
    return pd.DataFrame(rows)
