import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from statsmodels.formula.api import ols

from smai_lib.core import stats

BASE = [0.80, 0.82, 0.81, 0.79, 0.83]
RAISED = [0.0050, 0.0052, 0.0049, 0.0051, 0.0048]  # a tenth of what seeds differ by
NOISE = [0.02, -0.02, 0.01, 0.0, -0.015]


def runs(**shifts):
    """Return runs of five seeds a name: BASE plus the shifts of that name."""
    return pd.DataFrame(
        {"name": name, "seed": seed, "accuracy": BASE[seed] + shift}
        for name, values in shifts.items()
        for seed, shift in enumerate(values)
    )


def compare_with_a(*names, **shifts):
    """Return the paired differences of names from "a", which has no shift."""
    pairs = [(name, "a") for name in names]
    return stats.paired_differences(runs(a=[0.0] * 5, **shifts), "accuracy", pairs, margin=0.003)


@pytest.mark.parametrize("prediction, variances", [(False, 1 / 5), (True, 1 + 1 / 5)])
def test_intervals_of_the_mean_and_of_one_more_run_by_the_t_table(prediction, variances):
    row = stats.mean_intervals(runs(a=[0.0] * 5), "accuracy", prediction=prediction).loc["a"]
    half = 2.776445 * 0.0158114 * variances**0.5  # t of 4 degrees of freedom, deviation of BASE
    assert row[["low", "high"]].tolist() == pytest.approx([0.81 - half, 0.81 + half], abs=1e-6)


def test_pairing_removes_what_the_seeds_share():
    row = compare_with_a("b", b=RAISED).iloc[0]
    by_scipy = ttest_1samp(RAISED, 0)
    low, high = by_scipy.confidence_interval()
    assert row["verdict"] == "higher"
    assert row["p"] == pytest.approx(by_scipy.pvalue, rel=1e-6)
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([0.005, low, high])


@pytest.mark.parametrize(
    ("shifts", "verdict"),
    [
        ([-shift for shift in RAISED], "lower"),
        ([0.0001, -0.0001, 0.0002, 0.0, -0.0002], "equal"),
        (NOISE, "not resolved"),  # neither different nor equal
        ([0.0] * 5, "equal"),
    ],
)
def test_verdicts(shifts, verdict):
    assert compare_with_a("b", b=shifts)["verdict"].item() == verdict


@pytest.mark.parametrize("sign", [1, -1])  # each of the two tests decides once
def test_equivalence_is_two_one_sided_tests(sign):
    shifts = [sign * shift for shift in (0.0011, -0.0009, 0.0022, 0.0004, -0.0012)]
    above = ttest_1samp(shifts, -0.003, alternative="greater").pvalue
    below = ttest_1samp(shifts, 0.003, alternative="less").pvalue
    p_equal = compare_with_a("b", b=shifts)["p_equal"].item()
    assert p_equal == pytest.approx(max(above, below), rel=1e-6)


def test_several_comparisons_are_corrected_by_holm():
    shifts = {"b": RAISED, "c": NOISE, "d": [0.004, 0.009, 0.001, 0.006, 0.003]}
    alone = {name: compare_with_a(name, **shifts)["p"].item() for name in shifts}
    assert alone["b"] < alone["d"] < alone["c"]
    together = compare_with_a(*shifts, **shifts)["p"].tolist()
    ranked = [3 * alone["b"], 2 * alone["d"], alone["c"]]
    expected = np.maximum.accumulate(ranked)[[0, 2, 1]]
    assert together == pytest.approx(np.minimum(expected, 1), rel=1e-6)


def test_ours_stand_beside_the_published_values():
    index = ["config 1", "config 2", "config 3"]
    published = pd.DataFrame({"accuracy": [0.8, 0.9, 0.7], "epochs": 20}, index)
    ours = pd.DataFrame({"accuracy": [0.85, 0.9, 0.7]}, index)
    table = stats.beside_published(published, ours.iloc[:2])
    assert table["run"].tolist() == index[:2]
    assert table["accuracy_difference"].tolist() == pytest.approx([0.05, 0.0])
    assert table["published_accuracy"].tolist() == [0.8, 0.9] and "epochs" in table
    agreement = stats.agreement(stats.beside_published(published, -ours), "accuracy")
    assert agreement["runs"] == 3 and agreement["rank_correlation"] == -1
    assert agreement["mean_absolute_difference"] == pytest.approx(-agreement["mean_difference"])


def test_only_shared_seeds_are_compared():
    row = compare_with_a("b", b=RAISED[:3]).iloc[0]
    assert row["seeds"] == 3 and row["difference"] == pytest.approx(sum(RAISED[:3]) / 3)
    assert row["p"] == pytest.approx(ttest_1samp(RAISED[:3], 0).pvalue, rel=1e-6)


def test_one_seed_is_not_enough_for_a_verdict():
    row = compare_with_a("b", b=[0.001]).iloc[0]
    assert row["difference"] == pytest.approx(0.001)
    assert row["verdict"] == "not enough seeds" and row[["low", "high", "p"]].isna().all()


def test_pairs_share_the_residual_variance_of_a_two_way_model():
    results = runs(c=[0.0] * 5, b=NOISE, a=RAISED)
    pairs = [("b", "a"), ("c", "b")]
    table = stats.paired_differences(results, "accuracy", pairs, margin=0.003)
    model = ols("accuracy ~ C(name, Diff) + C(seed)", results).fit()  # b - a, then c - b
    assert table["difference"].to_numpy() == pytest.approx(model.params[1:3].to_numpy())
    assert table["t"].to_numpy() == pytest.approx(model.tvalues[1:3].to_numpy())
    intervals = model.conf_int(0.05 / 2).iloc[1:3].to_numpy()  # both at once with 95 %
    assert table[["low", "high"]].to_numpy() == pytest.approx(intervals)


def test_mcnemar_counts_the_images_on_which_two_networks_differ():
    first, second = np.array([1, 1, 1, 1, 0, 0, 1]) > 0, np.array([0, 0, 0, 1, 1, 0, 1]) > 0
    only, p = stats.mcnemar(first, second)
    assert only == (3, 1) and p == pytest.approx(2 * 5 / 16)  # 1 of 4 or fewer, twice
