"""Tests of what the ratio of the loss weights does to accuracy and ink error.

The family of tests is fixed before their results are seen: three claims of the reference report,
each for raw and for z-scored ink. Every claim has a direction, so tests are one-sided. Holm's
method corrects the p-values of a family.
"""

import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ..core.study import Study

RATIOS = (0.1, 1.0, 10.0)  # ours for the reference report's 0.25, 1 and 4
SCALINGS = ("raw", "z_score")
# claim -> metric, first ratio, second ratio, and whether the first is claimed to be greater or less
PAIRS = {
    "more weight on the class: higher accuracy": ("test_accuracy", 0.1, 1.0, "greater"),
    "more weight on ink: lower accuracy": ("test_accuracy", 10.0, 1.0, "less"),
    "more weight on ink: lower RMSE": ("test_rmse", 10.0, 1.0, "less"),
}


def pair_tests(study: Study) -> pd.DataFrame:
    """Return one-sided paired t-tests of the three claims, a row a claim and scaling of ink.

    Returns:
        claim, ink, `difference` (mean over seeds, first ratio minus second), `seeds` with the
        claimed sign, `p`, and `p_holm`, corrected over all six rows.
    """
    rows = []
    for claim, (metric, first, second, direction) in PAIRS.items():
        for scaling in SCALINGS:
            values = _by_ratio(study, scaling, metric)
            difference = values[first] - values[second]
            claimed = difference > 0 if direction == "greater" else difference < 0
            test = stats.ttest_rel(values[first], values[second], alternative=direction)
            rows.append(
                {
                    "claim": claim,
                    "ink": scaling,
                    "difference": difference.mean(),
                    "seeds": f"{claimed.sum()} of {len(claimed)}",
                    "p": test.pvalue,
                }
            )
    return _with_holm(rows)


def trend_tests(study: Study) -> pd.DataFrame:
    """Return Page's tests of a falling trend over the ratios 0.1, 1 and 10 (Page 1963).

    Returns:
        metric, ink, `p`, and `p_holm`, corrected over all four rows.
    """
    rows = []
    for metric in ("test_accuracy", "test_rmse"):
        for scaling in SCALINGS:
            values = _by_ratio(study, scaling, metric)[list(RATIOS)]
            test = stats.page_trend_test(-values.to_numpy())
            rows.append({"falls with the ratio": metric, "ink": scaling, "p": test.pvalue})
    return _with_holm(rows)


def _by_ratio(study: Study, scaling: str, metric: str) -> pd.DataFrame:
    """Return a metric, a row a seed and a column a ratio."""
    fixed = study.results.query("weighting == 'fixed' and ink_scaling == @scaling")
    return fixed.pivot(index="seed", columns="ratio", values=metric)


def _with_holm(rows: list[dict]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    return table.assign(p_holm=multipletests(table["p"], method="holm")[1])
