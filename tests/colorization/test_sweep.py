from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from smai_lib.colorization import figures, sweep
from smai_lib.colorization.sweep import CONFIGS, PUBLISHED, Sweep


def given(rows):
    """A sweep whose runs found `rows`: name -> (loss, accuracy, best loss)."""
    frame = pd.DataFrame(
        [(name, *values) for name, values in rows.items()],
        columns=["name", "val_nll", "val_accuracy", "best_val_loss"],
    )

    class Given(Sweep):
        def results(self):
            return frame

    return Given("q2_sweep", "recorded", [], lambda: None)


def test_the_configurations_are_the_published_ones():
    assert list(CONFIGS) == [f"run {number}" for number in range(1, 22)]
    best = CONFIGS["run 10"]
    assert (
        best.learning_rate,
        best.batch_size,
        best.num_filters,
        best.kernel_size,
        best.optimizer,
    ) == (1e-3, 32, 32, 5, "Adam")
    for config in CONFIGS.values():
        assert (config.model, config.epochs, config.schedule, config.keep) == (
            "cnn",
            30,
            "constant",
            "best",
        )
        assert config.momentum == (0.9 if config.optimizer == "SGD" else 0)
    assert sum(config.optimizer == "SGD" for config in CONFIGS.values()) == 5
    # the assignment asks for at least twenty over these values
    assert {config.learning_rate for config in CONFIGS.values()} == {1e-4, 3e-4, 1e-3, 3e-3}
    assert PUBLISHED["nll"].idxmin() == PUBLISHED["accuracy"].idxmax() == "run 10"
    assert PUBLISHED["accuracy"].max() == 0.5011


def test_agreement_by_hand():
    study = given(
        {
            "run 10": (1.3077 + 0.01, 0.50, 1.29),
            "run 17": (2.7519 - 1.0, 0.20, 1.7),
            "run 1": (1.5157 - 0.03, 0.45, 1.4),
        }
    )
    table = study.comparison().set_index("run")
    assert list(table.index) == [
        "run 1",
        "run 10",
        "run 17",
    ]  # those that have finished, in the published order
    assert table.loc["run 10", "nll_difference"] == pytest.approx(0.01)
    assert table.loc["run 17", "accuracy_difference"] == pytest.approx(0.20 - 0.1462)
    agreement = study.agreement(without=("run 17",))
    assert agreement["runs"] == 2 and agreement["rank_correlation"] == pytest.approx(1)
    assert agreement["mean_difference"] == pytest.approx(-0.01) and agreement[
        "mean_absolute_difference"
    ] == pytest.approx(0.02)
    assert study.agreement()["rank_correlation"] == pytest.approx(1)
    assert study.best() == "run 10"


def test_the_figure_shows_every_run_against_its_published_value():
    table = given({"run 10": (1.31, 0.50, 1.29), "run 17": (1.75, 0.20, 1.7)}).comparison()
    left, right = figures.against_published(table)[0]
    points = np.concatenate([line.get_xydata() for line in left.lines[1:]])
    assert sorted(map(tuple, points.round(4).tolist())) == [(1.3077, 1.31), (2.7519, 1.75)]
    assert [text.get_text() for text in right.texts] == ["10", "17"]
    assert right.lines[0].get_xydata()[0].tolist() == [0.1462, 0.1462]


def test_quick_trains_the_sweep(made_up_colors, monkeypatch):
    few = {name: replace(CONFIGS[name], num_filters=2) for name in ("run 10", "run 17")}
    monkeypatch.setattr(sweep, "CONFIGS", few)
    study = sweep.color_sweep("quick", data=made_up_colors((40, 10, 10)))
    study.run(engine="serial")
    assert study.comparison()["run"].tolist() == ["run 10", "run 17"]
    results = study.results()
    assert (results["tested_epoch"] == results["best_epoch"]).all() and results[
        "momentum"
    ].tolist() == [0.0, 0.9]
