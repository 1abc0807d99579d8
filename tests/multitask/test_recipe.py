from types import SimpleNamespace

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
    runs = {
        # no ablation has the fourth seed
        RECIPE: [(0.940, 0.0050), (0.944, 0.0051), (0.936, 0.0049), (0.1, 1.0)],
        "without x": [(0.930, 0.0050), (0.9339, 0.0051), (0.9261, 0.0049)],
        "without y": [(0.950, 0.0150), (0.9541, 0.0152), (0.9459, 0.0148)],
    }
    table = recipe.ablation(given("q1_best", runs))
    assert table["seeds"].tolist() == [3, 3]
    assert table["accuracy_loss"].tolist() == pytest.approx([0.01, -0.01])
    assert table["rmse_loss"].tolist() == pytest.approx([0, 0.01])
    assert table["accuracy_verdict"].tolist() == ["worse without", "better without"]
    assert table["rmse_verdict"].tolist() == ["equal", "worse without"]
    left, _ = plot_ablation(table).axes
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


def test_what_muon_gains_on_test_is_paired_by_seed():
    runs = {
        "name": ["Muon", "AdamW"] * 3,
        "seed": [0, 0, 1, 1, 2, 2],
        "test_accuracy": [0.950, 0.947, 0.9502, 0.9462, 0.952, 0.949],
        "test_mirror_accuracy": [0.95, 0.94, 0.96, 0.95, 0.97, 0.96],
    }
    gain = recipe.gain_of_muon(SimpleNamespace(results=pd.DataFrame(runs)))
    assert gain["prediction"].tolist() == ["one image", "mirror average"]
    assert gain["difference"].tolist() == pytest.approx([0.01 / 3, 0.01])
    # Student's t: differences of 0.3, 0.4 and 0.3 points, quantile 4.303
    assert gain["low"].tolist() == pytest.approx([0.01 / 3 - 4.303 * 0.001 / 3, 0.01], abs=1e-6)


def test_the_residual_network_is_summed_up_with_the_better_optimizer(given):
    study = given("q1_beyond", {"AdamW": [(0.94, 0.1)] * 2, "Muon": [(0.95, 0.1)] * 3})
    assert study.best == "Muon"
    assert recipe.summary(study)["seeds"].tolist() == [3, 3]


def test_steps_of_the_ladder_by_hand(given):
    runs = {
        "a": [(0.880, 0.1), (0.884, 0.1), (0.882, 0.1)],
        "b": [(0.900, 0.1), (0.903, 0.1), (0.901, 0.1)],
        "c": [(0.930, 0.1), (0.931, 0.1), (0.938, 0.1)],
    }
    table = recipe.rungs(given("q1_ladder", runs)).set_index("rung")
    a, b, c = 0.882, 2.704 / 3, 0.933
    assert table["test_accuracy"].tolist() == pytest.approx([a, b, c])
    assert table.loc["a", "test_accuracy sd"] == pytest.approx(0.002)
    assert table["step"].tolist() == pytest.approx([np.nan, b - a, c - b], nan_ok=True)
    assert table.loc["b", "share"] == pytest.approx((b - a) / (c - a))
    assert table.loc["b", "p"] < 0.05
