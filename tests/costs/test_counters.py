import pandas as pd

from smai_lib.core import paths
from smai_lib.costs import formulas
from smai_lib.costs.formulas import HAND, PUBLISHED


def test_recorded_counters_split_at_the_transposed_convolution(reported):
    table = pd.read_csv(paths.RESULTS / "cost_counters.csv")
    true = formulas.evaluate(HAND, **reported).loc["total", "macs"]
    assert (table["ratio"] - table["count"] / table["units_per_mac"] / true).abs().max() < 1e-4
    wrong = table["deconv_factor"] > 2
    # what is left is what the counters add for biases, BatchNorm, ReLU and pooling: a few percent
    truth = wrong.map({True: formulas.value_at(PUBLISHED["macs"], **reported), False: true})
    assert ((table["count"] / table["units_per_mac"] / truth).between(1, 1.05)).all()
