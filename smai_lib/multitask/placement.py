"""Is my run normal? A run of one's own, compared with recorded runs of its configuration.

The recorded runs differ in their seed alone. A run is normal if all its metrics in all its epochs
lie within the spread of those seeds. One joint test decides:

1. Errors are compared as logarithms, accuracy as error rate, because errors differ by factors.
2. A deviation from the mean of the seeds is divided by their standard deviation. A variance of
   five values is a poor estimate, so it is averaged with the median over all configurations.
3. The statistic of a run is its largest absolute deviation, over all metrics and epochs.
4. Its critical value is calibrated on the recorded runs. Each is left out in turn and compared
   with the other seeds of its configuration. 95 % of them stay below the critical value, so 5 % of
   normal runs raise a false alarm (split-conformal quantile, Vovk et al. 2005).
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..core import plots
from ..core.errors import ConfigError
from ..core.runs import Run
from ..core.stats import ALPHA
from ..core.study import Study
from .config import MultiTaskConfig
from .plots import format_ratio
from .studies import lambda_study

METRICS = {
    "val_accuracy": "val accuracy",
    "val_cross_entropy": "val CE",
    "val_rmse": "val ink RMSE",
    "train_loss": "train loss",
}
# loss weight -> metrics that are meaningless where it is 0, since their head is not trained
UNTRAINED = {"lambda1": ["val_accuracy", "val_cross_entropy"], "lambda2": ["val_rmse"]}
LEAST_SEEDS = 3


class Placement(NamedTuple):
    """Result of `place`."""

    normal: bool
    explanation: list[str]
    band: pd.DataFrame  # a row a metric and epoch: low, mean, high, value, outside


def place(
    history: pd.DataFrame, config: MultiTaskConfig, study: Study, *, train_images: int | None = None
) -> Placement:
    """Compare a run's history with those that `study` recorded for its configuration.

    Args:
        history: a row an epoch, as `Run.history`; it may stop before the last epoch.
        config: the run's config.
        study: recorded runs, at least 3 seeds a configuration and 19 in all.
        train_images: number of the run's training images, to name it as a reason.

    Raises:
        ConfigError: too few runs are recorded for this config, or `history` has no epoch or lacks
            a metric.
    """
    same = alike(config, study)
    if same["seed"].nunique() < LEAST_SEEDS:
        names = ", ".join(study.results["name"].unique())
        raise ConfigError(
            f"{study.name} recorded {len(same)} runs of {config}, expected at least {LEAST_SEEDS}; "
            f"it has {names}"
        )
    needed = ["epoch", *METRICS]
    if history.empty or not set(needed) <= set(history.columns):
        raise ConfigError(
            f"history: found {len(history)} epochs with columns {', '.join(history.columns)}, "
            f"expected at least one epoch with {', '.join(needed)}"
        )
    band = _band(history, config, study, same.iloc[0])
    outside = band.groupby("metric")["outside"].any()
    if outside.any():
        odd = {
            metric: rows for metric, rows in band.groupby("metric", sort=False) if outside[metric]
        }
        explanation = [_describe(metric, rows) for metric, rows in odd.items()]
        recorded_images = same["train_images"].iloc[0]
        if train_images not in (None, recorded_images):
            explanation.append(
                f"It was trained on {train_images:,} images, the recorded runs on "
                f"{recorded_images:,}."
            )
        return Placement(False, explanation + _reasons(odd, history), band)
    compared = ", ".join(METRICS[metric] for metric in band["metric"].unique())
    explanation = (
        f"Normal: within the spread of {same['seed'].nunique()} recorded seeds, as 95 % of runs "
        f"are, in {compared}."
    )
    return Placement(True, [explanation], band)


def ratio_of(config: MultiTaskConfig) -> float:
    """Return lambda2 / lambda1, as in the results of the lambda study."""
    return round(config.lambda2 / config.lambda1, 6) if config.lambda1 else math.inf


def alike(config: MultiTaskConfig, study: Study) -> pd.DataFrame:
    """Return the recorded results of a config, whatever its number of epochs.

    Only the ratio of its lambdas counts, since Adam ignores a common factor. A key that the record
    lacks did not exist then: those runs had what is its default now.
    """
    ignored = {key: getattr(config, key) for key in ("lambda1", "lambda2", "epochs")}
    results = study.results[study.results["ratio"] == ratio_of(config)]
    matches = []
    for row in results.to_dict("records"):
        keys = {key: row[key] for key in config.to_dict() if key in row}
        matches.append(config.from_dict(keys | ignored) == config)
    return results.loc[matches]


def neighbours(config: MultiTaskConfig, study: Study) -> pd.DataFrame:
    """Return recorded histories, with their `ratio`, of the config's lambda2 / lambda1.

    If the ratio is not recorded, they are those of the next smaller and the next larger one.
    """
    results = study.results.query(
        "ink_scaling == @config.ink_scaling and weighting == @config.weighting"
    )
    ratio, ratios = ratio_of(config), results["ratio"]
    nearest = ratios.isin([ratios[ratios <= ratio].max(), ratios[ratios >= ratio].min()])
    return study.history.merge(results.loc[nearest, ["name", "seed", "ratio"]])


def plot_among_recorded(run: Run) -> np.ndarray:
    """Plot a finished run's validation metrics among those of the recorded runs of its ratio."""
    study = lambda_study()
    frames, colors, labels = [], {}, {}
    groups = neighbours(run.config, study).groupby("ratio")
    for color, (ratio, rows) in zip(("C0", "C1"), groups, strict=False):
        rows = rows.assign(name=f"{ratio}/" + rows["seed"].astype(str))
        names = list(rows["name"].unique())
        frames.append(rows)
        colors |= dict.fromkeys(names, color)
        labels |= dict.fromkeys(names, "_")  # matplotlib's legend leaves these out
        labels[names[0]] = f"recorded, lambda2 / lambda1 = {format_ratio(ratio)}"
    frames.append(run.history.assign(name="this run"))
    colors["this run"] = "black"
    shown = {metric: label for metric, label in METRICS.items() if metric.startswith("val")}
    grid = plots.curves(pd.concat(frames), shown, colors, labels=labels)
    images = run.require_result()["train_images"]
    plots.caption(
        grid[0, 0].figure,
        f"This run: {run.name}, {images:,} images. Recorded: {study.caption()}",
    )
    return grid


def summarize(run: Run) -> list[str]:
    """Return three lines about a finished run: its test metrics, its placement, its folder."""
    result = run.require_result()
    metrics, images = result["metrics"], result["train_images"]
    lowest = f"lowest validation loss {metrics['best_val_loss']:.4f}, after epoch"
    placement = f"{lowest} {metrics['best_epoch']}"
    study = lambda_study()
    if len(alike(run.config, study)):
        placed = place(run.history, run.config, study, train_images=images)
        placement = " ".join([*placed.explanation, placement])
    outcome = (
        f"test_accuracy {metrics['test_accuracy']:.4f}, test_rmse {metrics['test_rmse']:.4f}; "
        f"epochs {run.config.epochs}, images {images:,}, seconds {result['seconds']:.0f}"
    )
    return [outcome, placement, f"record: {run.folder}"]


def _band(history: pd.DataFrame, config: MultiTaskConfig, study: Study, same) -> pd.DataFrame:
    """Return the interval of normal values and the run's own, a row a metric and epoch.

    `same` is one recorded result of the configuration.
    """
    errors = _log_errors(study)
    errors = errors[errors.index.isin(history["epoch"], level="epoch")]
    mean, deviation = (table.loc[same["name"]] for table in _spread(errors))
    reach = _critical_value(errors) * deviation
    # the training loss is proportional to the sum of the lambdas
    total = (config.lambda1 + config.lambda2) / (same["lambda1"] + same["lambda2"])
    values = history.assign(train_loss=history["train_loss"] / total).set_index("epoch")
    bands = []
    for metric in METRICS:
        ends = pd.DataFrame(
            {
                "low": _from_log_error(metric, mean[metric] - reach[metric]),
                "mean": _from_log_error(metric, mean[metric]),
                "high": _from_log_error(metric, mean[metric] + reach[metric]),
            }
        )
        if metric == "val_accuracy":  # the highest error is the lowest accuracy
            ends = ends.rename(columns={"low": "high", "high": "low"})
        bands.append(ends.assign(metric=metric, value=values[metric]))
    band = pd.concat(bands).reset_index().dropna(subset="mean")  # NaN: the head was not trained
    outside = ~band["value"].between(band["low"], band["high"])  # NaN is outside, too
    return band.assign(outside=outside)


def _from_log_error(metric: str, log_error: pd.Series) -> pd.Series:
    return 1 - np.exp(log_error) if metric == "val_accuracy" else np.exp(log_error)


def _log_errors(study: Study) -> pd.DataFrame:
    """Return logarithms of all recorded errors by (name, seed, epoch), a column a metric.

    They are NaN where a head was not trained.
    """
    rows = study.history.merge(study.results[["name", "seed", *UNTRAINED]], on=["name", "seed"])
    rows["val_accuracy"] = 1 - rows["val_accuracy"]
    for weight, metrics in UNTRAINED.items():
        rows.loc[rows[weight] == 0, metrics] = np.nan
    return np.log(rows.set_index(["name", "seed", "epoch"])[list(METRICS)])


def _spread(errors: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the mean over seeds, and the standard deviation of one more run from it."""
    groups = errors.groupby(["name", "epoch"])
    variance = groups.var()
    variance = (variance + variance.groupby("epoch").median()) / 2
    return groups.mean(), np.sqrt(variance * (1 + 1 / groups.count()))


def _critical_value(errors: pd.DataFrame) -> float:
    """Return what the largest standardized deviation of 95 % of the recorded runs stays below.

    Raises:
        ConfigError: too few runs are recorded.
    """
    statistics = []
    for seed, run in errors.groupby("seed"):
        mean, deviation = _spread(errors.drop(seed, level="seed"))
        standardized = (run.droplevel("seed") - mean).abs() / deviation
        statistics.extend(standardized.groupby("name").max().max(axis="columns"))
    rank = math.ceil((1 - ALPHA) * (len(statistics) + 1))
    if rank > len(statistics):
        least = round(1 / ALPHA) - 1
        raise ConfigError(
            f"found {len(statistics)} recorded runs, expected at least {least} to calibrate on"
        )
    return sorted(statistics)[rank - 1]


def _is_better(metric: str, row) -> bool:
    """Return whether a value outside the band is on its good side."""
    return row["value"] > row["high"] if metric == "val_accuracy" else row["value"] < row["low"]


def _describe(metric: str, rows: pd.DataFrame) -> str:
    """Return one sentence about a metric that was outside its band."""
    last = rows.iloc[-1]
    relation = "back inside"
    if last["outside"]:
        relation = "better than" if _is_better(metric, last) else "worse than"
    return (
        f"{METRICS[metric]}: outside in {rows['outside'].sum()} of {len(rows)} epochs; "
        f"at epoch {last['epoch']:.0f} it is {last['value']:.4f}, {relation} the recorded "
        f"{last['low']:.4f} to {last['high']:.4f}."
    )


def _reasons(odd: dict[str, pd.DataFrame], history: pd.DataFrame) -> list[str]:
    """Return the usual reasons for metrics outside their band, likeliest first."""
    last = {metric: rows.iloc[-1] for metric, rows in odd.items() if rows["outside"].iloc[-1]}
    better = {metric for metric, row in last.items() if _is_better(metric, row)}
    worse = last.keys() - better
    class_worse = bool(worse & {"val_accuracy", "val_cross_entropy"})
    # a constant prediction has an RMSE of 0.126, the standard deviation of ink
    constant_ink = 0.1 < history["val_rmse"].iloc[-1] < 0.2
    finite = history[list(METRICS)].iloc[-1].notna().all()
    reasons = {
        "A metric is not a number: the loss became infinite. Try a smaller learning_rate.": (
            not finite
        ),
        "The ink head predicts a constant: its hidden ReLUs are dead. Try another seed, or "
        "z-scored ink.": "val_rmse" in worse and constant_ink,
        "Ink is the mean of a raw image divided by 255. Does yours have that scale?": (
            "val_rmse" in worse and not constant_ink
        ),
        "Training is better and validation worse: dropout is off in training, images repeat, or "
        "validation images are preprocessed differently.": "train_loss" in better and class_worse,
        "Training itself is worse: check learning_rate, batch_size, the optimizer, and the range "
        "of the images (0 to 1, not 0 to 255).": "train_loss" in worse,
        "Training is normal and validation worse: call model.eval() before evaluating. It turns "
        "dropout off and lets BatchNorm use its running statistics.": (
            "train_loss" not in last and class_worse
        ),
        "Better than all seeds: another configuration than you think, or validation images among "
        "the training images.": "val_accuracy" in better,
        "It left the band and came back: bad luck, or another precision or device.": not last,
    }
    return [reason for reason, applies in reasons.items() if applies]
