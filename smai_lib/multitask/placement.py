"""Comparison of a run with the recorded runs of its configuration: is it normal?

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
from matplotlib.figure import Figure

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


class Placement(NamedTuple):
    """Result of `place`."""

    normal: bool
    explanation: list[str]
    # a row a metric and epoch: low, mean, high (of the recorded runs), value, outside, and
    # deviation: of the logarithm of the error, -1 at the best normal value, 1 at the worst
    band: pd.DataFrame


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
        ConfigError: no run is recorded for this config, or the history lacks columns or epochs.
    """
    _check_history(history)
    same = alike(config, study)
    if not same:
        names = ", ".join(dict.fromkeys(run.name for run in study.runs))
        raise ConfigError(f"{study.name} recorded no run of {config}; it has {names}")
    # the training loss is proportional to the sum of the lambdas
    recorded = same[0].config
    scale = (recorded.lambda1 + recorded.lambda2) / (config.lambda1 + config.lambda2)
    band = _band(history.assign(train_loss=history["train_loss"] * scale), same[0].name, study)
    if not band["outside"].any():
        compared = ", ".join(METRICS[metric] for metric in band["metric"].unique())
        explanation = (
            f"Normal: within the spread of {len(same)} recorded seeds, as 95 % of runs are, in "
            f"{compared}."
        )
        return Placement(True, [explanation], band)
    metrics = band.groupby("metric", sort=False)
    explanation = [_describe(rows) for _, rows in metrics if rows["outside"].any()]
    recorded_images = study.results["train_images"].iloc[0]
    if train_images not in (None, recorded_images):
        explanation.append(
            f"It was trained on {train_images:,} images, the recorded runs on {recorded_images:,}."
        )
    return Placement(False, explanation + _reasons(metrics.tail(1).set_index("metric")), band)


def _check_history(history: pd.DataFrame) -> None:
    """Check that a history can be compared epoch by epoch.

    Raises:
        ConfigError: a column is missing, or the epochs are not 1, 2, 3 and so on.
    """
    missing = [column for column in ("epoch", *METRICS) if column not in history]
    if missing:
        raise ConfigError(f"history: columns: found no {', '.join(missing)}, expected all of them")
    epochs = history["epoch"].tolist()
    if not epochs or sorted(epochs) != list(range(1, len(epochs) + 1)):
        found = ", ".join(map(str, epochs)) or "none"
        raise ConfigError(f"history: epochs: found {found:.40}, expected 1, 2, 3 and so on")


def ratio_of(config: MultiTaskConfig) -> float:
    """Return lambda2 / lambda1, as in the results of the lambda study."""
    return round(config.lambda2 / config.lambda1, 6) if config.lambda1 else math.inf


def alike(config: MultiTaskConfig, study: Study) -> list[Run]:
    """Return the recorded runs of a config, a run a seed, whatever its number of epochs.

    Only the ratio of its lambdas counts, since Adam ignores a common factor.
    """
    ignored = {key: getattr(config, key) for key in ("lambda1", "lambda2", "epochs")}
    return [
        run
        for run in study.runs
        if ratio_of(run.config) == ratio_of(config) and run.config.replace(**ignored) == config
    ]


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


def plot_among_recorded(run: Run) -> Figure:
    """Plot a run's validation metrics among those of recorded runs with its ratio of lambdas."""
    study = lambda_study()
    recorded = neighbours(run.config, study)
    recorded["name"] += " " + recorded["seed"].astype(str)
    colors, labels = {}, {}
    for color, (ratio, rows) in zip(("C0", "C1"), recorded.groupby("ratio"), strict=False):
        names = rows["name"].unique()
        colors |= dict.fromkeys(names, color)
        labels |= dict.fromkeys(names, "_")  # matplotlib's legend leaves these out
        labels[names[0]] = f"recorded, λ₂ / λ₁ = {format_ratio(ratio)}"
    colors["this run"] = "black"
    histories = pd.concat([recorded, run.history.assign(name="this run")])
    shown = {metric: label for metric, label in METRICS.items() if metric.startswith("val")}
    figure = plots.plot_curves(histories, shown, colors, labels=labels)
    images = run.result()["train_images"]
    text = f"This run: {run.name}, {images:,} images. Recorded: {study.caption()}"
    return plots.caption(figure, text)


def summarize(run: Run) -> list[str]:
    """Return three lines about a finished run: its test metrics, its placement, its folder."""
    result, study = run.result(), lambda_study()
    metrics, images = result["metrics"], result["train_images"]
    placement = (
        f"lowest validation loss {metrics['best_val_loss']:.4f}, after epoch "
        f"{metrics['best_epoch']}"
    )
    if alike(run.config, study):
        placed = place(run.history, run.config, study, train_images=images)
        placement = " ".join([*placed.explanation, placement])
    outcome = (
        f"test_accuracy {metrics['test_accuracy']:.4f}, test_rmse {metrics['test_rmse']:.4f}; "
        f"epochs {run.config.epochs}, images {images:,}, seconds {result['seconds']:.0f}"
    )
    return [outcome, placement, f"record: {run.folder}"]


def _band(history: pd.DataFrame, name: str, study: Study) -> pd.DataFrame:
    """Return `Placement.band` of a run's history, compared with the recorded runs called `name`."""
    recorded = study.history.merge(study.results[["name", "seed", *UNTRAINED]], on=["name", "seed"])
    recorded = recorded[recorded["epoch"].isin(history["epoch"])]
    for weight, metrics in UNTRAINED.items():
        recorded.loc[recorded[weight] == 0, metrics] = np.nan
    log_errors = np.log(_errors(recorded.set_index(["name", "seed", "epoch"]).sort_index()))
    names, seeds, epochs = log_errors.index.levels
    errors = log_errors.to_numpy().reshape(len(names), len(seeds), len(epochs), len(METRICS))
    means, deviations = _spread(errors)
    place = names.get_loc(name)
    mean = pd.DataFrame(means[place], epochs, list(METRICS))
    reach = _critical_value(errors) * deviations[place]
    run = history.set_index("epoch").reindex(epochs)
    columns = {
        "low": _errors(np.exp(mean - reach)),
        "mean": _errors(np.exp(mean)),
        "high": _errors(np.exp(mean + reach)),
        "value": run[list(METRICS)],
        "deviation": (np.log(_errors(run).clip(lower=1e-9)) - mean) / reach,
    }
    band = pd.DataFrame({column: table.T.stack() for column, table in columns.items()})
    band = band.rename_axis(["metric", "epoch"]).reset_index()
    band = band.dropna(subset="mean")  # NaN: the head was not trained
    band[["low", "high"]] = np.sort(band[["low", "high"]])  # the highest error is a low accuracy
    return band.assign(outside=~(band["deviation"].abs() <= 1))  # NaN is outside, too


def _errors(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the columns METRICS with 1 - accuracy in place of accuracy; twice is the identity."""
    return metrics[list(METRICS)].assign(val_accuracy=1 - metrics["val_accuracy"])


def _spread(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over seeds, and the standard deviation of one more run from it.

    Args:
        errors: logarithms, (configurations, seeds, epochs, metrics); NaN of an untrained head.
    """
    variance = errors.var(axis=1, ddof=1)
    variance = (variance + np.nanmedian(variance, axis=0)) / 2
    return errors.mean(axis=1), np.sqrt(variance * (1 + 1 / errors.shape[1]))


def _critical_value(errors: np.ndarray) -> float:
    """Return the 95 % quantile over recorded runs of the largest standardized deviation."""
    statistics = []
    for seed in range(errors.shape[1]):
        mean, deviation = _spread(np.delete(errors, seed, axis=1))
        standardized = np.abs(errors[:, seed] - mean) / deviation
        statistics.extend(np.nanmax(standardized, axis=(1, 2)))
    rank = math.ceil((1 - ALPHA) * (len(statistics) + 1))
    return sorted(statistics)[rank - 1]


def _describe(rows: pd.DataFrame) -> str:
    """Return one sentence about a metric that was outside its band."""
    last = rows.iloc[-1]
    relation = "back inside"
    if last["outside"]:
        relation = "better than" if last["deviation"] < 0 else "worse than"
    return (
        f"{METRICS[last['metric']]}: outside in {rows['outside'].sum()} of {len(rows)} epochs; "
        f"at epoch {last['epoch']:.0f} it is {last['value']:.4f}, {relation} the normal "
        f"range, {last['low']:.4f} to {last['high']:.4f}."
    )


def _reasons(last: pd.DataFrame) -> list[str]:
    """Return the usual reasons for metrics outside their band, likeliest first.

    Args:
        last: the band after the last epoch, by metric.
    """
    outside = set(last.index[last["outside"]])
    better = set(last.index[last["deviation"] < -1])
    worse = outside - better
    class_worse = bool(worse & {"val_accuracy", "val_cross_entropy"})
    ink_worse = "val_rmse" in worse
    # a constant prediction has an RMSE of 0.126, the standard deviation of ink
    constant_ink = ink_worse and 0.1 < last.loc["val_rmse", "value"] < 0.2
    reasons = {
        "A metric is not a number: the loss became infinite. Try a smaller learning_rate.": (
            last["value"].isna().any()
        ),
        "The ink head predicts a constant: its hidden ReLUs are dead. Try another seed, or "
        "z-scored ink.": constant_ink,
        "Ink is the mean of a raw image divided by 255. Does yours have that scale?": (
            ink_worse and not constant_ink
        ),
        "Training is better and validation worse: dropout is off in training, images repeat, or "
        "validation images are preprocessed differently.": "train_loss" in better and class_worse,
        "Training itself is worse: check learning_rate, batch_size, the optimizer, and the range "
        "of the images (0 to 1, not 0 to 255).": "train_loss" in worse,
        "Training is normal and validation worse: call model.eval() before evaluating. It turns "
        "dropout off and lets BatchNorm use its running statistics.": (
            "train_loss" not in outside and class_worse
        ),
        "Better than all seeds: another configuration than you think, or validation images among "
        "the training images.": "val_accuracy" in better,
        "It left the band and came back: bad luck, or another precision or device.": not outside,
    }
    return [reason for reason, applies in reasons.items() if applies]
