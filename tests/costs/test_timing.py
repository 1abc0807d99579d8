import pandas as pd
import pytest
import torch

from smai_lib.costs import formulas, timing
from smai_lib.costs.formulas import HAND


def test_recorded_timing_holds_the_counts_of_today(reported):
    for row in timing.timing("recorded").itertuples():
        total = formulas.evaluate(HAND, **reported | {"NF": row.NF, "k": row.k}).loc["total"]
        assert (row.macs, row.weights, row.prepool_outputs) == (
            total["macs"], total["weights"], total["prepool_outputs"])


def test_sweep_measures_every_pair_and_leaves_the_threads(two_threads):
    table = timing.measure_times((2, 3), (1, 5), images=2, repeats=1)
    assert list(zip(table["NF"], table["k"], strict=True)) == [(2, 1), (2, 5), (3, 1), (3, 5)]
    assert (table["seconds"] > 0).all() and torch.get_num_threads() == two_threads
    with pytest.raises(ValueError, match="profile: found 'fast', expected one of recorded, quick, full"):
        timing.timing("fast")


def test_fit_finds_the_rates_that_made_the_times():
    table = pd.DataFrame({"a": [1e6, 2e6, 4e6, 3e6], "b": [3e3, 1e3, 2e3, 9e3]})
    table["seconds"] = 1e-3 + 2e-9 * table["a"] + 5e-7 * table["b"]
    assert timing.fit(table, "a", "b") == pytest.approx(table["seconds"].to_numpy())
    assert timing.explained(table, "a", "b") == pytest.approx(1)
    assert timing.explained(table, "a") < 0.9
