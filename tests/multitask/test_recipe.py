from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import smai_lib as smai
from smai_lib.core.layers import parameter_count
from smai_lib.multitask import recipe
from smai_lib.multitask.plots import plot_ablation
from smai_lib.multitask.recipe import BEST, INGREDIENTS, PLAIN, RECIPE, RESIDUAL, STEPS
from smai_lib.multitask.studies import PUBLISHED_CONFIGS


@pytest.fixture
def full(tiny):
    """A function that returns a study as `full` would train it, from seed 3 on."""
    data = replace(tiny, source="these tests")
    return lambda name: smai.load_study(name, "full", seed=3, data=data)


def changed_keys(before, after):
    before, after = before.to_dict(), after.to_dict()
    return {key for key in after if after[key] != before[key]}


def test_recipe_and_residual_network_keep_the_bounds_of_size_and_epochs():
    assert changed_keys(PLAIN, BEST).isdisjoint(
        {"num_layers", "base_filters", "dropout_rate", "epochs", "batch_size", "backbone"}
    )
    for config in (BEST, RESIDUAL):
        assert parameter_count(config.build_network()) < 500_000 and config.epochs <= 20
    assert RESIDUAL.backbone == "residual"


def test_each_ablation_takes_one_ingredient_back(full):
    configs = {run.name: run.config for run in full("q1_best").runs}
    assert configs.pop(RECIPE) == BEST
    for name, keys in INGREDIENTS.items():
        config = configs.pop(f"without {name}")
        assert changed_keys(BEST, config) == set(keys)
        assert changed_keys(PLAIN, config).isdisjoint(keys)
    assert not configs
    ablated = [key for keys in INGREDIENTS.values() for key in keys]
    assert sorted([*ablated, "optimizer", "weight_decay"]) == sorted(changed_keys(PLAIN, BEST))


def test_seeds_run_in_an_order_that_keeps_comparisons_complete(full):
    study = full("q1_best")
    assert [run.seed for run in study.runs] == [3, 4, 5, 6, 7] + [3] * 6 + [4] * 6 + [5] * 6
    assert {run.name for run in study.runs[:5]} == {RECIPE}
    assert len({run.run_id for run in study.runs}) == len(study.runs)
    assert [run.seed for run in full("q1_beyond").runs] == [3, 4, 5, 6, 7]
    ladder = full("q1_ladder")
    assert [run.seed for run in ladder.runs] == [3] * 12 + [4] * 12 + [5] * 12
    assert ladder.weights(ladder) == {}  # its recipe ships with q1_best


@pytest.fixture
def given(record):
    """A function that returns the recipe's study with given (accuracy, RMSE), a pair a seed."""

    def make(**runs):
        rows = [
            {
                "name": name.replace("_", " "),
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
        record({"q1_best.csv": pd.DataFrame(rows)})
        return smai.load_study("q1_best")

    return make


def test_an_ablation_is_compared_with_the_recipe_seed_by_seed(given):
    accuracy = np.array([0.940, 0.944, 0.936])
    losses = np.array([0.0100, 0.0101, 0.0099])
    same = list(zip(accuracy, [0.005] * 3, strict=True))
    study = given(
        recipe=[*same, (0.1, 1.0)],  # a seed that no ablation has
        without_x=[(accuracy[n] - losses[n], 0.005) for n in range(3)],
        without_y=[(accuracy[n] + losses[n], 0.015 + 1e-5 * n) for n in range(3)],
        without_z=same,
    )
    table = recipe.ablation(study).set_index("run")
    half = stats.t.ppf(0.975, 2) * losses.std(ddof=1) / np.sqrt(3)
    row = table.loc["without x"]
    assert row["seeds"] == 3
    ends = row[["accuracy_low", "accuracy_loss", "accuracy_high"]].tolist()
    assert ends == pytest.approx([0.01 - half, 0.01, 0.01 + half])
    assert table["accuracy_verdict"].tolist() == ["worse without", "better without", "equal"]
    assert table["rmse_verdict"].tolist() == ["equal", "worse without", "equal"]
    assert table.loc["without y", "rmse_loss"] == pytest.approx(0.01001)
    assert table.loc["without y", "accuracy_loss"] < 0
    left, _ = plot_ablation(table.reset_index()).axes
    assert left.lines[0].get_xdata() == pytest.approx([0.01, -0.01, 0])


def test_one_seed_is_not_enough_to_judge_an_ablation(given):
    table = recipe.ablation(given(recipe=[(0.94, 0.005)], without_x=[(0.93, 0.006)]))
    assert table["accuracy_verdict"].tolist() == ["not enough seeds"]
    assert table["accuracy_loss"].item() == pytest.approx(0.01)
    assert table["rmse_loss"].item() == pytest.approx(0.001)


def test_the_summary_is_over_the_recipes_seeds_alone(given):
    study = given(recipe=[(0.94, 0.005), (0.95, 0.005)], without_x=[(0.1, 1.0)])
    plain, mirror = recipe.summary(study).to_dict("records")
    assert plain["seeds"] == 2 and plain["test_accuracy"] == pytest.approx(0.945)
    assert mirror["test_accuracy"] == pytest.approx(0.947)
    assert mirror["val_accuracy"] == pytest.approx(0.948)
    assert mirror["test_accuracy sd"] == pytest.approx(np.std([0.94, 0.95], ddof=1))
    assert (plain["test_rmse"], mirror["test_rmse"]) == pytest.approx((0.005, 0.004))


def test_the_shipped_run_is_the_recipes_best_on_mirrored_validation(tiny):
    study = smai.load_study("q1_best", "quick", data=tiny)
    study.runs = [replace(study.runs[0], seed=seed) for seed in (0, 1, 2)]
    study.run(engine="serial")
    values = study.results.set_index("seed")["val_mirror_accuracy"]
    assert values.nunique() > 1  # otherwise any choice would do
    assert study.best == RECIPE and study.best_run.seed == values.idxmax()


def test_each_step_of_the_ladder_changes_its_keys_and_the_last_is_the_recipe():
    configs = recipe.ladder_configs()
    names = list(configs)
    assert names == [recipe.START, *STEPS]
    assert configs[names[0]] == PUBLISHED_CONFIGS["config 1"] and configs[names[-1]] == BEST
    for below, above in pairwise(names):
        assert changed_keys(configs[below], configs[above]) == set(STEPS[above]), above


def test_steps_of_the_ladder_by_hand(record):
    """Their tests are those of `stats.pooled_steps`."""
    accuracy = {"a": [0.880, 0.884, 0.882], "b": [0.900, 0.903, 0.901], "c": [0.930, 0.931, 0.938]}
    rows = [
        {"name": name, "seed": seed, "test_accuracy": value, "test_rmse": 0.1}
        for name, values in accuracy.items()
        for seed, value in enumerate(values)
    ]
    record({"q1_ladder.csv": pd.DataFrame(rows)})
    study = smai.load_study("q1_ladder")
    table = recipe.rungs(study).set_index("rung")
    means = {name: np.mean(values) for name, values in accuracy.items()}
    assert table["test_accuracy"].to_dict() == pytest.approx(means)
    assert table.loc["c", "test_accuracy sd"] == pytest.approx(np.std(accuracy["c"], ddof=1))
    step = means["b"] - means["a"]
    assert table.loc["b", "step"] == pytest.approx(step) and np.isnan(table.loc["a", "step"])
    assert table.loc["b", "share"] == pytest.approx(step / (means["c"] - means["a"]))
    assert table.loc["b", "p_holm"] < 0.05
    assert recipe.rungs(study, "test_rmse")["step"].dropna().tolist() == [0, 0]
