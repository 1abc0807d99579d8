"""What a handful of runs can tell apart: intervals, paired differences, equivalence.

Runs that share a seed share their order of images and their initial weights as far as the configurations allow, so
differences are taken seed by seed and tested as paired (Student's t). Many comparisons at once are corrected by
Holm's method; two things count as equal only if two one-sided tests put the difference inside a margin (TOST,
Schuirmann 1987), never because a test of difference failed.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

ALPHA = 0.05


def mean_intervals(results: pd.DataFrame, metric: str, by: str = "name") -> pd.DataFrame:
    """Mean over seeds, its 95 % interval (Student's t), standard deviation and number of runs."""
    rows = {}
    for name, values in results.groupby(by, sort=False)[metric]:
        if len(values) < 2:
            raise ValueError(
                f"{name}: found {len(values)} run, expected at least 2 seeds for an interval"
            )
        low, high = DescrStatsW(values).tconfint_mean(ALPHA)
        rows[name] = {
            "mean": values.mean(),
            "low": low,
            "high": high,
            "sd": values.std(ddof=1),
            "runs": len(values),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(by)


def beside_published(published: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """One row a run that both have, in the published order: `published_` columns, ours, and `_difference`, ours - theirs.

    Args:
        published, ours: a row a run, its name the index; compared in the columns that both have.
    """
    keys = [key for key in published if key in ours]
    table = published.rename(columns={key: f"published_{key}" for key in keys}).join(
        ours, how="inner"
    )
    for key in keys:
        table[f"{key}_difference"] = table[key] - table[f"published_{key}"]
    return table.rename_axis("run").reset_index()


def agreement(table: pd.DataFrame, key: str) -> dict[str, float]:
    """How alike ours and theirs are in column `key` of `beside_published`: rank correlation, differences, how many runs."""
    return {
        "runs": len(table),
        "rank_correlation": float(stats.spearmanr(table[key], table[f"published_{key}"]).statistic),
        "mean_difference": float(table[f"{key}_difference"].mean()),
        "mean_absolute_difference": float(table[f"{key}_difference"].abs().mean()),
    }


def prediction_half_width(sd, n):
    """How far one more of n normal observations of standard deviation `sd` may lie from their mean, 95 %.

    Numbers or Series alike; NaN for a single observation.
    """
    return stats.t.ppf(1 - ALPHA / 2, n - 1) * sd * (1 + 1 / n) ** 0.5


def paired_differences(
    results: pd.DataFrame, metric: str, pairs: Sequence[tuple[str, str]], *, margin: float
) -> pd.DataFrame:
    """The difference of `metric` between the runs of each pair of names, seed by seed.

    Args:
        results: one row a run, with `name` and `seed`.
        pairs: (first, second); the difference is first - second.
        margin: differences smaller than this, either way, do not matter.

    Returns:
        A row a pair: mean `difference` with its 95 % interval (`low`, `high`), `p` corrected by
        Holm's method over the pairs, `p_equal` of the equivalence test, likewise corrected, and
        `verdict`: higher, lower, equal (within the margin) or not resolved.

    Raises:
        ValueError: a name is missing, or a seed that its partner has.
    """
    table = results.pivot(index="seed", columns="name", values=metric)
    rows = []
    for first, second in pairs:
        for name in (first, second):
            if name not in table:
                raise ValueError(f"no runs called {name!r}; there are {', '.join(table.columns)}")
        difference = table[first] - table[second]
        if difference.isna().any() or len(difference) < 2:
            raise ValueError(
                f"{first} and {second}: found seeds {difference.dropna().index.tolist()} in common, "
                f"expected {table.index.tolist()} and at least 2 of them"
            )
        mean, described = difference.mean(), DescrStatsW(difference)
        row = {
            "first": first,
            "second": second,
            "difference": mean,
            "low": mean,
            "high": mean,
            "p": float(mean == 0),
            "p_equal": float(abs(mean) >= margin),
        }  # of differences without spread
        if difference.std() > 0:
            row["low"], row["high"] = described.tconfint_mean(ALPHA)
            row["p"], row["p_equal"] = (
                described.ttest_mean(0)[1],
                described.ttost_mean(-margin, margin)[0],
            )
        rows.append(row)
    frame = pd.DataFrame(rows)
    for column in ("p", "p_equal"):
        frame[column] = multipletests(frame[column], alpha=ALPHA, method="holm")[1]
    equal, resolved, positive = (
        frame["p_equal"] < ALPHA,
        frame["p"] < ALPHA,
        frame["difference"] > 0,
    )
    frame["verdict"] = np.select(
        [equal, ~resolved, positive], ["equal", "not resolved", "higher"], "lower"
    )
    return frame


def claim(found: str, expected: str) -> str:
    """What a verdict of `paired_differences` says of a claim that expected "higher" or "lower"."""
    if found == "not resolved":
        return "not resolvable"
    return "supported" if found == expected else "not supported"
