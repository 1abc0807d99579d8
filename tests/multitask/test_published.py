"""The reference report's runs as they were: the configurations, and what is said of ours beside theirs."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from smai_lib.core import plotting
from smai_lib.core.layers import parameter_count
from smai_lib.multitask import published
from smai_lib.multitask.published import CONFIGS, PUBLISHED, Published
from smai_lib.multitask.studies import TEN_CONFIGS, macro_f1

COLUMNS = ["val_accuracy", "val_rmse", "test_accuracy", "test_mistaken_rmse"]


def given(rows, confusion=None):
    """A study whose runs found `rows`: (name, seed, val accuracy, val RMSE, test accuracy, mistaken RMSE)."""
    frame = pd.DataFrame(rows, columns=["name", "seed", *COLUMNS]).assign(
        num_layers=3, test_rmse=0.02, test_mae=0.01
    )

    class Given(Published):
        def results(self):
            return frame

        def confusion(self, name):
            return confusion[name]

    return Given("q1_published", "recorded", [], lambda: None)


def test_the_networks_and_their_training_are_the_published_ones():
    assert list(CONFIGS) == [*TEN_CONFIGS, "config 7, lambda1 = 2"]
    assert parameter_count(CONFIGS["config 1"].network()) == 106_187
    for name, config in CONFIGS.items():
        assert (config.normalize, config.shift, config.rotation, config.ink_target) == (
            True,
            2,
            10.0,
            "original",
        ), name
        assert (config.pooling, config.hidden, config.ink_hidden, config.mirror) == (
            "average",
            64,
            32,
            False,
        ), name
        assert config.block_dropout == config.ink_dropout == config.dropout_rate > 0, name
        assert (config.schedule, config.epochs, config.keep, config.weight_decay) == (
            "constant",
            20,
            "last",
            0.01,
        ), name
        ten = TEN_CONFIGS["config 7" if name == published.AS_RUN else name]
        assert (config.optimizer, config.learning_rate, config.lambda2) == (
            ten.optimizer,
            ten.learning_rate,
            ten.lambda2,
        )
        assert config.lambda1 == (2.0 if name == published.AS_RUN else ten.lambda1)
    assert (
        PUBLISHED["val_accuracy"].idxmax() == "config 3"
        and PUBLISHED.loc["config 1", "val_accuracy"] == 0.8852
    )
    assert PUBLISHED["test_mistaken_rmse"].between(0.27, 0.33).all()


def test_the_runs_are_eleven_and_five_seeds_of_two(tiny):
    study = published.published_configs("full", seed=3, data=replace(tiny, source="these tests"))
    seeds = (
        pd.DataFrame([(spec.name, spec.seed) for spec in study.specs])
        .groupby(0)[1]
        .apply(list)
        .to_dict()
    )
    assert {name for name, values in seeds.items() if values == [3, 4, 5, 6, 7]} == {
        "config 1",
        "config 3",
    }
    assert all(
        values == [3] for name, values in seeds.items() if name not in ("config 1", "config 3")
    )
    assert len({spec.run_id for spec in study.specs}) == len(study.specs) == 19


def test_comparison_and_agreement_by_hand():
    rows = [
        (name, 0, *(PUBLISHED.loc[name] + [0.01, 0, -0.02, 0]))
        for name in ("config 1", "config 4", published.AS_RUN)
    ]
    rows += [
        ("config 7", 0, 0.1, 1, 0.1, 1),
        ("config 1", 1, 0.2, 1, 0.2, 1),
    ]  # neither is the run that was published
    study = given(rows)
    table = study.comparison().set_index("run")
    assert table["val_accuracy_difference"].round(6).to_dict() == {
        "config 1": 0.01,
        "config 4": 0.01,
        "config 7": round(0.1 - 0.816, 6),
        published.AS_RUN: 0.01,
    }
    assert (
        table.loc["config 4", "published_val_rmse"] == 0.033
        and table.loc["config 4", "test_rmse"] == 0.02
    )
    agreement = study.agreement()
    assert agreement["runs"] == 3 and agreement["rank_correlation"] == pytest.approx(1)
    assert agreement["mean_absolute_difference"] == pytest.approx(0.01)
    assert study.agreement("test_accuracy")["mean_difference"] == pytest.approx(-0.02)
    left = plotting.against_published(
        study.comparison(), {"val_accuracy": "accuracy"}, by="num_layers"
    )[0, 0]
    assert {text.get_text() for text in left.texts} == {"1", "4", "7", "7, lambda1 = 2"}
    assert left.texts[0].xy == pytest.approx((0.8852, 0.8952))


def test_a_published_run_is_placed_in_what_another_seed_would_give():
    accuracies = np.array([0.880, 0.882, 0.884, 0.881, 0.883])
    half = stats.t.ppf(0.975, 4) * accuracies.std(ddof=1) * np.sqrt(1 + 1 / 5)
    rows = [
        (
            "config 1",
            seed,
            accuracy,
            0.03,
            0.8852 - 1.01 * half + accuracy - accuracies.mean() - 0.8852 + 0.8877,
            0.3,
        )
        for seed, accuracy in enumerate(accuracies)
    ]
    placed = given([*rows, ("config 2", 0, 0.877, 0.03, 0.87, 0.3)]).placement().set_index("metric")
    assert set(placed["run"]) == {"config 1"} and list(placed.index) == COLUMNS
    assert placed.loc["val_accuracy", ["low", "high"]].tolist() == pytest.approx(
        [0.882 - half, 0.882 + half]
    )
    assert placed["outside"].to_dict() == {
        "val_accuracy": False,
        "val_rmse": True,
        "test_accuracy": True,
        "test_mistaken_rmse": True,
    }


def test_the_assignments_two_answers_are_of_the_first_seed():
    rows = [
        ("config 1", 0, 0.88, 0.03, 0.87, 0.3),
        ("config 3", 0, 0.89, 0.04, 0.86, 0.3),
        ("config 7", 0, 0.80, 0.01, 0.79, 0.3),
        ("config 1", 1, 0.99, 0.001, 0.99, 0.3),
    ]
    table = (
        given(rows, {"config 3": np.eye(10) * 5, "config 7": np.ones((10, 10))})
        .selection()
        .set_index("chosen_by")
    )
    assert table["name"].to_dict() == {
        "highest validation accuracy": "config 3",
        "lowest validation RMSE": "config 7",
    }
    assert table["test_accuracy"].tolist() == [0.86, 0.79] and table[
        "test_macro_f1"
    ].tolist() == pytest.approx([1, 0.1])


def test_macro_f1_by_hand():
    # precision 3/4 and 5/6, recall 3/4 and 5/6 | then a class that is never predicted
    assert macro_f1([[3, 1], [1, 5]]) == pytest.approx((0.75 + 5 / 6) / 2)
    assert macro_f1([[4, 0], [2, 0]]) == pytest.approx((2 * 4 / (2 * 4 + 2) + 0) / 2)


@pytest.mark.filterwarnings("ignore:config key 'ink_target'")
def test_quick_trains_and_ships_the_run_in_the_table(tiny):
    study = published.published_configs("quick", data=tiny)
    assert [spec.name for spec in study.specs] == list(CONFIGS)
    few = [
        replace(spec, config=replace(spec.config, base_filters=4), seed=seed)
        for seed in (0, 1)
        for spec in study.specs
        if spec.name in published.REPEATED
    ]
    study.specs[:] = few
    study.run(engine="serial")
    assert study.comparison()["run"].tolist() == ["config 1", "config 3"]
    assert (
        study.best_spec().seed == 0 and study.weights()["_best"] == study.best_spec().weights_file
    )
    tables = study.tables()
    assert (
        set(tables) == {"", "_history", "_confusion"}
        and len(tables[""]) == 4
        and len(tables["_confusion"]) == 20
    )
    chosen = study.selection().iloc[0]
    right = np.trace(study.confusion(chosen["name"])) / len(tiny.test.labels)
    assert right == pytest.approx(chosen["test_accuracy"])
