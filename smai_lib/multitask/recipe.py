"""The best recipe found for the reference report's backbone in its 20 epochs, step by step.

Three studies: the recipe with its ablations, the ladder of changes that lead from config 1 as
published to the recipe, and a residual network beyond the reference report's backbone.
"""

from collections.abc import Iterable

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from ..core.config import Config
from ..core.stats import paired_differences
from ..core.study import Study, over_seeds
from .data import FashionMNIST
from .model import IMAGE_SIZE, MultiTaskCNN
from .studies import PUBLISHED_CONFIGS, TEN_CONFIGS, default_data

# The network of config 1. All else was chosen on validation, in single runs. Random shifts, random
# erasing, mixup, distillation, batches of 64 and six times the weight decay did not help. Kernels
# of 5 x 5, overlapping pools and more dropout were stopped early, because they lagged behind.
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
    optimizer="Muon",
    backbone="residual",
    pairs=2,
    base_filters=24,
    pooling="average",
    hidden=64,
    ceil_mode=False,
    shift=1,
)
MUON, ADAMW = "Muon", "AdamW"  # the residual network's runs, by their optimizer

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

PREDICTIONS = {"one image": "", "mirror average": "mirror_"}  # infix of a metric by its prediction
MARGINS = {"accuracy": 0.002, "rmse": 0.0005}  # smaller differences on test do not matter


def _with_values_of(base: Config, config: Config, keys: Iterable[str]) -> Config:
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
    return Study(
        "q1_best",
        profile,
        entries,
        lambda: data or default_data(profile),
        choose=lambda results: RECIPE,
        rank="val_mirror_accuracy",
    )


def residual_network(
    profile: str = "recorded", seed: int = 0, data: FashionMNIST | None = None
) -> Study:
    """Return the study of the residual network, with Muon and with AdamW.

    Both have five seeds, one under "quick".

    Args:
        profile: "recorded", "quick" or "full".
        seed: first seed.
        data: data set, by default Fashion-MNIST.
    """
    configs = {name: RESIDUAL.replace(optimizer=name) for name in (MUON, ADAMW)}
    return Study(
        "q1_beyond",
        profile,
        over_seeds(configs, seed, 1 if profile == "quick" else SEEDS),
        lambda: data or default_data(profile),
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
    return Study(
        "q1_ladder",
        profile,
        over_seeds(ladder_configs(), seed, 2 if profile == "quick" else LADDER_SEEDS),
        lambda: data or default_data(profile),
        weights=lambda study: {},  # those of the recipe ship with `best_recipe`
    )


def summary(study: Study) -> pd.DataFrame:
    """Return the best configuration's results, a row a way to predict.

    Predictions are of one image, or averaged over the image and its mirror image.

    Returns:
        Means and standard deviations (`sd`) over the seeds of the study's best configuration.
    """
    best = study.results.query("name == @study.best")
    rows = []
    for prediction, infix in PREDICTIONS.items():
        row = {"prediction": prediction, "seeds": len(best)}
        for split, metric in (("val", "accuracy"), ("test", "accuracy"), ("test", "rmse")):
            values = best[f"{split}_{infix}{metric}"]
            row[f"{split}_{metric}"] = values.mean()
            row[f"{split}_{metric} sd"] = values.std()
        rows.append(row)
    return pd.DataFrame(rows)


def gain_of_muon(study: Study) -> pd.DataFrame:
    """Return how much more accurate the residual network is with Muon than with AdamW, on test.

    Args:
        study: results of `residual_network`.

    Returns:
        A row a way to predict, as in `summary`, with `seeds`, `difference`, `low` and `high` of
        `stats.paired_differences`.
    """
    rows = [
        paired_differences(
            study.results,
            f"test_{infix}accuracy",
            [(MUON, ADAMW)],
            margin=MARGINS["accuracy"],
        ).assign(prediction=prediction)
        for prediction, infix in PREDICTIONS.items()
    ]
    return pd.concat(rows)[["prediction", "seeds", "difference", "low", "high"]]


def ablation(study: Study) -> pd.DataFrame:
    """Return how much worse the recipe is without each ingredient, paired by seed.

    Metrics are of one image of the test set. A network that was never trained on mirrored images
    has no good prediction for one, so the mirror average would be unfair.

    Returns:
        A row an ablation: run, seeds, and for `accuracy` and `rmse` the mean `_loss` with the ends
        `_low` and `_high` of its interval, see `stats.paired_differences`. A loss above 0 means
        worse without it. `_verdict` is "worse without", "better without", "equal" (within MARGINS),
        "not resolved", or "not enough seeds".
    """
    names = [name for name in study.results["name"].unique() if name != RECIPE]
    pairs = {
        "accuracy": [(RECIPE, name) for name in names],
        "rmse": [(name, RECIPE) for name in names],  # of an RMSE, more is worse
    }
    table = pd.DataFrame({"run": names})
    for metric, margin in MARGINS.items():
        losses = paired_differences(study.results, f"test_{metric}", pairs[metric], margin=margin)
        losses["verdict"] = losses["verdict"].replace(
            {"higher": "worse without", "lower": "better without"}
        )
        table["seeds"] = losses["seeds"]
        losses = losses.rename(columns={"difference": "loss"})
        table = table.join(losses[["loss", "low", "high", "verdict"]].add_prefix(f"{metric}_"))
    return table


def rungs(study: Study) -> pd.DataFrame:
    """Return the ladder's results, a row a configuration, with the step from the one before.

    Returns:
        Means and standard deviations (`sd`) over seeds of accuracy and RMSE on test; `step` in
        accuracy, with `t` and `p` of `stats.paired_differences`; `share`, the step divided by the
        sum of all steps.
    """
    groups = study.results.groupby("name", sort=False)[["test_accuracy", "test_rmse"]]
    table = groups.mean().join(groups.std().add_suffix(" sd"))
    names = list(table.index)
    pairs = list(zip(names[1:], names[:-1], strict=True))
    steps = paired_differences(study.results, "test_accuracy", pairs, margin=MARGINS["accuracy"])
    steps = steps.set_index("first").rename(columns={"difference": "step"})
    table = table.join(steps[["step", "t", "p"]])
    table["share"] = table["step"] / table["step"].sum()
    return table.rename_axis("rung").reset_index()


def multiply_adds(model: MultiTaskCNN) -> int:
    """Return the multiply-adds of convolutions and linear layers for one image."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE))
    return counter.get_total_flops() // 2
