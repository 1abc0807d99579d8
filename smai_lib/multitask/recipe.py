"""The best recipe for the reference report's backbone in its 20 epochs, and what each step gives.

Three studies: the recipe with its ablations, the ladder of changes that lead from config 1 as
published to the recipe, and a residual network beyond the reference report's backbone.
"""

import pandas as pd
import torch
from scipy import stats
from statsmodels.stats.multitest import multipletests
from torch.utils.flop_counter import FlopCounterMode

from ..core.stats import paired_differences
from ..core.study import Study, over_seeds, plan
from ..core.training import EVALUATION_BATCH
from .data import FashionMNIST, Split
from .model import IMAGE_SIZE, MultiTaskCNN, scale_pixels
from .studies import PUBLISHED, PUBLISHED_CONFIGS, TEN_CONFIGS, load_data

# The network of config 1. All else was chosen on validation, in single runs. No better were random
# shifts and erasing, mixup, distillation, batches of 64, and six times the weight decay. Kernels
# of 5 pixels, overlapping pools and more dropout were behind when they were stopped.
PLAIN = TEN_CONFIGS["config 1"]
BEST = PLAIN.replace(
    optimizer="AdamW",
    learning_rate=3e-3,
    schedule="one_cycle",
    weight_decay=0.05,
    label_smoothing=0.1,
    mirror=True,
    average_decay=0.998,
    ink_scaling="z_score",
    lambda2=3.0,
    ceil_mode=True,
    hidden=96,  # narrower heads make up for larger maps: fewer than 500,000 parameters
)
# ingredient -> the keys that its ablation resets to their values in config 1
INGREDIENTS = {
    "schedule": ("schedule", "learning_rate"),
    "mirroring": ("mirror",),
    "label smoothing": ("label_smoothing",),
    "weight averaging": ("average_decay",),
    "z-scored ink": ("ink_scaling", "lambda2"),
    "the maps' border": ("ceil_mode", "hidden"),
}
RECIPE, SEEDS, ABLATION_SEEDS = "recipe", 5, 3
RESIDUAL = BEST.replace(
    backbone="residual",
    pairs=2,
    base_filters=24,
    pooling="average",
    hidden=64,
    ceil_mode=False,
    shift=1,
)

# What a step gives depends on the steps before it. First the wrong ink target. Then the capacity of
# the network: until it can fit its training images, nothing else shows. Then augmentation, training
# and loss. Last the border of the maps, which helps only an otherwise good network.
START = "config 1 as published"
STEPS = {  # name -> the keys that have the recipe's value from this step on
    "ink measured anew": ("ink_target",),
    "no dropout after blocks": ("block_dropout",),
    "heads as ours": ("hidden", "ink_hidden", "ink_dropout"),
    "maps, not their averages": ("pooling",),
    "mirrored, not cropped or turned": ("mirror", "shift", "rotation"),
    "pixels in 0 to 1": ("normalize",),
    "one-cycle AdamW": ("optimizer", "learning_rate", "schedule", "weight_decay"),
    "label smoothing": ("label_smoothing",),
    "averaged weights": ("average_decay",),
    "z-scored ink": ("ink_scaling", "lambda2"),
    "the maps' border: the recipe": ("ceil_mode",),
}
LADDER_SEEDS = 3

MARGIN = 0.002  # of accuracy; smaller differences do not matter
RMSE_MARGIN = 0.0005  # of ink RMSE
LADDER_METRICS = [
    "val_accuracy",
    "val_mirror_accuracy",
    "test_accuracy",
    "test_mirror_accuracy",
    "val_rmse",
    "test_rmse",
]


def _with_values_of(base, config, keys):
    """Return `base` with the values that `keys` have in `config`."""
    return base.replace(**{key: getattr(config, key) for key in keys})


def ladder_configs() -> dict:
    """Return the configs of the ladder by name, from config 1 as published to the recipe."""
    config = PUBLISHED_CONFIGS["config 1"]
    configs = {START: config}
    for name, keys in STEPS.items():
        config = _with_values_of(config, BEST, keys)
        configs[name] = config
    return configs


def best_recipe(
    profile: str = "recorded", seed: int = 0, data: FashionMNIST | None = None
) -> Study:
    """Return the study of the recipe over five seeds and its ablations over three.

    Under "quick" all have one seed.

    Args:
        profile: "recorded", "quick" or "full".
        seed: first seed.
        data: data set, by default Fashion-MNIST.
    """
    ablations = {
        f"without {name}": _with_values_of(BEST, PLAIN, keys) for name, keys in INGREDIENTS.items()
    }
    quick = profile == "quick"
    entries = over_seeds({RECIPE: BEST}, seed, 1 if quick else SEEDS)
    entries += over_seeds(ablations, seed, 1 if quick else ABLATION_SEEDS)
    return _plan_recipe("q1_best", profile, entries, data)


def residual_network(
    profile: str = "recorded", seed: int = 0, data: FashionMNIST | None = None
) -> Study:
    """Return the study of the residual network over five seeds, one under "quick".

    Args:
        profile: "recorded", "quick" or "full".
        seed: first seed.
        data: data set, by default Fashion-MNIST.
    """
    entries = over_seeds({RECIPE: RESIDUAL}, seed, 1 if profile == "quick" else SEEDS)
    return _plan_recipe("q1_beyond", profile, entries, data)


def _plan_recipe(name: str, profile: str, entries, data: FashionMNIST | None) -> Study:
    return plan(
        name,
        profile,
        entries,
        lambda: load_data(profile, data),
        choose=lambda results: RECIPE,
        rank="val_mirror_accuracy",
    )


def recipe_ladder(
    profile: str = "recorded", seed: int = 0, data: FashionMNIST | None = None
) -> Study:
    """Return the study of the ladder: twelve configurations, three seeds each, two under "quick".

    Args:
        profile: "recorded", "quick" or "full".
        seed: first seed.
        data: data set, by default Fashion-MNIST.
    """
    return plan(
        "q1_ladder",
        profile,
        over_seeds(ladder_configs(), seed, 2 if profile == "quick" else LADDER_SEEDS),
        lambda: load_data(profile, data),
        weights=lambda study: {},  # those of the recipe ship with `best_recipe`
    )


def summary(study: Study) -> pd.DataFrame:
    """Return mean and standard deviation (`sd`) over the recipe's seeds, a row a way to predict.

    Predictions are of one image, or averaged over the image and its mirror image.
    """
    recipe = study.results.query("name == @RECIPE")
    rows = []
    for prediction, infix in {"one image": "", "mirror average": "mirror_"}.items():
        row = {"prediction": prediction, "seeds": len(recipe)}
        for split, metric in (("val", "accuracy"), ("test", "accuracy"), ("test", "rmse")):
            values = recipe[f"{split}_{infix}{metric}"]
            row[f"{split}_{metric}"] = values.mean()
            row[f"{split}_{metric} sd"] = values.std()
        rows.append(row)
    return pd.DataFrame(rows)


def ablation(study: Study) -> pd.DataFrame:
    """Return what each ingredient gives: the loss without it, paired by seed with the recipe.

    Metrics are of one image of the test set. A network that was never trained on mirrored images
    has no good prediction for one, so the mirror average would be unfair.

    Returns:
        A row an ablation: run, seeds, and for `accuracy` and `rmse` the mean over the shared seeds
        and `_loss` with its 95 % interval `_low`, `_high`. A loss above 0 means worse without it.
        `_verdict` is "worse without", "better without", "equal" (within a margin), "not resolved",
        or "not enough seeds" if fewer than two are shared.
    """
    results = study.results
    names_of_seed = results.groupby("seed")["name"].nunique()
    shared = names_of_seed[names_of_seed == results["name"].nunique()].index
    results = results[results["seed"].isin(shared)]
    means = results.groupby("name")[["test_accuracy", "test_rmse"]].mean()
    without = [name for name in results["name"].unique() if name != RECIPE]
    table = means.loc[without].rename(columns={"test_accuracy": "accuracy", "test_rmse": "rmse"})
    table = table.rename_axis("run").reset_index().assign(seeds=len(shared))
    # the loss is first - second: a lower accuracy, but a higher RMSE, is worse
    pairs = [(RECIPE, name) for name in without]
    losses = _losses(results, "test_accuracy", pairs, MARGIN).add_prefix("accuracy_")
    reversed_pairs = [(name, RECIPE) for name in without]
    rmse_losses = _losses(results, "test_rmse", reversed_pairs, RMSE_MARGIN).add_prefix("rmse_")
    return table.join(losses).join(rmse_losses)


def _losses(results: pd.DataFrame, metric: str, pairs, margin: float) -> pd.DataFrame:
    """Return the mean difference first - second of each pair as `loss`, with low, high, verdict."""
    if results["seed"].nunique() < 2:
        means = results.groupby("name")[metric].mean()
        losses = [means[first] - means[second] for first, second in pairs]
        return pd.DataFrame({"loss": losses}).assign(
            low=float("nan"), high=float("nan"), verdict="not enough seeds"
        )
    table = paired_differences(results, metric, pairs, margin=margin)
    table = table.rename(columns={"difference": "loss"})[["loss", "low", "high", "verdict"]]
    verdicts = {"higher": "worse without", "lower": "better without"}
    return table.assign(verdict=table["verdict"].replace(verdicts))


def rungs(study: Study, metric: str = "test_accuracy") -> pd.DataFrame:
    """Return the ladder's results, a row a configuration, with the step from the one before.

    Returns:
        Means and standard deviations (`sd`) over seeds; `step` in `metric`, paired by seed, with
        its 95 % interval `low`, `high` and the `verdict` of `stats.paired_differences`; `share`,
        the step divided by the difference of last and first configuration.
    """
    groups = study.results.groupby("name", sort=False)[LADDER_METRICS]
    table = groups.mean().join(groups.std().add_suffix(" sd"))
    names = list(table.index)
    pairs = list(zip(names[1:], names[:-1], strict=True))
    steps = paired_differences(study.results, metric, pairs, margin=MARGIN)
    steps = steps.rename(columns={"first": "rung", "difference": "step"}).set_index("rung")
    steps["share"] = steps["step"] / (table[metric].iloc[-1] - table[metric].iloc[0])
    table = table.join(steps[["step", "low", "high", "verdict", "share"]])
    return table.rename_axis("rung").reset_index()


def pooled_steps(study: Study, metric: str = "test_accuracy") -> pd.DataFrame:
    """Test every step of the ladder against the variance of all runs, a row a step.

    Three seeds estimate the variance of one step poorly. A two-way model (configuration + seed)
    pools the residuals of all configurations; it assumes that their variance is the same.

    Returns:
        rung, `step`, `t`, `p` (two-sided) and `p_holm`, corrected over all steps.
    """
    values = study.results.pivot(index="seed", columns="name", values=metric)
    values = values[study.results["name"].unique()]
    centred = values.sub(values.mean(axis=1), axis=0)
    residuals = centred - centred.mean()
    seeds, configurations = values.shape
    freedom = (seeds - 1) * (configurations - 1)
    variance = (residuals**2).to_numpy().sum() / freedom
    steps = values.mean().diff().dropna()
    t = steps / (2 * variance / seeds) ** 0.5
    p = 2 * stats.t.sf(t.abs(), freedom)
    table = pd.DataFrame({"step": steps, "t": t, "p": p}).rename_axis("rung").reset_index()
    return table.assign(p_holm=multipletests(p, method="holm")[1])


def explained_share(study: Study, metric: str = "test_accuracy") -> float:
    """Return the ladder's total step, divided by the distance from the published config 1.

    It is above 1 where config 1 trained here is worse than published.
    """
    values = rungs(study, metric)[metric]
    first, last = values.iloc[0], values.iloc[-1]
    return (last - first) / (last - PUBLISHED.loc["config 1", metric])


def multiply_adds(model: MultiTaskCNN) -> int:
    """Return the multiply-adds of convolutions and linear layers for one image."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE))
    return counter.get_total_flops() // 2


@torch.inference_mode()
def correct(model: MultiTaskCNN, split: Split) -> torch.Tensor:
    """Return whether a network classifies each image of a split correctly, (N,) bool."""
    batches = split.images.split(EVALUATION_BATCH)
    logits = [model.eval()(scale_pixels(batch)).logits for batch in batches]
    return torch.cat(logits).argmax(1) == split.labels


def mcnemar(first: torch.Tensor, second: torch.Tensor) -> tuple[tuple[int, int], float]:
    """Compare two networks on the same images by McNemar's exact test (McNemar 1947).

    Args:
        first: (N,) whether the first network is correct.
        second: (N,) likewise.

    Returns:
        The numbers of images that only the first and only the second classifies correctly, and
        the two-sided p-value.
    """
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    test = stats.binomtest(only_first, only_first + only_second)
    return (only_first, only_second), test.pvalue
