"""Is my run normal? A reader's own run, placed within the spread of recorded runs of its configuration.

The recorded runs differ in their seed alone. A run gets one joint test: each metric of each epoch is standardised by the
recorded seeds, and the largest deviation is judged. How large it may be is calibrated on the record: every run is held
out and compared with the other seeds of its configuration, and 95 % of them, of all configurations together, stay within
(split-conformal quantile, Vovk et al. 2005): 5 % of whole runs raise a false alarm. Deviations are of logarithms, of the
error rate in place of accuracy, because errors jump by factors. Few seeds alone give a poor variance, so the mean of
their own and of the median over configurations is taken.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..core.significance import ALPHA
from ..core.study import Study
from .config import MultiTaskConfig

METRICS = {
    "val_accuracy": "val accuracy",
    "val_cross_entropy": "val CE",
    "val_rmse": "val ink RMSE",
    "train_loss": "train loss",
}
UNTRAINED = {
    "lambda1": ["val_accuracy", "val_cross_entropy"],
    "lambda2": ["val_rmse"],
}  # where that weight is 0


class Placement(NamedTuple):
    """Where a run lies: words, and a `band` with a row a metric and epoch: low, mean, high, value, outside."""

    normal: bool
    words: list[str]
    band: pd.DataFrame


def ratio_of(config: MultiTaskConfig) -> float:
    return round(config.lambda2 / config.lambda1, 6) if config.lambda1 else math.inf


def alike(config: MultiTaskConfig, study: Study) -> pd.DataFrame:
    """Results of `study` for `config`, whatever the lambdas' sum, which Adam does not feel, and the epochs."""
    own = {key: getattr(config, key) for key in ("lambda1", "lambda2", "epochs")}
    # a key that the record does not have did not exist then: those runs had what is its default now
    return study.results().query("ratio == @ratio_of(@config)")[
        lambda rows: [
            config
            == config.from_dict({key: row[key] for key in config.to_dict() if key in row} | own)
            for row in rows.to_dict("records")
        ]
    ]


def neighbours(config: MultiTaskConfig, study: Study) -> pd.DataFrame:
    """Recorded epochs, with their `ratio`, of the config's lambda2 / lambda1, or of the nearest below and above."""
    results = study.results().query(
        "ink_scaling == @config.ink_scaling and weighting == @config.weighting"
    )
    ratio, ratios = ratio_of(config), results["ratio"]
    near = ratios.isin([ratios[ratios <= ratio].max(), ratios[ratios >= ratio].min()])
    return study.history().merge(results.loc[near, ["name", "seed", "ratio"]])


def place(
    history: pd.DataFrame, config: MultiTaskConfig, study: Study, *, train_images: int | None = None
) -> Placement:
    """Compare a run's history with those that `study` recorded for `config`; see `alike`.

    Args:
        history: one row an epoch, of `runs.RunFolder.history` or `training.fit`; may stop before the last epoch.
        study: one with at least 3 seeds a configuration, and 19 runs in all.
        train_images: how many images it was trained on, to name that as a reason.

    Raises:
        ValueError: too little recorded for this configuration, or `history` has no epoch or lacks a metric.
    """
    same = alike(config, study)
    if same["seed"].nunique() < 3:
        raise ValueError(
            f"{study.name} recorded {len(same)} runs of {config}, expected at least 3; it has "
            f"{', '.join(study.results()['name'].unique())}"
        )
    if history.empty or not {"epoch", *METRICS} <= {*history}:
        raise ValueError(
            f"history: found {len(history)} epochs with columns {', '.join(history.columns)}, "
            f"expected at least one epoch with {', '.join(['epoch', *METRICS])}"
        )
    names, epochs, recorded = _recorded(study)
    shown = np.isin(epochs, history["epoch"])
    mean, sd = (part[names.index(same["name"].iloc[0])] for part in _spread(recorded[:, :, shown]))
    reach = _critical(recorded[:, :, shown]) * sd
    ends = np.sort(
        [_errors(np.exp(mean + step)) for step in (-reach, 0 * reach, reach)], axis=0
    )  # (3, epochs, metrics)
    total = (config.lambda1 + config.lambda2) / same[["lambda1", "lambda2"]].iloc[0].sum()
    values = history.assign(train_loss=history["train_loss"] / total).set_index("epoch")
    band = (
        pd.concat(
            [
                pd.DataFrame(ends[:, :, n].T, epochs[shown], ["low", "mean", "high"]).assign(
                    metric=metric, value=values[metric]
                )
                for n, metric in enumerate(METRICS)
            ]
        )
        .rename_axis("epoch")
        .reset_index()
    )
    band = band[band["mean"].notna()]  # of an untrained head nothing is expected
    band["outside"] = ~band["value"].between(band["low"], band["high"])  # NaN is outside too
    odd = {
        metric: rows for metric, rows in band.groupby("metric", sort=False) if rows["outside"].any()
    }
    if odd:
        words = [_describe(metric, rows) for metric, rows in odd.items()]
        return Placement(False, words + _reasons(odd, history, same.iloc[0], train_images), band)
    compared = ", ".join(METRICS[metric] for metric in band["metric"].unique())
    words = f"Normal: within the spread of {same['seed'].nunique()} recorded seeds, as 95 % of runs are, in {compared}."
    return Placement(True, [words], band)


def _errors(values: np.ndarray) -> np.ndarray:
    """(..., metrics): accuracy as error rate, or back; the others stay."""
    return np.where(np.array(list(METRICS)) == "val_accuracy", 1 - values, values)


def _recorded(study: Study) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, epochs, and logarithms (names, seeds, epochs, metrics) of the record; NaN where a head was not trained."""
    rows = study.history().merge(study.results()[["name", "seed", *UNTRAINED]], on=["name", "seed"])
    for weight, metrics in UNTRAINED.items():
        rows.loc[rows[weight] == 0, metrics] = np.nan
    table = rows.set_index(["name", "seed", "epoch"])[list(METRICS)].sort_index()
    names, seeds, epochs = (
        table.index.levels
    )  # runs that differ in seeds or epochs do not fit, and fail
    return (
        list(names),
        epochs.to_numpy(),
        np.log(_errors(table)).reshape(len(names), len(seeds), len(epochs), -1),
    )


def _spread(recorded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(names, seeds, ...) -> their mean, and the deviation from it of one more run, both (names, ...)."""
    own = recorded.var(axis=1, ddof=1)
    return recorded.mean(axis=1), (
        (own + np.nanmedian(own, axis=0)) / 2 * (1 + 1 / recorded.shape[1])
    ) ** 0.5


def _largest(recorded: np.ndarray, seed: int) -> np.ndarray:
    """(names,) largest standardised deviation of the run of `seed` from those of the others."""
    mean, sd = _spread(np.delete(recorded, seed, axis=1))
    return np.nanmax(np.abs(recorded[:, seed] - mean) / sd, axis=(1, 2))


def _critical(recorded: np.ndarray) -> float:
    """What the largest deviation of 95 % of runs stays within; ValueError where too few are recorded to say."""
    largest = np.sort(
        np.concatenate([_largest(recorded, seed) for seed in range(recorded.shape[1])])
    )
    if (rank := math.ceil((1 - ALPHA) * (len(largest) + 1))) > len(largest):
        raise ValueError(
            f"found {len(largest)} recorded runs, expected at least {round(1 / ALPHA) - 1} to calibrate on"
        )
    return largest[rank - 1]


def _better(metric: str, row) -> bool:
    return row["value"] > row["high"] if metric == "val_accuracy" else row["value"] < row["low"]


def _describe(metric: str, rows: pd.DataFrame) -> str:
    last = rows.iloc[-1]
    where = (
        ("better than" if _better(metric, last) else "worse than")
        if last["outside"]
        else "back inside"
    )
    return (
        f"{METRICS[metric]}: outside in {rows['outside'].sum()} of {len(rows)} epochs; at epoch {last['epoch']:.0f} "
        f"it is {last['value']:.4f}, {where} the recorded {last['low']:.4f} to {last['high']:.4f}."
    )


def _reasons(
    odd: dict[str, pd.DataFrame], history: pd.DataFrame, recorded, train_images: int | None
) -> list[str]:
    """The usual reasons for what was seen, likeliest first."""
    last = {metric: rows.iloc[-1] for metric, rows in odd.items() if rows["outside"].iloc[-1]}
    better = {metric for metric, row in last.items() if _better(metric, row)}
    worse, ink = last.keys() - better, history["val_rmse"].iloc[-1]
    heads_worse = worse & {"val_accuracy", "val_cross_entropy"}
    reasons = {
        f"It was trained on {train_images or 0:,} images, the recorded runs on {recorded['train_images']:,}.": train_images
        not in (None, recorded["train_images"]),
        "A metric is not a number: the loss left the finite numbers; try a smaller learning_rate.": not history[
            list(METRICS)
        ]
        .iloc[-1]
        .notna()
        .all(),
        "The ink head answers with a constant: its hidden ReLUs have died. Another seed, or z-scored ink, wakes it.": "val_rmse"
        in worse
        and 0.1 < ink < 0.2,
        "Ink is the mean of a raw image divided by 255: is yours of that scale?": "val_rmse"
        in worse
        and not 0.1 < ink < 0.2,
        "Training looks better and validation worse: dropout is off in training, the images repeat, or the validation "
        "images are prepared in another way.": "train_loss" in better and heads_worse,
        "Training itself is worse: look at learning_rate, batch_size, the optimizer, and the range of the images (0 to "
        "1, not 0 to 255).": "train_loss" in worse,
        "Training is normal and validation worse: call model.eval() before evaluating, so that dropout is off and "
        "BatchNorm uses its running statistics.": "train_loss" not in last and heads_worse,
        "Better than all seeds: another configuration than you think, or validation images among the training images.": "val_accuracy"
        in better,
        "It wandered outside and came back: unusual luck, or another precision or device.": not last,
    }
    return [reason for reason, seen in reasons.items() if seen]
