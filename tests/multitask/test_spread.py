"""Runs placed within a recorded spread, which is made here: five seeds, four epochs, known noise."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from smai_lib.multitask import spread
from smai_lib.multitask.studies import lambda_config

CONFIG = lambda_config(1.0)
TREND = {"val_accuracy": [0.85, 0.88, 0.90, 0.91], "val_cross_entropy": [0.45, 0.36, 0.30, 0.28],
         "val_rmse": [0.05, 0.04, 0.03, 0.025], "train_loss": [0.7, 0.4, 0.3, 0.25]}
NOISE = 0.002


def history(seed, **changes):
    draw = np.random.default_rng(seed)
    columns = {metric: np.array(values) + draw.normal(0, NOISE, 4) for metric, values in TREND.items()}
    return pd.DataFrame({"epoch": range(1, 5), **columns} | changes)


class Recorded:
    """As much of a Study as `place` reads."""

    name = "made"

    @staticmethod
    def results():
        return pd.DataFrame({"name": "raw 1", "seed": seed, "train_images": 54000, **CONFIG.to_dict()} for seed in range(5))

    @staticmethod
    def history():
        return pd.concat([history(seed).assign(name="raw 1", seed=seed) for seed in range(5)])


def test_a_run_like_the_others_is_normal():
    placed = spread.place(history(99), CONFIG, Recorded)
    assert placed.normal and "5 recorded seeds" in placed.words[0] and not placed.band["outside"].any()


def test_the_interval_is_that_of_one_more_run():
    band = spread.place(history(99), CONFIG, Recorded).band
    values = np.array([history(seed)["val_accuracy"][2] for seed in range(5)])
    half = 2.776445 * values.std(ddof=1) * (1 + 1 / 5) ** 0.5  # t of 4 degrees of freedom
    row = band[(band["metric"] == "val_accuracy") & (band["epoch"] == 3)].iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-6)


@pytest.mark.parametrize("changes, said", [
    ({"train_loss": [2.0, 1.9, 1.8, 1.8], "val_accuracy": [0.3, 0.4, 0.4, 0.5]}, "learning_rate"),
    ({"val_accuracy": [0.5, 0.5, 0.4, 0.6]}, "model.eval"),
    ({"val_rmse": [0.126] * 4}, "hidden ReLUs have died"),
    ({"train_loss": [0.2, 0.1, 0.05, 0.01], "val_accuracy": [0.8, 0.8, 0.8, 0.8]}, "validation worse"),
    ({"val_accuracy": [0.97, 0.98, 0.99, 0.99]}, "among the training images"),
    ({"train_loss": [0.7, 0.4, 0.3, float("nan")]}, "not a number"),
])
def test_an_odd_run_is_told_the_likely_reason(changes, said):
    placed = spread.place(history(99, **changes), CONFIG, Recorded)
    assert not placed.normal and any(said in line for line in placed.words), placed.words


def test_fewer_images_are_named_and_a_shorter_run_is_placed():
    short = history(99, val_accuracy=[0.5, 0.5, 0.4, 0.6]).head(2)
    placed = spread.place(short, CONFIG, Recorded, train_images=2000)
    assert any("2,000 images, the recorded runs on 54,000" in line for line in placed.words)
    assert placed.band["epoch"].max() == 2


def test_a_configuration_without_recorded_runs_lists_what_there_is():
    other = dataclasses.replace(CONFIG, base_filters=32)
    with pytest.raises(ValueError, match="made recorded 0 runs of .*base_filters=32.*it has raw 1"):
        spread.place(history(99), other, Recorded)
    with pytest.raises(ValueError, match="expected at least one epoch with epoch, val_accuracy"):
        spread.place(history(99).drop(columns="val_rmse"), CONFIG, Recorded)
