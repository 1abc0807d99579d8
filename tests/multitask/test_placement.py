"""Runs placed within a recorded spread: one made here, with known noise, and the lambda study's own."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from smai_lib.multitask import spread
from smai_lib.multitask.studies import lambda_config, lambda_study

CONFIG = lambda_config(1.0)
TREND = {
    "val_accuracy": [0.85, 0.88, 0.90, 0.91],
    "val_cross_entropy": [0.45, 0.36, 0.30, 0.28],
    "val_rmse": [0.05, 0.04, 0.03, 0.025],
    "train_loss": [0.7, 0.4, 0.3, 0.25],
}
NOISE = 0.002
RATIOS = (1.0, 0.1, 10.0, 100.0)


def history(seed, **changes):
    draw = np.random.default_rng(seed)
    columns = {
        metric: np.array(values) + draw.normal(0, NOISE, 4) for metric, values in TREND.items()
    }
    return pd.DataFrame({"epoch": range(1, 5), **columns} | changes)


class Recorded:
    """As much of a Study as `place` reads."""

    name = "made"

    @staticmethod
    def results():
        return pd.DataFrame(
            {
                "name": f"raw {ratio:g}",
                "seed": seed,
                "train_images": 54000,
                "ratio": ratio,
                **lambda_config(ratio).to_dict(),
            }
            for ratio in RATIOS
            for seed in range(5)
        )

    @staticmethod
    def history():
        return pd.concat(
            [
                history(seed + 10 * number).assign(name=f"raw {ratio:g}", seed=seed)
                for number, ratio in enumerate(RATIOS)
                for seed in range(5)
            ]
        )


class Given(Recorded):
    """These results and epochs."""

    def __init__(self, results, history):
        self.results, self.history = (lambda: results), (lambda: history)


def test_a_run_like_the_others_is_normal():
    placed = spread.place(history(99), CONFIG, Recorded)
    assert (
        placed.normal and "5 recorded seeds" in placed.words[0] and not placed.band["outside"].any()
    )


def test_the_band_is_as_wide_by_factors_of_the_error_rate_either_way():
    band = spread.place(history(99), CONFIG, Recorded).band
    rows = band[band["metric"] == "val_accuracy"]
    assert ((1 - rows["low"]) / (1 - rows["mean"])).to_numpy() == pytest.approx(
        ((1 - rows["mean"]) / (1 - rows["high"])).to_numpy()
    )
    errors = np.log([1 - history(seed)["val_accuracy"] for seed in range(5)])
    assert (1 - rows["mean"]).to_numpy() == pytest.approx(np.exp(errors.mean(0)))


@pytest.mark.parametrize("epochs", [1, 2, 10])
def test_at_most_one_normal_run_in_twenty_is_called_odd(epochs):
    """Each seed is held out of the record, and so of the calibration, in turn."""
    study, placed = lambda_study(), []
    results, history = study.results(), study.history()
    for spec in study.specs:
        run = history.query("name == @spec.name and seed == @spec.seed and epoch <= @epochs")
        others = Given(results.query("seed != @spec.seed"), history.query("seed != @spec.seed"))
        placed.append(spread.place(run, spec.config, others).normal)
    assert len(placed) == 75 and placed.count(False) <= 0.05 * 75


# val accuracy, val CE, val ink RMSE, train loss after each epoch of runs of seeds that are not recorded, on
# the recorded runs' images; measured once, since an epoch takes a minute
REAL = {
    "normal, seed 5": (True, [(0.88267, 0.31295, 0.01845, 0.2356)]),
    "normal, seed 6": (True, [(0.87617, 0.33214, 0.02018, 0.23691)]),
    "normal, seed 7": (True, [(0.8855, 0.30827, 0.03556, 0.23314)]),
    "dropout left on": (False, [(0.87417, 0.33812, 0.03556, 0.23314)]),
    "twice the ink": (False, [(0.885, 0.3059, 0.0504, 0.23531)]),
    "ink from 0 to 255": (False, [(0.85133, 0.39874, 2.82018, 45.03961)]),
    "a tenth of the images": (
        False,
        [(0.81017, 0.52656, 0.02072, 0.46038), (0.83633, 0.46085, 0.03094, 0.25312)],
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_broken_runs_are_found_and_new_seeds_are_not(name):
    normal, rows = REAL[name]
    run = pd.DataFrame(rows, columns=list(spread.METRICS)).assign(epoch=range(1, len(rows) + 1))
    assert spread.place(run, CONFIG, lambda_study()).normal == normal


def test_neither_the_sum_of_the_lambdas_nor_an_untrained_head_matters():
    study = lambda_study()
    recorded = study.history().query("name == 'raw 1' and seed == 0")
    doubled = dataclasses.replace(CONFIG, lambda1=1.0, lambda2=1.0, epochs=3)
    placed = spread.place(recorded.assign(train_loss=2 * recorded["train_loss"]), doubled, study)
    assert placed.normal and placed.band["metric"].nunique() == 4
    ink_only = study.history().query("name == 'raw inf' and seed == 0").assign(val_accuracy=0.0)
    assert set(spread.place(ink_only, lambda_config(float("inf")), study).band["metric"]) == {
        "val_rmse",
        "train_loss",
    }


@pytest.mark.parametrize(
    "lambdas, near",
    [
        ((2.0, 0.5), {0.1, 1.0}),
        ((2.0, 2.0), {1.0}),
        ((1.0, 500.0), {100.0, float("inf")}),
        ((0.0, 3.0), {float("inf")}),
    ],
)
def test_neighbours_are_the_ratio_or_the_two_around_it(lambdas, near):
    config = dataclasses.replace(CONFIG, lambda1=lambdas[0], lambda2=lambdas[1])
    found = spread.neighbours(config, lambda_study())
    assert set(found["ratio"]) == near and set(found["name"].str.split().str[0]) == {"raw"}
    assert len(found) == 50 * len(near)


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"train_loss": [2.0, 1.9, 1.8, 1.8], "val_accuracy": [0.3, 0.4, 0.4, 0.5]},
            "learning_rate",
        ),
        ({"val_accuracy": [0.5, 0.5, 0.4, 0.6]}, "model.eval"),
        ({"val_rmse": [0.126] * 4}, "hidden ReLUs have died"),
        (
            {"train_loss": [0.2, 0.1, 0.05, 0.01], "val_accuracy": [0.8, 0.8, 0.8, 0.8]},
            "validation worse",
        ),
        ({"val_accuracy": [0.97, 0.98, 0.99, 0.99]}, "among the training images"),
        ({"train_loss": [0.7, 0.4, 0.3, float("nan")]}, "not a number"),
    ],
)
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
    with pytest.raises(
        ValueError, match="made recorded 0 runs of .*base_filters=32.*it has raw 1, "
    ):
        spread.place(history(99), other, Recorded)
    with pytest.raises(ValueError, match="expected at least one epoch with epoch, val_accuracy"):
        spread.place(history(99).drop(columns="val_rmse"), CONFIG, Recorded)
