"""The ladder from config 1 as published to the recipe."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from smai_lib.core.runs import RunSpec
from smai_lib.core.study import shipped
from smai_lib.multitask import ladder
from smai_lib.multitask.ladder import LADDER, MEASURED, RUNGS, Ladder
from smai_lib.multitask.published import CONFIGS
from smai_lib.multitask.recipe import BEST


def test_each_rung_changes_what_it_names_and_the_last_is_the_recorded_recipe():
    names = list(LADDER)
    assert (
        names == [ladder.START, *RUNGS]
        and LADDER[names[0]] == CONFIGS["config 1"]
        and LADDER[names[-1]] == BEST
    )
    for below, above in pairwise(names):
        before, after = LADDER[below].to_dict(), LADDER[above].to_dict()
        assert {key for key in after if after[key] != before[key]} == set(RUNGS[above]), above
    recorded = shipped("q1_best.csv").query("name == 'recipe'")
    for row in recorded.itertuples():
        assert (
            RunSpec("", "", LADDER[names[-1]], row.seed, row.data_fingerprint, None).run_id
            == row.run_id
        )


def given(columns):
    """A ladder that found these accuracies: name -> one a seed; every other figure is 0.1."""
    rows = [
        dict.fromkeys(MEASURED, 0.1) | {"name": name, "seed": seed, "test_accuracy": value}
        for name, values in columns.items()
        for seed, value in enumerate(values)
    ]

    class Given(Ladder):
        def results(self):
            return (
                pd.DataFrame(rows).sample(frac=1, random_state=0).sort_values("name", kind="stable")
            )

    return Given("q1_ladder", "recorded", [], lambda: None)


def test_steps_by_hand():
    first, second, last = [0.880, 0.884, 0.882], [0.900, 0.903, 0.901], [0.930, 0.931, 0.938]
    study = given({"a": first, "b": second, "c": last})
    table = study.rungs().set_index("rung")
    steps = np.subtract(second, first)
    half = stats.t.ppf(0.975, 2) * steps.std(ddof=1) / np.sqrt(3)  # by seed, not by the two spreads
    assert table.loc["b", ["step", "low", "high"]].tolist() == pytest.approx(
        [steps.mean(), steps.mean() - half, steps.mean() + half]
    )
    assert table["share"].sum() == pytest.approx(1) and table.loc["b", "share"] == pytest.approx(
        steps.mean() / (np.mean(last) - 0.882)
    )
    assert table.loc["b", "verdict"] == "higher" and np.isnan(table.loc["a", "step"])
    assert table.loc["c", "test_accuracy sd"] == pytest.approx(np.std(last, ddof=1))
    # 0.8877 is the published figure
    assert study.explained() == pytest.approx((0.933 - 0.882) / (0.933 - 0.8877))
    assert study.rungs("val_rmse")["step"].dropna().tolist() == [0, 0]


def test_three_seeds_a_rung_and_two_under_quick(tiny):
    study = ladder.recipe_ladder("full", seed=3, data=replace(tiny, source="these tests"))
    assert sorted(spec.seed for spec in study.specs) == [3] * 12 + [4] * 12 + [5] * 12
    assert len({spec.run_id for spec in study.specs}) == 36 and study.weights() == {}
    assert len(ladder.recipe_ladder("quick", data=tiny).specs) == 24
