import numpy as np
import pandas as pd
import pytest
from pytest import approx
from scipy.stats import ttest_1samp
from statsmodels.formula.api import ols
from statsmodels.stats.multitest import multipletests

from smai_lib.core import stats
from smai_lib.core.errors import ConfigError

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


def compare(shifts):
    """Return the paired difference of runs with these shifts from runs without."""
    results = runs(a=[0.0] * 5, b=shifts)
    table = stats.paired_differences(results, "accuracy", [("b", "a")], margin=0.003)
    return table.iloc[0]


@pytest.mark.parametrize("prediction, variances", [(False, 1 / 5), (True, 1 + 1 / 5)])
def test_intervals_of_the_mean_and_of_one_more_run_by_the_t_table(prediction, variances):
    table = stats.mean_intervals(runs(a=[0.0] * 5), "accuracy", prediction=prediction)
    t, deviation = 2.776445, 0.0158114  # of 4 degrees of freedom; of BASE
    half = t * deviation * variances**0.5
    assert table.loc["a", ["low", "high"]].tolist() == approx([0.81 - half, 0.81 + half], abs=1e-6)


def test_pairing_removes_what_the_seeds_share():
    row = compare(RAISED)
    by_scipy = ttest_1samp(RAISED, 0)
    low, high = by_scipy.confidence_interval()
    assert row["verdict"] == "higher"
    assert row["p"] == approx(by_scipy.pvalue, rel=1e-6)
    assert row[["difference", "low", "high"]].tolist() == approx([0.005, low, high])


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
    assert compare(shifts)["verdict"] == verdict


@pytest.mark.parametrize("sign", [1, -1])  # each of the two tests decides once
def test_equivalence_is_two_one_sided_tests(sign):
    shifts = [sign * shift for shift in (0.0011, -0.0009, 0.0022, 0.0004, -0.0012)]
    above = ttest_1samp(shifts, -0.003, alternative="greater").pvalue
    below = ttest_1samp(shifts, 0.003, alternative="less").pvalue
    assert compare(shifts)["p_equal"] == approx(max(above, below), rel=1e-6)


def test_only_shared_seeds_are_compared():
    row = compare(RAISED[:3])
    assert row["seeds"] == 3 and row["difference"] == approx(sum(RAISED[:3]) / 3)


def test_one_seed_is_not_enough_for_a_verdict():
    row = compare([0.001])
    assert row["difference"] == approx(0.001)
    assert row["verdict"] == "not enough seeds" and row[["low", "high", "p"]].isna().all()


def test_pairs_share_the_residual_variance_of_a_two_way_model_and_are_corrected_by_holm():
    results = runs(a=[0.0] * 5, b=[0.03] * 5, c=NOISE, d=[0.02] * 5)
    pairs = [("b", "a"), ("c", "b"), ("d", "c")]
    table = stats.paired_differences(results, "accuracy", pairs, margin=0.003)
    model = ols("accuracy ~ C(name, Diff) + C(seed)", results).fit()
    names = model.params.index[1:4]  # of the three pairs
    assert table["difference"].tolist() == approx(model.params[names].tolist())
    assert table["t"].tolist() == approx(model.tvalues[names].tolist())
    corrected = multipletests(model.pvalues[names], method="holm")[1]
    assert table["p"].tolist() == approx(corrected.tolist(), rel=1e-6)
    intervals = model.conf_int(0.05 / 3).loc[names]  # all at once with 95 %
    assert table[["low", "high"]].to_numpy() == approx(intervals.to_numpy())


def test_a_configuration_without_runs_has_no_verdict():
    with pytest.raises(ConfigError, match="configuration: found 'c', expected one of a, b"):
        stats.paired_differences(runs(a=NOISE, b=NOISE), "accuracy", [("a", "c")], margin=0.003)


def test_mcnemar_counts_the_images_on_which_two_networks_differ():
    first = np.array([1, 1, 1, 1, 0, 0, 1], dtype=bool)
    second = np.array([0, 0, 0, 1, 1, 0, 1], dtype=bool)
    only, p = stats.mcnemar(first, second)
    assert only == (3, 1) and p == approx(2 * 5 / 16)  # 1 of 4 or fewer, twice
    assert stats.mcnemar(first, first) == ((0, 0), 1)


def test_ours_agree_with_the_published_values_in_ranks_and_in_values():
    published = pd.DataFrame({"accuracy": [0.8, 0.9, 0.7, 0.5], "epochs": 20})
    ours = pd.DataFrame({"accuracy": [0.7, 0.6, 0.9]})
    table = stats.beside_published(published, ours)
    assert table["run"].tolist() == [0, 1, 2]  # those that both have
    assert table["published_accuracy"].tolist() == [0.8, 0.9, 0.7] and "epochs" in table
    assert table["accuracy_difference"].tolist() == approx([-0.1, -0.3, 0.2])
    assert stats.agreement(table, "accuracy") == approx(
        {
            "runs": 3,
            "rank_correlation": -1,
            "mean_difference": -0.2 / 3,
            "mean_absolute_difference": 0.6 / 3,
        }
    )
