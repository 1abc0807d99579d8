"""What a handful of runs can tell apart: intervals, paired differences, equivalence.

Runs with the same seed share their order of images and, as far as their configurations allow, their
initial weights. Differences are therefore taken seed by seed and tested as paired (Student's t).
Holm's method corrects for several comparisons. Two configurations count as equal only if two
one-sided tests put their difference within a margin (TOST, Schuirmann 1987), never because a test
of difference fails.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from .errors import ConfigError

ALPHA = 0.05  # level of tests; intervals have 1 - ALPHA


def mean_intervals(results: pd.DataFrame, metric: str, by: str = "name") -> pd.DataFrame:
    """Return the mean over seeds with its 95 % interval (Student's t), a row a value of `by`.

    Returns:
        mean, low, high, sd (standard deviation) and runs.

    Raises:
        ConfigError: a group has a single run.
    """
    groups = results.groupby(by, sort=False)[metric]
    table = groups.agg(mean="mean", sd="std", runs="count")
    if (table["runs"] < 2).any():
        single = ", ".join(map(str, table.index[table["runs"] < 2]))
        raise ConfigError(f"{single}: found 1 run, expected at least 2 seeds for an interval")
    half = stats.t.ppf(1 - ALPHA / 2, table["runs"] - 1) * table["sd"] / table["runs"] ** 0.5
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)


def beside_published(published: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """Return ours beside the published values, a row a run that both have.

    Args:
        published: a row a run, with the name as index.
        ours: likewise; columns that both have are compared.

    Returns:
        `run`, the published values as `published_KEY`, ours, and `KEY_difference` (ours minus
        published).
    """
    keys = [key for key in published if key in ours]
    renamed = published.rename(columns={key: f"published_{key}" for key in keys})
    table = renamed.join(ours, how="inner")
    for key in keys:
        table[f"{key}_difference"] = table[key] - table[f"published_{key}"]
    return table.rename_axis("run").reset_index()


def agreement(table: pd.DataFrame, key: str) -> dict[str, float]:
    """Return how well ours agree with the published values of `key` in `beside_published`.

    Returns:
        runs, rank_correlation (Spearman), mean_difference and mean_absolute_difference.
    """
    difference = table[f"{key}_difference"]
    return {
        "runs": len(table),
        "rank_correlation": float(stats.spearmanr(table[key], table[f"published_{key}"]).statistic),
        "mean_difference": float(difference.mean()),
        "mean_absolute_difference": float(difference.abs().mean()),
    }


def prediction_half_width(sd, n):
    """Return how far one more of n normal observations may lie from their mean, 95 %.

    Args:
        sd: standard deviation of the observations, a number or a Series.
        n: number of observations, likewise. The result is NaN for a single one.
    """
    return stats.t.ppf(1 - ALPHA / 2, n - 1) * sd * (1 + 1 / n) ** 0.5


def paired_differences(
    results: pd.DataFrame, metric: str, pairs: Sequence[tuple[str, str]], *, margin: float
) -> pd.DataFrame:
    """Return the difference of a metric between pairs of configurations, seed by seed.

    Args:
        results: a row a run, with `name` and `seed`.
        metric: column of `results`.
        pairs: (first, second) names; the difference is first minus second.
        margin: differences smaller than this, either way, do not matter.

    Returns:
        A row a pair: first, second, mean `difference` with its 95 % interval (`low`, `high`), `p`
        corrected by Holm's method over the pairs, `p_equal` of the equivalence test, likewise
        corrected, and `verdict`: higher, lower, equal (within the margin) or not resolved.

    Raises:
        ConfigError: a name is missing, or seeds are not shared.
    """
    values = results.pivot(index="seed", columns="name", values=metric)
    rows = []
    for first, second in pairs:
        for name in (first, second):
            if name not in values:
                names = ", ".join(values.columns)
                raise ConfigError(f"name: found {name!r}, expected one of {names}")
        difference = values[first] - values[second]
        if difference.isna().any() or len(difference) < 2:
            shared = difference.dropna().index.tolist()
            raise ConfigError(
                f"{first} and {second} share the seeds {shared}, expected "
                f"{values.index.tolist()} and at least 2"
            )
        rows.append({"first": first, "second": second, **_paired_test(difference, margin)})
    table = pd.DataFrame(rows)
    for column in ("p", "p_equal"):
        table[column] = multipletests(table[column], alpha=ALPHA, method="holm")[1]
    equal, resolved = table["p_equal"] < ALPHA, table["p"] < ALPHA
    conditions = [equal, ~resolved, table["difference"] > 0]
    table["verdict"] = np.select(conditions, ["equal", "not resolved", "higher"], "lower")
    return table


def _paired_test(difference: pd.Series, margin: float) -> dict[str, float]:
    """Return mean, interval, p of a difference and p of equivalence."""
    mean = difference.mean()
    row = {"difference": mean, "low": mean, "high": mean}
    if difference.std() == 0:  # identical in all seeds
        return row | {"p": float(mean == 0), "p_equal": float(abs(mean) >= margin)}
    described = DescrStatsW(difference)
    row["low"], row["high"] = described.tconfint_mean(ALPHA)
    row["p"] = described.ttest_mean(0)[1]
    row["p_equal"] = described.ttost_mean(-margin, margin)[0]
    return row
