import numpy as np
import pandas as pd
import pytest

import smai_lib as smai
from smai_lib.multitask import recipe
from smai_lib.multitask.plots import plot_ablation
from smai_lib.multitask.recipe import RECIPE


@pytest.fixture
def given(record):
    """A function that returns a recorded study with given (accuracy, RMSE), a pair a seed."""

    def make(study, runs):
        rows = [
            {
                "name": name,
                "seed": seed,
                "test_accuracy": accuracy,
                "test_rmse": rmse,
                "val_accuracy": accuracy + 0.001,
                "test_mirror_accuracy": accuracy + 0.002,
                "val_mirror_accuracy": accuracy + 0.003,
                "test_mirror_rmse": rmse - 0.001,
            }
            for name, values in runs.items()
            for seed, (accuracy, rmse) in enumerate(values)
        ]
        record({f"{study}.csv": pd.DataFrame(rows)})
        return smai.load_study(study)

    return make


def test_an_ablation_is_compared_with_the_recipe_seed_by_seed(given):
    accuracy = np.array([0.940, 0.944, 0.936])
    losses = np.array([0.0100, 0.0101, 0.0099])
    same = [(value, 0.005) for value in accuracy]
    runs = {
        RECIPE: [*same, (0.1, 1.0)],  # a seed that no ablation has
        "without x": [(value, 0.005) for value in accuracy - losses],
        "without y": [(accuracy[n] + losses[n], 0.015 + 1e-5 * n) for n in range(3)],
    }
    table = recipe.ablation(given("q1_best", runs)).set_index("run")
    row = table.loc["without x"]
    assert row["seeds"] == 3 and row["accuracy_loss"] == pytest.approx(0.01)
    assert row["accuracy_low"] < 0.01 < row["accuracy_high"]
    assert table["accuracy_verdict"].tolist() == ["worse without", "better without"]
    assert table["rmse_verdict"].tolist() == ["equal", "worse without"]
    assert table.loc["without y", "rmse_loss"] == pytest.approx(0.01001)
    left, _ = plot_ablation(table.reset_index()).axes
    assert left.lines[0].get_xdata() == pytest.approx([0.01, -0.01])


def test_the_summary_and_the_shipped_run_are_of_the_recipes_seeds_alone(given):
    study = given("q1_best", {RECIPE: [(0.94, 0.005), (0.95, 0.005)], "without x": [(0.99, 1.0)]})
    plain, mirror = recipe.summary(study).to_dict("records")
    assert plain["seeds"] == 2 and plain["test_accuracy"] == pytest.approx(0.945)
    assert mirror["test_accuracy"] == pytest.approx(0.947)
    assert mirror["val_accuracy"] == pytest.approx(0.948)
    assert mirror["test_accuracy sd"] == pytest.approx(np.std([0.94, 0.95], ddof=1))
    assert (plain["test_rmse"], mirror["test_rmse"]) == pytest.approx((0.005, 0.004))
    assert study.best == RECIPE and study.best_run.seed == 1


def test_steps_of_the_ladder_by_hand(given):
    accuracy = {"a": [0.880, 0.884, 0.882], "b": [0.900, 0.903, 0.901], "c": [0.930, 0.931, 0.938]}
    runs = {name: [(value, 0.1) for value in values] for name, values in accuracy.items()}
    table = recipe.rungs(given("q1_ladder", runs)).set_index("rung")
    a, b, c = (np.mean(values) for values in accuracy.values())
    assert table["test_accuracy"].tolist() == pytest.approx([a, b, c])
    assert table.loc["c", "test_accuracy sd"] == pytest.approx(np.std(accuracy["c"], ddof=1))
    assert table["step"].tolist() == pytest.approx([np.nan, b - a, c - b], nan_ok=True)
    assert table.loc["b", "share"] == pytest.approx((b - a) / (c - a))
    assert table.loc["b", "p"] < 0.05
