"""How good a colorization is, image by image, and how certain that is.

Every metric is a ratio of sums over images. One set of values per image therefore serves the whole
split, every resample of it, and the paired difference of two models.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch

from ..core.errors import ConfigError
from .data import ColorSplit
from .palette import ANNEALED, decode, expected_rgb, keep_grey

BINS = 15  # of confidence, as in Guo et al. 2017
BATCH_PIXELS = 1 << 17  # scored at once; bounds the memory of 256 colours to 128 MiB a tensor
ROUNDING = 1 / 12  # mean squared error of rounding to whole grey levels, the least that PSNR sees


def psnr(rgb: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return the peak signal-to-noise ratio (B,) in dB, peak 255, of (B, 3, H, W) pictures."""
    mse = (rgb.float() - images).square().mean((1, 2, 3)).clamp_min(ROUNDING)
    return 10 * torch.log10(255**2 / mse)


def colorfulness(rgb: torch.Tensor) -> torch.Tensor:
    """Return the colourfulness (B,) of pictures (B, 3, H, W) from 0 to 255; 0 is grey.

    Hasler and Süsstrunk 2003: the spread of the opponent colours rg and yb plus 0.3 times the
    distance of their means from grey.
    """
    r, g, b = rgb.float().unbind(1)
    opponents = torch.stack([r - g, (r + g) / 2 - b])  # (2, B, H, W)
    spread = opponents.var((2, 3), correction=0).sum(0).sqrt()
    return spread + 0.3 * opponents.mean((2, 3)).square().sum(0).sqrt()


@dataclass(frozen=True)
class Scores:
    """Values per image of one model on one split, for N images and NC colours."""

    means: dict[str, np.ndarray]  # metric -> (N,)
    counts: np.ndarray  # (N, NC) pixels of each true colour
    correct: np.ndarray  # (N, NC) correctly predicted pixels of each true colour
    color_nll: np.ndarray  # (N, NC) NLL summed over the pixels of each true colour
    calibration: np.ndarray  # (N, BINS, 2) summed confidence and correct pixels, by confidence

    def metrics(self, weights: np.ndarray | None = None) -> pd.DataFrame:
        """Return all metrics, a row a resample.

        Args:
            weights: (R, N) how often each image is in each resample; default: the split itself.
        """
        n = len(self.counts)
        weights = np.ones((1, n)) if weights is None else weights
        columns = {name: weights @ values / n for name, values in self.means.items()}
        counts, correct = weights @ self.counts, weights @ self.correct
        occurs = counts > 0
        recall = np.divide(correct, counts, out=np.zeros_like(correct), where=occurs)
        columns["balanced_accuracy"] = recall.sum(1) / occurs.sum(1)
        calibration = np.tensordot(weights, self.calibration, axes=1)  # (R, BINS, 2)
        errors = np.abs(calibration[..., 0] - calibration[..., 1])
        columns["ece"] = errors.sum(1) / counts.sum(1)
        return pd.DataFrame(columns)


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """Return the mean over seeds, as if one of them were drawn for every image.

    Every metric is then the mean of the seeds' own, except `ece`: calibration errors may cancel.

    Raises:
        ConfigError: the scores are of different images.
    """
    for other in scores[1:]:
        _check_same_images(other, scores[0])
    return _combine(partial(np.mean, axis=0), scores)


def _combine(
    function: Callable[[list[np.ndarray]], np.ndarray], scores: Sequence[Scores]
) -> Scores:
    """Return the Scores whose arrays are `function` of those of `scores`."""
    means = {name: function([each.means[name] for each in scores]) for name in scores[0].means}
    arrays = [
        function([getattr(each, key) for each in scores])
        for key in ("counts", "correct", "color_nll", "calibration")
    ]
    return Scores(means, *arrays)


@torch.inference_mode()
def score(
    model: torch.nn.Module,
    split: ColorSplit,
    palette: torch.Tensor,
    *,
    mirror: bool = False,
    bias: torch.Tensor | float = 0.0,
) -> Scores:
    """Score a network or a baseline on a split.

    `accuracy` and `nll` (in nats) are means over pixels. `psnr` and `colorfulness` are of the most
    likely colour, `psnr_mean` and `colorfulness_mean` of the annealed mean, `psnr_grey` of the
    annealed mean with the known grey value. `ece` is the expected calibration error of the most
    likely colour's probability. Resampling adds noise to it, so its interval is biased upwards.

    Args:
        model: grey images -> logits.
        split: N images.
        palette: (NC, 3) RGB, 0 to 255.
        mirror: average the probabilities of an image and its mirror image.
        bias: added to the logits, (1, NC, 1, 1); see `coloring.vivid_logits`.
    """
    model.eval()
    height, width = split.images.shape[-2:]
    step = max(1, BATCH_PIXELS // (height * width))
    parts = []
    for start in range(0, len(split.images), step):
        batch = ColorSplit(*(column[start : start + step] for column in split))
        inputs = batch.inputs(slice(None))
        log_probs = (model(inputs) + bias).log_softmax(1)
        if mirror:
            flipped = (model(inputs.flip(-1)) + bias).log_softmax(1).flip(-1)
            log_probs = torch.logaddexp(log_probs, flipped) - np.log(2)
        parts.append(_score_batch(log_probs, batch, palette))
    return _combine(np.concatenate, parts)


def _score_batch(log_probs: torch.Tensor, split: ColorSplit, palette: torch.Tensor) -> Scores:
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
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    empty = torch.zeros(len(colors), BINS, dtype=torch.float64)
    calibration = [empty.scatter_add(1, bins, values) for values in (confidence, right)]
    return Scores(
        {name: value.double().numpy() for name, value in means.items()},
        zeros.scatter_add(1, colors, torch.ones_like(right)).numpy(),
        zeros.scatter_add(1, colors, right).numpy(),
        zeros.scatter_add(1, colors, nll.double()).numpy(),
        torch.stack(calibration, 2).numpy(),
    )


def bootstrap(
    scores: Scores, baseline: Scores | None = None, *, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Return each metric with its 95 % bootstrap interval over images, a row a metric.

    With a baseline, it is the difference from the baseline's metric. Both are measured on the same
    resampled images, so that what images differ in cancels.

    Args:
        scores: scores of a model.
        baseline: scores of another model on the same images.
        resamples: number of resamples.
        seed: seed of the resamples.

    Returns:
        Columns value, low and high.

    Raises:
        ConfigError: the two were not measured on the same images.
    """
    n = len(scores.counts)
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(n, np.full(n, 1 / n), resamples).astype(float)
    value, resampled = scores.metrics(), scores.metrics(weights)
    if baseline:
        _check_same_images(scores, baseline)
        value, resampled = value - baseline.metrics(), resampled - baseline.metrics(weights)
    low, high = resampled.quantile(0.025), resampled.quantile(0.975)
    table = pd.DataFrame({"value": value.iloc[0], "low": low, "high": high})
    return table.rename_axis("metric")


def _check_same_images(scores: Scores, other: Scores) -> None:
    if not np.array_equal(scores.counts, other.counts):
        raise ConfigError(
            "scores: expected two models on the same images in the same palette, found "
            f"{scores.counts.shape} and {other.counts.shape} images and colours that differ"
        )
