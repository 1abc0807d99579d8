"""The best recipe: what is trained, what each ingredient is said to have given, what is shipped."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from smai_lib.core.layers import parameter_count
from smai_lib.multitask import figures
from smai_lib.multitask import recipe as best_recipe
from smai_lib.multitask.recipe import BEST, PLAIN, WITHOUT, BestRecipe
from smai_lib.multitask.studies import TEN_CONFIGS


class Recorded(BestRecipe):
    """Results given, none trained."""

    def results(self):
        return self.data


def results(recipe, others):
    rows = [
        {
            "name": "recipe",
            "seed": seed,
            "test_accuracy": accuracy,
            "test_rmse": 0.005,
            "val_mirror_accuracy": accuracy + 0.003,
            "val_accuracy": accuracy + 0.001,
            "test_mirror_accuracy": accuracy + 0.002,
            "test_mirror_rmse": 0.004,
        }
        for seed, accuracy in enumerate(recipe)
    ]
    rows += [
        rows[0] | {"name": name, "test_accuracy": accuracy, "test_rmse": rmse}
        for name, (accuracy, rmse) in others.items()
    ]
    return Recorded("q1_best", "recorded", [], lambda: pd.DataFrame(rows))


def test_the_backbone_is_the_reference_reports(tiny):
    plain = TEN_CONFIGS["config 1"]
    for key in ("num_layers", "base_filters", "dropout_rate", "epochs", "batch_size"):
        assert getattr(BEST, key) == getattr(plain, key), key
    _, model = BEST.build(tiny, 0)
    assert parameter_count(model) < 500_000 and BEST.epochs <= 20


def test_each_ablation_lacks_one_ingredient(tiny):
    study = best_recipe.best_recipe("full", seed=3, data=replace(tiny, source="these tests"))
    by_name = {spec.name: spec.config for spec in study.specs}
    plain = TEN_CONFIGS["config 1"].to_dict()
    assert by_name["recipe"] == BEST
    assert {key: PLAIN.to_dict()[key] for key in plain} == plain
    added = {key for key, value in BEST.to_dict().items() if value != PLAIN.to_dict()[key]}
    ablated = [key for keys in WITHOUT.values() for key in keys]
    assert sorted([*ablated, "optimizer", "weight_decay"]) == sorted(added)  # each ingredient once
    for name, keys in WITHOUT.items():
        config = by_name[f"without {name}"]
        changed = {key for key, value in config.to_dict().items() if value != BEST.to_dict()[key]}
        assert changed == set(keys), name
    assert [spec.seed for spec in study.specs if spec.name == "recipe"] == [3, 4, 5, 6, 7]
    assert all(spec.seed == 3 for spec in study.specs if spec.name != "recipe")
    assert len({spec.run_id for spec in study.specs}) == len(study.specs) == 5 + len(WITHOUT)


def test_an_ablation_counts_only_beyond_the_spread_of_seeds():
    accuracies = [0.940, 0.942, 0.944, 0.941, 0.943]
    reach = stats.t.ppf(0.975, 4) * np.std(accuracies, ddof=1) * np.sqrt(1 + 1 / 5)
    table = (
        results(
            accuracies,
            {
                "inside": (0.942 - 0.99 * reach, 0.005),
                "below": (0.942 - 1.01 * reach, 0.006),
                "above": (0.942 + 1.01 * reach, 0.005),
            },
        )
        .ablation()
        .set_index("run")
    )
    assert table["beyond_seeds"].to_dict() == {
        "inside": "neither",
        "below": "accuracy, rmse",
        "above": "accuracy",
    }
    assert table.loc["below", "accuracy_loss"] == pytest.approx(1.01 * reach)
    assert table.loc["below", "rmse_loss"] == pytest.approx(0.001)
    assert table.loc["above", "accuracy_loss"] < 0
    assert results([0.94], {"any": (0.5, 0.1)}).ablation()["beyond_seeds"].tolist() == [
        "not enough seeds"
    ]


def test_the_summary_is_over_the_recipes_seeds_alone():
    summary = results([0.94, 0.95], {"other": (0.1, 1.0)}).summary().set_index("answer")
    plain, mirrored = summary.loc["one image"], summary.loc["image and mirror image averaged"]
    assert plain["seeds"] == 2 and plain["test_accuracy"] == pytest.approx(0.945)
    assert mirrored["test_accuracy"] == pytest.approx(0.947) and mirrored[
        "val_accuracy"
    ] == pytest.approx(0.948)
    assert mirrored["test_accuracy sd"] == pytest.approx(np.std([0.94, 0.95], ddof=1))
    assert (plain["test_rmse"], mirrored["test_rmse"]) == (
        pytest.approx(0.005),
        pytest.approx(0.004),
    )


def test_quick_trains_and_ships_the_run_best_on_validation(tiny):
    study = best_recipe.best_recipe("quick", data=tiny)
    recipe = study.specs[0]
    study.specs[:] = [replace(recipe, seed=seed) for seed in (0, 1, 2)]
    study.run(engine="serial")
    values = study.results().set_index("seed")["val_mirror_accuracy"]
    assert values.nunique() > 1  # else any choice would do
    assert study.weights()["_best"] == study.specs[values.idxmax()].weights_file
    assert study.best() == "recipe" and study.summary()["seeds"].tolist() == [3, 3]


def test_the_figure_shows_losses_beside_what_seeds_do():
    study = results([0.940, 0.942, 0.944], {"without x": (0.930, 0.006)})
    grid = figures.ablation(study.ablation(), study.reach())
    left = grid.flat[0]
    assert [bar.get_width() for bar in left.containers[0]] == pytest.approx([0.012])
    band = left.patches[0]
    assert (band.get_x(), band.get_width()) == pytest.approx(
        (-study.reach()["accuracy"], 2 * study.reach()["accuracy"])
    )


def test_beyond_is_a_small_residual_network_in_no_more_epochs(tiny):
    study = best_recipe.residual_network("full", seed=3, data=replace(tiny, source="these tests"))
    assert [(spec.name, spec.seed) for spec in study.specs] == [
        ("recipe", seed) for seed in (3, 4, 5, 6, 7)
    ]
    (config,) = {spec.config for spec in study.specs}
    assert config.backbone == "residual" and config.epochs <= 20
    assert parameter_count(config.network()) < 500_000
    assert len({spec.run_id for spec in study.specs}) == len(study.specs)
