import pandas as pd
import pytest
from scipy import stats

from smai_lib.core import significance

BASE = [0.80, 0.82, 0.81, 0.79, 0.83]


def runs(**shifts):
    """Five seeds a name, each BASE plus the name's shifts."""
    return pd.DataFrame(
        {"name": name, "seed": seed, "accuracy": BASE[seed] + shift}
        for name, values in shifts.items()
        for seed, shift in enumerate(values)
    )


def test_mean_interval_by_the_t_table():
    row = significance.mean_intervals(runs(a=[0] * 5), "accuracy").loc["a"]
    half = 2.776445 * row["sd"] / 5**0.5  # t of 4 degrees of freedom
    assert (row["low"], row["high"]) == pytest.approx((0.81 - half, 0.81 + half), abs=1e-6)
    assert row["sd"] == pytest.approx(0.0158114, abs=1e-6)


def test_pairing_removes_what_the_seeds_share():
    """Shifts of a tenth of the seeds' spread are seen, since every seed shifts alike."""
    results = runs(a=[0.0] * 5, b=[0.0050, 0.0052, 0.0049, 0.0051, 0.0048])
    row = significance.paired_differences(results, "accuracy", [("b", "a")], margin=0.003).iloc[0]
    assert row["verdict"] == "higher" and row["difference"] == pytest.approx(0.005)
    by_scipy = stats.ttest_1samp([0.0050, 0.0052, 0.0049, 0.0051, 0.0048], 0)
    assert row["p"] == pytest.approx(by_scipy.pvalue, rel=1e-6)
    assert (row["low"], row["high"]) == pytest.approx(
        tuple(by_scipy.confidence_interval()), rel=1e-6
    )


@pytest.mark.parametrize(
    "shifts, verdict",
    [
        ([-0.0050, -0.0052, -0.0049, -0.0051, -0.0048], "lower"),
        ([0.0001, -0.0001, 0.0002, 0.0, -0.0002], "equal"),
        ([0.02, -0.02, 0.01, 0.0, -0.015], "not resolved"),  # too noisy to say either
        ([0.0] * 5, "equal"),
    ],
)
def test_three_verdicts_and_no_fourth(shifts, verdict):
    results = runs(a=[0.0] * 5, b=shifts)
    assert (
        significance.paired_differences(results, "accuracy", [("b", "a")], margin=0.003)[
            "verdict"
        ].item()
        == verdict
    )


def test_equivalence_is_two_one_sided_tests():
    difference = [0.0011, -0.0009, 0.0022, 0.0004, -0.0012]
    row = significance.paired_differences(
        runs(a=[0.0] * 5, b=difference), "accuracy", [("b", "a")], margin=0.003
    ).iloc[0]
    one_sided = (
        stats.ttest_1samp(difference, -0.003, alternative="greater").pvalue,
        stats.ttest_1samp(difference, 0.003, alternative="less").pvalue,
    )
    assert row["p_equal"] == pytest.approx(max(one_sided), rel=1e-6)


def test_many_comparisons_are_corrected_by_holm():
    """Of three, the smallest p is multiplied by three, the next by two, the largest by one."""
    results = runs(
        a=[0.0] * 5,
        b=[0.0050, 0.0052, 0.0049, 0.0051, 0.0048],
        c=[0.02, -0.02, 0.01, 0.0, -0.015],
        d=[0.004, 0.009, 0.001, 0.006, 0.003],
    )
    alone = {
        name: significance.paired_differences(results, "accuracy", [(name, "a")], margin=0.003)[
            "p"
        ].item()
        for name in "bcd"
    }
    together = significance.paired_differences(
        results, "accuracy", [(name, "a") for name in "bcd"], margin=0.003
    )["p"]
    assert alone["b"] < alone["d"] < alone["c"]
    assert together.tolist() == pytest.approx(
        [3 * alone["b"], alone["c"], 2 * alone["d"]], rel=1e-6
    )


@pytest.mark.parametrize(
    "found, verdict",
    [
        ("higher", "supported"),
        ("lower", "not supported"),
        ("equal", "not supported"),
        ("not resolved", "not resolvable"),
    ],
)
def test_a_claim_is_supported_only_by_its_own_sign(found, verdict):
    assert significance.claim(found, "higher") == verdict


def test_missing_runs_are_named():
    results = runs(a=[0.0] * 5, b=[0.0] * 3)
    with pytest.raises(ValueError, match="no runs called 'z'; there are a, b"):
        significance.paired_differences(results, "accuracy", [("z", "a")], margin=0.003)
    with pytest.raises(
        ValueError, match=r"found seeds \[0, 1, 2\] in common, expected \[0, 1, 2, 3, 4\]"
    ):
        significance.paired_differences(results, "accuracy", [("b", "a")], margin=0.003)
    with pytest.raises(ValueError, match="at least 2 seeds"):
        significance.mean_intervals(results.head(1), "accuracy")
