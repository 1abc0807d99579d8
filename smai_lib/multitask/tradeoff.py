"""Tests of what the ratio of the loss weights does to accuracy and ink error.

The family of tests is that of the reference report's claims: three, each for raw and for z-scored
ink. Every claim has a direction, so tests are one-sided. Holm's method corrects the p-values of a
family.
"""

from itertools import product

import pandas as pd
from scipy import stats

from ..core.stats import holm
from ..core.study import Study

RATIOS = [0.1, 1.0, 10.0]  # ours for the reference report's 0.25, 1 and 4
SCALINGS = ("raw", "z_score")
# claim -> metric, ratio, and the sign of the claimed difference from a ratio of 1
CLAIMS = {
    "more weight on the class: higher accuracy": ("test_accuracy", 0.1, 1),
    "more weight on ink: lower accuracy": ("test_accuracy", 10.0, -1),
    "more weight on ink: lower RMSE": ("test_rmse", 10.0, -1),
}


def pair_tests(study: Study) -> pd.DataFrame:
    """Return one-sided paired t-tests of the three claims, a row a claim and scaling of ink.

    Returns:
        claim, ink, `difference` (mean over seeds, from a ratio of 1), `seeds` with the claimed
        sign, `p`, and `p_holm`, corrected over all six rows.
    """
    rows = []
    for (claim, (metric, ratio, sign)), scaling in product(CLAIMS.items(), SCALINGS):
        values = _by_ratio(study, scaling, metric)
        difference = values[ratio] - values[1.0]
        claimed = sign * difference > 0
        rows.append(
            {
                "claim": claim,
                "ink": scaling,
                "difference": difference.mean(),
                "seeds": f"{claimed.sum()} of {len(claimed)}",
                "p": stats.ttest_1samp(sign * difference, 0, alternative="greater").pvalue,
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"]))


def trend_tests(study: Study) -> pd.DataFrame:
    """Return Page's tests of a falling trend over the ratios 0.1, 1 and 10 (Page 1963).

    Returns:
        metric, ink, `p`, and `p_holm`, corrected over all four rows.
    """
    rows = []
    for metric, scaling in product(("test_accuracy", "test_rmse"), SCALINGS):
        test = stats.page_trend_test(-_by_ratio(study, scaling, metric)[RATIOS])
        rows.append({"falls with the ratio": metric, "ink": scaling, "p": test.pvalue})
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"]))


def _by_ratio(study: Study, scaling: str, metric: str) -> pd.DataFrame:
    """Return a metric, a row a seed and a column a ratio."""
    fixed = study.results.query("weighting == 'fixed' and ink_scaling == @scaling")
    return fixed.pivot(index="seed", columns="ratio", values=metric)
