"""How good a colorization is, image by image, and how certain that is.

Every metric is a ratio of sums over images. One set of values per image therefore serves the whole
split, every resample of it, and the paired difference of two models.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from ..core.errors import ConfigError
from .data import ColorSplit
from .palette import decode, expected_rgb, keep_grey

BINS = 15  # of confidence, as in Guo et al. 2017
RESAMPLES = 2000  # of the bootstrap
BATCH_PIXELS = 1 << 17  # scored at once; bounds the memory of 256 colours to 128 MiB a tensor
ROUNDING = 1 / 12  # mean squared error of rounding to whole grey levels, the least that PSNR sees

Scores = dict[str, np.ndarray]  # values of N images by name, with the images first; see `score`


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


@torch.inference_mode()
def score(
    model: torch.nn.Module,
    split: ColorSplit,
    palette: torch.Tensor,
    *,
    mirror: bool = False,
    bias: torch.Tensor | float = 0.0,
) -> Scores:
    """Score a network or a baseline on every image of a split; `aggregate` makes metrics of it.

    Args:
        model: grey images -> logits.
        split: N images.
        palette: (NC, 3) RGB, 0 to 255.
        mirror: average the probabilities of an image and its mirror image.
        bias: added to the logits, (1, NC, 1, 1); see `coloring.vivid_bias`.

    Returns:
        Means over the pixels of an image, (N,): `accuracy` and `nll` (in nats).

        Metrics of a picture, (N,): `psnr` and `colorfulness` of the most likely colours;
        `psnr_mean` and `colorfulness_mean` of the annealed mean; `psnr_grey` of the annealed mean
        with the known grey value.

        Sums over the pixels of a true colour, (N, NC): `pixels`, `correct` ones, `color_nll`.

        Sums over the pixels of a bin of confidence, (N, BINS, 2): `calibration`, the confidence
        and the correct ones.
    """
    model.eval()
    height, width = split.images.shape[-2:]
    step = max(1, BATCH_PIXELS // (height * width))
    parts = []
    for columns in zip(*(column.split(step) for column in split), strict=True):
        batch = ColorSplit(*columns)
        inputs = batch.inputs(slice(None))
        log_probs = (model(inputs) + bias).log_softmax(1)
        if mirror:
            flipped = (model(inputs.flip(-1)) + bias).log_softmax(1).flip(-1)
            log_probs = torch.logaddexp(log_probs, flipped) - np.log(2)
        parts.append(_score_batch(log_probs, batch, palette))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _score_batch(log_probs: torch.Tensor, split: ColorSplit, palette: torch.Tensor) -> Scores:
    colors = split.colors.long().flatten(1)  # (B, HW)
    best, predicted = log_probs.max(1)
    predicted_rgb = decode(predicted, palette)
    mean_rgb = expected_rgb(log_probs, palette)
    nll = -log_probs.gather(1, split.colors.long().unsqueeze(1)).flatten(1).double()  # (B, HW)
    correct = (predicted.flatten(1) == colors).double()
    confidence = best.flatten(1).double().exp()
    bins = (confidence * BINS).long().clamp(max=BINS - 1)

    def sums(values: torch.Tensor, groups: torch.Tensor, count: int) -> torch.Tensor:
        """Return the sums of pixels' values (B, HW) over each group of pixels, (B, count)."""
        return values.new_zeros(len(values), count).scatter_add(1, groups, values)

    scores = {
        "accuracy": correct.mean(1),
        "nll": nll.mean(1),
        "psnr": psnr(predicted_rgb, split.images),
        "psnr_mean": psnr(mean_rgb, split.images),
        "psnr_grey": psnr(keep_grey(mean_rgb, split.grey), split.images),
        "colorfulness": colorfulness(predicted_rgb),
        "colorfulness_mean": colorfulness(mean_rgb),
        "pixels": sums(torch.ones_like(correct), colors, len(palette)),
        "correct": sums(correct, colors, len(palette)),
        "color_nll": sums(nll, colors, len(palette)),
        "calibration": torch.stack([sums(v, bins, BINS) for v in (confidence, correct)], 2),
    }
    return {name: values.double().numpy() for name, values in scores.items()}


def aggregate(scores: Scores, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return the metrics of a split: means of the images' values, and two that need sums.

    These are `balanced_accuracy`, the mean of the accuracies of all colours that occur, and `ece`,
    the expected calibration error of the most likely colour's probability. Resampling adds noise
    to the latter, so its interval is biased upwards.

    Args:
        scores: scores of N images.
        weights: (R, N) how often each image is in each resample; default: the split itself.

    Returns:
        Metric -> its value, or (R,) values.
    """
    count = len(scores["nll"])
    weights = np.ones(count) if weights is None else weights
    sums = {name: np.tensordot(weights, values, 1) for name, values in scores.items()}
    metrics = {name: sums[name] / count for name, values in scores.items() if values.ndim == 1}
    recall = sums["correct"] / np.maximum(sums["pixels"], 1)
    metrics["balanced_accuracy"] = recall.sum(-1) / (sums["pixels"] > 0).sum(-1)
    errors = np.diff(sums["calibration"])[..., 0]
    metrics["ece"] = np.abs(errors).sum(-1) / sums["pixels"].sum(-1)
    return metrics


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """Return the mean over seeds, as if one of them were drawn for every image.

    Every metric is then the mean of the seeds' own, except `ece`: calibration errors may cancel.
    """
    return {name: np.mean([seed[name] for seed in scores], axis=0) for name in scores[0]}


def bootstrap(scores: Scores, baseline: Scores | None = None) -> pd.DataFrame:
    """Return each metric with its 95 % bootstrap interval over images, a row a metric.

    With a baseline, it is the difference from the baseline's metric. Both are measured on the same
    resampled images, so that what images differ in cancels.

    Args:
        scores: scores of a model.
        baseline: scores of another model on the same images.

    Returns:
        Columns value, low and high.

    Raises:
        ConfigError: the two were not measured on the same images.
    """
    count = len(scores["nll"])
    resamples = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    weights = np.vstack([np.ones(count), resamples])  # first of all the split itself
    table = pd.DataFrame(aggregate(scores, weights))
    if baseline:
        if not np.array_equal(scores["pixels"], baseline["pixels"]):
            raise ConfigError("scores: expected two models on the same images, in one palette")
        table -= pd.DataFrame(aggregate(baseline, weights))
    low, high = table[1:].quantile([0.025, 0.975]).to_numpy()
    intervals = pd.DataFrame({"value": table.loc[0], "low": low, "high": high})
    return intervals.rename_axis("metric")
