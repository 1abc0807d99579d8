"""Statistics of a few runs: intervals, paired differences, equivalence, corrections.

Runs with the same seed share their order of images and, as far as their configurations allow, their
initial weights. Differences are therefore paired by seed.
Holm's method corrects for several comparisons. Two configurations count as equal only if two
one-sided tests put their difference within a margin (TOST, Schuirmann 1987), never because a test
of difference fails.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from .errors import ConfigError

ALPHA = 0.05  # level of tests; intervals have 1 - ALPHA


def mean_intervals(
    results: pd.DataFrame, metric: str, by: str | list[str] = "name", *, prediction: bool = False
) -> pd.DataFrame:
    """Return the mean over seeds with its 95 % interval (Student's t), a row a value of `by`.

    Args:
        results: a row a run.
        metric: column of `results`.
        by: column, or columns, whose values form the groups.
        prediction: return the interval of one more run instead of that of the mean.

    Returns:
        mean, sd (standard deviation), runs, low and high. A single run has no interval: NaN.
    """
    table = results.groupby(by, sort=False)[metric].agg(mean="mean", sd="std", runs="count")
    variance = table["sd"] ** 2 * (1 / table["runs"] + prediction)
    half = _t_quantile(table["runs"] - 1) * variance**0.5
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
        "rank_correlation": table[key].corr(table[f"published_{key}"], method="spearman"),
        "mean_difference": difference.mean(),
        "mean_absolute_difference": difference.abs().mean(),
    }


def holm(p: pd.Series) -> pd.Series:
    """Return p-values of several tests, corrected by Holm's method (Holm 1979)."""
    ranked = p.dropna().sort_values()
    corrected = ranked * np.arange(len(ranked), 0, -1)
    return corrected.cummax().clip(upper=1).reindex(p.index)


def paired_differences(
    results: pd.DataFrame, metric: str, pairs: Sequence[tuple[str, str]], *, margin: float
) -> pd.DataFrame:
    """Return the difference of a metric between pairs of configurations, paired by seed.

    A few seeds estimate the variance of one difference poorly. A two-way model (configuration +
    seed) pools the residuals of all configurations in `results`; it assumes that their variance is
    the same. With two configurations it is Student's paired test.

    Args:
        results: a row a run, with `name` and `seed`; only seeds that all configurations have count.
        metric: column of `results`.
        pairs: (first, second) names; the difference is first minus second.
        margin: differences smaller than this, either way, do not matter.

    Returns:
        A row a pair: first, second, the number of `seeds`, mean `difference`, the ends `low` and
        `high` of intervals that hold all at once with 95 % (Bonferroni), `t`, its `p` and, for
        equivalence, `p_equal`, both corrected by Holm's method over the pairs, and `verdict`:
        higher, lower, equal (within the margin), not resolved, or not enough seeds (a single one).

    Raises:
        ConfigError: `results` has no run of a configuration.
    """
    names = results["name"].unique()
    for name in itertools.chain(*pairs):
        if name not in names:
            raise ConfigError(f"configuration: found {name!r}, expected one of {', '.join(names)}")
    values = results.pivot(index="seed", columns="name", values=metric).dropna()
    residuals = values.sub(values.mean(axis=1), axis=0)
    residuals = residuals - residuals.mean()
    seeds, configurations = values.shape
    freedom = (seeds - 1) * (configurations - 1)
    variance = residuals.pow(2).to_numpy().sum() / freedom if freedom else np.nan
    error = np.sqrt(2 * variance / seeds)
    table = pd.DataFrame(pairs, columns=["first", "second"]).assign(seeds=seeds)
    means = values.mean()
    difference = table["first"].map(means) - table["second"].map(means)
    half = _t_quantile(freedom, ALPHA / len(pairs)) * error
    t = (difference / error).fillna(0) if freedom else difference / error  # 0 / 0: no difference
    # the larger p of two one-sided tests, against the nearer end of the margin
    p_equal = stats.t.sf((margin - difference.abs()) / error, freedom)
    table = table.assign(
        difference=difference,
        low=difference - half,
        high=difference + half,
        t=t,
        p=holm(pd.Series(2 * stats.t.sf(t.abs(), freedom))),
        p_equal=holm(pd.Series(p_equal)),
    )
    conditions = {
        "not enough seeds": table["seeds"] < 2,
        "equal": table["p_equal"] < ALPHA,
        "not resolved": table["p"] >= ALPHA,
        "higher": difference > 0,
        "lower": difference < 0,
    }
    verdict = np.select(list(conditions.values()), list(conditions), "not resolved")
    return table.assign(verdict=verdict)


def mcnemar(first, second) -> tuple[tuple[int, int], float]:
    """Compare two networks on the same images by McNemar's exact test (McNemar 1947).

    Args:
        first: (N,) booleans, whether the first network is correct.
        second: (N,) likewise.

    Returns:
        The numbers of images that only the first and only the second classifies correctly, and
        the two-sided p-value.
    """
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    differing = only_first + only_second
    p = stats.binomtest(only_first, differing).pvalue if differing else 1.0
    return (only_first, only_second), p


def _t_quantile(freedom: pd.Series | int, alpha: float = ALPHA) -> np.ndarray:
    return stats.t.ppf(1 - alpha / 2, freedom)
