"""Placement of runs among recorded ones: made-up ones with known noise, and the lambda study's."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

import smai_lib as smai
from smai_lib.core.errors import ConfigError
from smai_lib.core.study import Study, over_seeds
from smai_lib.multitask import placement
from smai_lib.multitask.plots import plot_placement
from smai_lib.multitask.studies import lambda_config, lambda_study

CONFIG = lambda_config(1.0)
TREND = {
    "val_accuracy": [0.85, 0.88, 0.90, 0.91],
    "val_cross_entropy": [0.45, 0.36, 0.30, 0.28],
    "val_rmse": [0.05, 0.04, 0.03, 0.025],
    "train_loss": [0.7, 0.4, 0.3, 0.25],
}


def history(seed, **changes):
    """Return four epochs of `TREND` with noise."""
    draw = np.random.default_rng(seed)
    columns = {metric: np.add(values, draw.normal(0, 0.002, 4)) for metric, values in TREND.items()}
    return pd.DataFrame({"epoch": range(1, 5), **columns} | changes)


@pytest.fixture(scope="module")
def made_up():
    """A study of four ratios and five seeds, as far as `place` reads it."""
    configs = {f"raw {ratio:g}": lambda_config(ratio) for ratio in (1.0, 0.1, 10.0, 100.0)}
    runs = Study("made up", "recorded", over_seeds(configs, 0, 5), lambda: None).runs
    rows = [{"name": run.name, "seed": run.seed, **run.config.to_dict()} for run in runs]
    return SimpleNamespace(
        name="made up",
        runs=runs,
        results=pd.DataFrame(rows).assign(train_images=54000),
        history=pd.concat(
            history(noise).assign(name=run.name, seed=run.seed) for noise, run in enumerate(runs)
        ),
    )


@pytest.fixture(scope="module")
def recorded():
    return lambda_study()


@pytest.mark.parametrize(
    "damaged, message",
    [
        (history(99, epoch=range(4)), "epochs: found 0, 1, 2, 3, expected 1, 2, 3"),
        (history(99, epoch=[1, 2, 2, 3]), "epochs: found 1, 2, 2, 3, expected"),
        (history(99).head(0), "epochs: found none, expected"),
        (history(99).drop(columns=["val_rmse", "epoch"]), "columns: found no epoch, val_rmse"),
    ],
    ids=["from 0", "repeated", "empty", "columns"],
)
def test_a_history_that_cannot_be_compared_is_refused(made_up, damaged, message):
    with pytest.raises(ConfigError, match=f"history: {message}"):
        placement.place(damaged, CONFIG, made_up)


def test_a_run_like_the_recorded_ones_is_normal(made_up):
    placed = placement.place(history(99), CONFIG, made_up)
    assert placed.normal and "5 recorded seeds" in placed.explanation[0]
    band = placed.band[placed.band["metric"] == "val_accuracy"]
    errors = 1 - band[["low", "mean", "high"]].to_numpy()
    # the band is symmetric in logarithms of the error rate
    assert errors[:, 0] / errors[:, 1] == pytest.approx(errors[:, 1] / errors[:, 2])
    accuracy = made_up.history.query("name == 'raw 1' and epoch == 1")["val_accuracy"]
    assert errors[0, 1] == pytest.approx(np.exp(np.log(1 - accuracy).mean()))


@pytest.mark.parametrize("epochs", [1, 10])
def test_at_most_one_normal_run_in_twenty_raises_an_alarm(recorded, epochs):
    """Of every third run: its seed is left out of the record, so also of the calibration."""
    results, rows = recorded.results, recorded.history
    normal = []
    for run in recorded.runs[1::3]:
        own = rows.query("name == @run.name and seed == @run.seed and epoch <= @epochs")
        others = SimpleNamespace(
            runs=[other for other in recorded.runs if other.seed != run.seed],
            results=results.query("seed != @run.seed"),
            history=rows.query("seed != @run.seed"),
        )
        normal.append(placement.place(own, run.config, others).normal)
    assert len(normal) == 25 and normal.count(False) <= 0.05 * 25


# columns of TREND after each epoch of real runs
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([(0.87417, 0.33812, 0.03556, 0.23314)], id="dropout in evaluation"),
        pytest.param([(0.885, 0.3059, 0.0504, 0.23531)], id="twice the ink"),
        pytest.param(
            [(0.81017, 0.52656, 0.02072, 0.46038), (0.83633, 0.46085, 0.03094, 0.25312)],
            id="a tenth of the images",
        ),
    ],
)
def test_broken_runs_are_found(recorded, rows):
    run = pd.DataFrame(rows, columns=list(TREND)).assign(epoch=range(1, len(rows) + 1))
    assert not placement.place(run, CONFIG, recorded).normal


def test_neither_the_sum_of_the_lambdas_nor_an_untrained_head_matters(recorded):
    run = recorded.history.query("name == 'raw 1' and seed == 0")
    run = run.assign(train_loss=2 * run["train_loss"])
    doubled = CONFIG.replace(lambda1=1.0, lambda2=1.0, epochs=3)
    placed = placement.place(run, doubled, recorded)
    assert placed.normal and placed.band["metric"].nunique() == 4
    ink_only = recorded.history.query("name == 'raw inf' and seed == 0").assign(val_accuracy=0.0)
    placed = placement.place(ink_only, lambda_config(math.inf), recorded)
    assert set(placed.band["metric"]) == {"val_rmse", "train_loss"}


@pytest.mark.parametrize(
    "lambda1, lambda2, ratios",
    [
        (2.0, 0.5, {0.1, 1.0}),
        (2.0, 2.0, {1.0}),
        (1.0, 500.0, {100.0, math.inf}),
    ],
)
def test_neighbours_have_the_ratio_or_the_two_around_it(recorded, lambda1, lambda2, ratios):
    config = CONFIG.replace(lambda1=lambda1, lambda2=lambda2)
    rows = placement.neighbours(config, recorded)
    assert set(rows["ratio"]) == ratios and len(rows) == 50 * len(ratios)
    assert rows["name"].str.startswith("raw").all()


@pytest.mark.parametrize(
    "reason, changes",
    [
        ("learning_rate", {"train_loss": [2, 1.9, 1.8, 1.8], "val_accuracy": [0.3, 0.4, 0.4, 0.5]}),
        ("model.eval", {"val_accuracy": [0.5, 0.5, 0.4, 0.6]}),
        ("hidden ReLUs are dead", {"val_rmse": [0.126] * 4}),
        ("Does yours have that scale", {"val_rmse": [30.0] * 4}),
        ("validation worse", {"train_loss": [0.2, 0.1, 0.05, 0.01], "val_accuracy": [0.8] * 4}),
        ("among the training images", {"val_accuracy": [0.97, 0.98, 0.99, 0.99]}),
        ("not a number", {"train_loss": [0.7, 0.4, 0.3, float("nan")]}),
        ("came back", {"val_rmse": [0.5, *TREND["val_rmse"][1:]]}),
    ],
)
def test_an_odd_run_is_explained(made_up, reason, changes):
    placed = placement.place(history(99, **changes), CONFIG, made_up)
    assert not placed.normal and any(reason in line for line in placed.explanation)


def test_values_outside_the_band_are_drawn_in_red(made_up):
    odd = history(99, val_rmse=[0.5, *TREND["val_rmse"][1:]])
    placed = placement.place(odd, CONFIG, made_up)
    (axes,) = plot_placement(placed.band, {"val_rmse": "ink RMSE"}).axes
    red = (axes.collections[1].get_facecolors() == to_rgba("C3")).all(1)
    assert red.tolist() == [True, False, False, False]


def test_what_cannot_be_placed_is_refused_with_what_is_recorded(made_up):
    other = CONFIG.replace(base_filters=32)
    with pytest.raises(ConfigError, match="made up recorded no run of .*it has raw 1, raw 0.1"):
        placement.place(history(99), other, made_up)


def test_ones_own_run_is_drawn_among_the_recorded_ones_and_summarized(tiny):
    run = smai.train(CONFIG.replace(epochs=1, lambda1=2.0, lambda2=0.5), tiny)
    figure = placement.plot_among_recorded(run)
    lines = figure.axes[0].get_lines()
    assert len(lines) == 11  # five seeds of ratio 0.1, five of ratio 1, and the run
    outcome, standing, folder = placement.summarize(run)
    assert f"test_rmse {run.metrics['test_rmse']:.4f}" in outcome and "images 300" in outcome
    assert standing.startswith("lowest validation loss")  # its ratio is not recorded
    assert folder == f"record: {run.folder}"
    run = smai.train(CONFIG.replace(epochs=1), tiny)
    assert "on 300 images, the recorded runs on 54,000" in placement.summarize(run)[1]
