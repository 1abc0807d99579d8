"""Is my run normal? A reader's own run, placed within the spread of recorded runs of its configuration.

The recorded runs differ in their seed alone. A new run of the same configuration falls, epoch by
epoch, into mean +- t * sd * sqrt(1 + 1/n) with 95 % probability (prediction interval of one more
observation, Student's t with n - 1 degrees of freedom).
"""

from typing import NamedTuple

import pandas as pd

from ..core.config import Config
from ..core.significance import prediction_half_width
from ..core.study import Study

METRICS = {"val_accuracy": "val accuracy", "val_cross_entropy": "val CE", "val_rmse": "val ink RMSE",
           "train_loss": "train loss"}
HIGHER_IS_BETTER = ("val_accuracy",)
ALLOWED = 0.15  # share of epochs that may fall outside; one in twenty does by the interval's meaning


class Placement(NamedTuple):
    """Where a run lies: words, and the numbers for a picture.

    `band` has a row a metric and epoch: mean, low, high, value, outside.
    """

    normal: bool
    words: list[str]
    band: pd.DataFrame


def place(history: pd.DataFrame, config: Config, study: Study, *, train_images: int | None = None) -> Placement:
    """Compare a run's history with those that `study` recorded for `config`.

    Args:
        history: one row an epoch, as `runs.RunFolder.history` or the rows of `training.fit` give it.
            May stop before the configuration's last epoch.
        config: what was run.
        study: one with several seeds a configuration.
        train_images: how many images it was trained on, to name that as a reason.

    Raises:
        ValueError: nothing recorded for this configuration, or `history` has no epoch or lacks a metric.
    """
    results = study.results()
    # a key that the record does not have did not exist then: those runs had what is its default now
    same = results[[config.from_dict({key: row[key] for key in config.to_dict() if key in row}) == config
                    for row in results.to_dict("records")]]
    if same["seed"].nunique() < 2:
        raise ValueError(f"{study.name} recorded {len(same)} runs of {config}, expected at least 2; it has "
                         f"{', '.join(results['name'].unique())}")
    missing = [column for column in ("epoch", *METRICS) if column not in history]
    if missing or history.empty:
        raise ValueError(f"history: found {len(history)} epochs with columns {', '.join(history.columns)}, "
                         f"expected at least one epoch with {', '.join(['epoch', *METRICS])}")
    recorded = study.history()
    recorded = recorded[recorded["name"].isin(same["name"]) & recorded["seed"].isin(same["seed"])]
    band = pd.concat([_band(recorded, history, metric) for metric in METRICS], ignore_index=True)
    odd = {metric: rows for metric, rows in band.groupby("metric", sort=False)
           if rows["outside"].mean() > ALLOWED or rows["outside"].iloc[-1]}
    if not odd:
        words = f"Normal: within the spread of {same['seed'].nunique()} recorded seeds in {', '.join(METRICS.values())}."
        return Placement(True, [words], band)
    words = [_describe(metric, rows) for metric, rows in odd.items()]
    return Placement(False, words + _reasons(odd, history, same.iloc[0], train_images), band)


def _band(recorded: pd.DataFrame, history: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Prediction interval of `metric` at each epoch of `history` that the recorded runs have too."""
    by_epoch = recorded.groupby("epoch")[metric].agg(["mean", "std", "count"])
    half = prediction_half_width(by_epoch["std"], by_epoch["count"])
    band = pd.DataFrame({"mean": by_epoch["mean"], "low": by_epoch["mean"] - half, "high": by_epoch["mean"] + half})
    band = band.join(history.set_index("epoch")[metric].rename("value"), how="inner")
    # NaN is outside too
    band["outside"] = ~band["value"].between(band["low"], band["high"])
    return band.reset_index().assign(metric=metric)


def _better(metric: str, row) -> bool:
    return row["value"] > row["high"] if metric in HIGHER_IS_BETTER else row["value"] < row["low"]


def _describe(metric: str, rows: pd.DataFrame) -> str:
    last = rows.iloc[-1]
    side = "better" if _better(metric, last) else "worse"
    where = f"{side} than" if last["outside"] else "back inside"
    return (f"{METRICS[metric]}: outside in {rows['outside'].sum()} of {len(rows)} epochs; at epoch "
            f"{last['epoch']:.0f} it is {last['value']:.4f}, {where} the recorded {last['low']:.4f} to {last['high']:.4f}.")


def _reasons(odd: dict[str, pd.DataFrame], history: pd.DataFrame, recorded, train_images: int | None) -> list[str]:
    """The usual reasons for what was seen, likeliest first."""
    last = {metric: rows.iloc[-1] for metric, rows in odd.items()}
    better = {metric for metric, row in last.items() if row["outside"] and _better(metric, row)}
    worse = {metric for metric, row in last.items() if row["outside"]} - better
    reasons = []
    if train_images is not None and train_images != recorded["train_images"]:
        reasons.append(f"It was trained on {train_images:,} images, the recorded runs on {recorded['train_images']:,}.")
    if not history[list(METRICS)].iloc[-1].notna().all():
        reasons.append("A metric is not a number: the loss left the finite numbers; try a smaller learning_rate.")
    if "val_rmse" in worse and history["val_rmse"].iloc[-1] > 0.1:
        reasons.append("The ink head answers with a constant: its hidden ReLUs have died. Another seed, or z-scored "
                       "ink, wakes it.")
    if "train_loss" in better and worse & {"val_accuracy", "val_cross_entropy"}:
        reasons.append("Training looks better and validation worse: dropout is off in training, the images repeat, "
                       "or the validation images are prepared otherwise than the training images.")
    elif "train_loss" in worse:
        reasons.append("Training itself is worse: look at learning_rate, batch_size, the optimizer, and the range of "
                       "the images (0 to 1, not 0 to 255).")
    elif "val_accuracy" in worse:
        reasons.append("Training is normal and validation worse: call model.eval() before evaluating, so that dropout "
                       "is off and BatchNorm uses its running statistics.")
    if "val_accuracy" in better:
        reasons.append("Better than all seeds: another configuration than you think, or validation images among the "
                       "training images.")
    return reasons or ["It wandered outside on the way and came back: unusual luck, or another precision or device."]
