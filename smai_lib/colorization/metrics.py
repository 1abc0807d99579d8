"""How good a colorization is, image by image, and how sure that is.

Every measure is a ratio of sums over images, so one set of per-image values serves the whole split,
any resample of it, and the paired difference of two models. Probabilities are judged as they are
(accuracy, NLL, calibration); colours once decoded (PSNR, colourfulness).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from .data import ColorSplit
from .palette import ANNEALED, decode, expected_rgb, keep_grey

BINS = 15  # of confidence, as in Guo et al. 2017
SCORED_PIXELS = 1 << 17  # at once; bounds the memory of 256 colours to 128 MiB a tensor
ROUNDING = 1 / 12  # mean squared error of rounding to whole grey levels, the least PSNR can see


def psnr(rgb: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each image in dB, peak 255: two (B, 3, H, W) -> (B,)."""
    mse = (rgb.float() - images).square().mean((1, 2, 3)).clamp_min(ROUNDING)
    return 10 * torch.log10(255**2 / mse)


def colorfulness(rgb: torch.Tensor) -> torch.Tensor:
    """Colourfulness of each image, 0 for grey: (B, 3, H, W) in 0 to 255 -> (B,).

    Hasler and Suesstrunk 2003: the spread of the opponent colours rg and yb plus 0.3 times the
    distance of their means from grey.
    """
    r, g, b = rgb.float().unbind(1)
    opponents = torch.stack([r - g, (r + g) / 2 - b])  # (2, B, H, W)
    spread = opponents.var((2, 3), correction=0).sum(0).sqrt()
    return spread + 0.3 * opponents.mean((2, 3)).square().sum(0).sqrt()


@dataclass(frozen=True)
class Scores:
    """Per-image values of one model on one split; N images, NC colours."""

    means: dict[str, np.ndarray]  # name -> (N,)
    counts: np.ndarray  # (N, NC) pixels of each true colour
    correct: np.ndarray  # (N, NC) those predicted right
    color_nll: np.ndarray  # (N, NC) NLL summed over those pixels
    calibration: np.ndarray  # (N, BINS, 2): summed confidence, and pixels right, by confidence

    def metrics(self, weights: np.ndarray | None = None) -> pd.DataFrame:
        """One row a resample, whose counts of each image are a row of `weights` (R, N).

        By default the one row of the split itself.
        """
        n = len(self.counts)
        weights = np.ones((1, n)) if weights is None else weights
        columns = {name: weights @ values / n for name, values in self.means.items()}
        counts, correct = weights @ self.counts, weights @ self.correct
        occurs = counts > 0
        recall = np.divide(correct, counts, out=np.zeros_like(correct), where=occurs)
        columns["balanced_accuracy"] = recall.sum(1) / occurs.sum(1)
        confidence, right = np.moveaxis(np.tensordot(weights, self.calibration, axes=1), 2, 0)
        columns["ece"] = np.abs(confidence - right).sum(1) / counts.sum(1)
        return pd.DataFrame(columns)


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """One model trained from several seeds, as if one of them were drawn for every image.

    Every metric of the result is the mean of the seeds' own, but for `ece`: their errors of calibration may cancel.

    Raises:
        ValueError: the scores are of different images.
    """
    for other in scores[1:]:
        _check_same_images(other, scores[0])
    means = {name: np.mean([x.means[name] for x in scores], 0) for name in scores[0].means}
    sums = (
        np.mean([getattr(x, name) for x in scores], 0)
        for name in ("correct", "color_nll", "calibration")
    )
    return Scores(means, scores[0].counts, *sums)


@torch.inference_mode()
def score(
    model: torch.nn.Module, split: ColorSplit, palette: torch.Tensor, *, mirror: bool = False
) -> Scores:
    """Per-image metrics of a network or a baseline table on `split`.

    accuracy and nll (nats) are means over pixels. `psnr` and `colorfulness` belong to the most
    likely colour, `psnr_mean` and `colorfulness_mean` to the annealed mean, `psnr_grey` to the
    annealed mean shifted to the known grey value. `ece` is the expected calibration error of the
    most likely colour's probability; resampling adds noise to it, so its interval leans upward.

    Args:
        mirror: average the probabilities with those of the mirrored image.
    """
    model.eval()
    n, _, height, width = split.images.shape
    step = max(1, SCORED_PIXELS // (height * width))
    parts = []
    for start in range(0, n, step):
        index = slice(start, start + step)
        inputs = split.inputs(index)
        log_probs = model(inputs).log_softmax(1)
        if mirror:
            flipped = model(inputs.flip(-1)).log_softmax(1).flip(-1)
            log_probs = torch.logaddexp(log_probs, flipped) - np.log(2)
        batch = ColorSplit(*(x[index] for x in split))
        parts.append(_score_batch(log_probs, batch, palette))
    means = {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]}
    return Scores(means, *(np.concatenate([part[i] for part in parts]) for i in (1, 2, 3, 4)))


def _score_batch(log_probs, split, palette):
    colors = split.colors.long().flatten(1)  # (B, HW)
    best, predicted = log_probs.max(1)
    predicted_rgb = decode(predicted, palette)
    mean_rgb = expected_rgb(log_probs, palette, ANNEALED)
    nll = -log_probs.gather(1, split.colors.long().unsqueeze(1)).flatten(1)  # (B, HW)
    right = (predicted.flatten(1) == colors).double()
    confidence = best.flatten(1).double().exp()
    means = {
        "accuracy": right.mean(1),
        "nll": nll.double().mean(1),
        "psnr": psnr(predicted_rgb, split.images),
        "psnr_mean": psnr(mean_rgb, split.images),
        "psnr_grey": psnr(keep_grey(mean_rgb, split.grey), split.images),
        "colorfulness": colorfulness(predicted_rgb),
        "colorfulness_mean": colorfulness(mean_rgb),
    }
    zeros = torch.zeros(len(colors), len(palette), dtype=torch.float64)
    counts = zeros.scatter_add(1, colors, torch.ones_like(right))
    correct, color_nll = (zeros.scatter_add(1, colors, x) for x in (right, nll.double()))
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    empty = torch.zeros(len(colors), BINS, dtype=torch.float64)
    calibration = [empty.scatter_add(1, bins, x) for x in (confidence, right)]
    return (
        {name: value.double().numpy() for name, value in means.items()},
        counts.numpy(),
        correct.numpy(),
        color_nll.numpy(),
        torch.stack(calibration, 2).numpy(),
    )


def bootstrap(
    scores: Scores, baseline: Scores | None = None, *, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Each metric, or its difference from the baseline's, with its 95 % interval over resampled images.

    Both are measured on the same resampled images, so what images differ in cancels.

    Returns:
        A row a metric; columns value, low and high.

    Raises:
        ValueError: the two were not measured on the same images.
    """
    n = len(scores.counts)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples).astype(float)
    value, resampled = scores.metrics(), scores.metrics(weights)
    if baseline:
        _check_same_images(scores, baseline)
        value, resampled = value - baseline.metrics(), resampled - baseline.metrics(weights)
    low, high = resampled.quantile(0.025), resampled.quantile(0.975)
    return pd.DataFrame({"value": value.iloc[0], "low": low, "high": high}).rename_axis("metric")


def _check_same_images(scores: Scores, baseline: Scores) -> None:
    if not np.array_equal(scores.counts, baseline.counts):
        raise ValueError(
            "paired scores must come from the same images in the same palette; found "
            f"{scores.counts.shape} and {baseline.counts.shape} images and colours, "
            "whose true colours differ; score both models on one split"
        )
