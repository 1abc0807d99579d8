"""What `report/measure_costs.py` records."""

import runpy

import torch

from smai_lib.core import paths
from smai_lib.core.study import read_table
from smai_lib.costs import formulas


def test_recorded_counters_are_right_or_published():
    table = read_table("cost_counters.csv")
    right = formulas.value_at(formulas.formula_table().loc["total", "macs"])
    published = formulas.value_at(formulas.PUBLISHED["macs"])
    expected = (table["deconv_factor"] > 2).map({True: published, False: right})
    macs = table["count"] / table["units_per_mac"]
    # what counters add for biases, BatchNorm, ReLU and pooling is a few percent
    assert (macs / expected).between(1, 1.05).all()


def test_every_pair_of_sizes_is_timed_beside_its_counts():
    threads = torch.get_num_threads()
    script = runpy.run_path(paths.ROOT / "report" / "measure_costs.py", run_name="script")
    table = script["measure_times"]((2, 3), (1, 5), images=2, repeats=1)
    torch.set_num_threads(threads)
    assert table[["NF", "k"]].to_numpy().tolist() == [[2, 1], [2, 5], [3, 1], [3, 5]]
    assert (table["seconds"] > 0).all()
    total = formulas.evaluate(NF=3, k=5).loc["total"]
    columns = ["macs", "weights", "prepool_outputs"]
    assert table.loc[3, columns].tolist() == total[columns].tolist()
