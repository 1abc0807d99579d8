"""What `report/measure_costs.py` records."""

import runpy

import torch

from smai_lib.core import paths
from smai_lib.core.study import shipped
from smai_lib.costs import formulas
from smai_lib.costs.formulas import HAND


def test_recorded_timing_holds_the_counts_of_today(reported):
    for row in shipped("cost_timing.csv").itertuples():
        total = formulas.evaluate(HAND, **reported | {"NF": row.NF, "k": row.k}).loc["total"]
        assert (row.macs, row.weights, row.prepool_outputs) == (
            total["macs"],
            total["weights"],
            total["prepool_outputs"],
        )


def test_sweep_measures_every_pair():
    threads = torch.get_num_threads()
    script = runpy.run_path(paths.ROOT / "report" / "measure_costs.py", run_name="script")
    table = script["measure_times"]((2, 3), (1, 5), images=2, repeats=1)
    torch.set_num_threads(threads)
    assert list(zip(table["NF"], table["k"], strict=True)) == [(2, 1), (2, 5), (3, 1), (3, 5)]
    assert (table["seconds"] > 0).all() and (table["threads"] == 1).all()
