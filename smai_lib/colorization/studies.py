"""Studies of colorization: the reference report's 21 runs, and the networks beside the baselines.

All of CIFAR-10 in the 24 supplied colours: 45,000 training, 5,000 validation and 10,000 test
images.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from ..core import paths, stats
from ..core.study import Study, over_seeds
from . import metrics
from .baselines import baselines, ceiling, color_frequency, measured_baselines
from .coloring import colorize, vivid_alpha, vivid_bias
from .config import CLASS_HEAD_WEIGHTS, ColorizationConfig
from .data import ColorizationData, ColorSplit, prepare
from .images import color_images
from .metrics import Scores
from .palette import SUPPLIED, decode

QUICK_IMAGES = (1500, 500, 500)  # under the profile "quick"

# validation after the last epoch: the outputs of the reference report's notebooks
PUBLISHED = pd.DataFrame(
    [
        (1e-4, 32, 16, 5, "Adam", 1.5157, 0.4436),
        (1e-4, 64, 8, 5, "Adam", 1.7391, 0.3815),
        (1e-4, 128, 16, 3, "Adam", 1.7876, 0.3728),
        (1e-4, 64, 32, 3, "Adam", 1.6165, 0.4166),
        (3e-4, 32, 8, 3, "Adam", 1.8619, 0.3532),
        (3e-4, 64, 8, 5, "Adam", 1.6708, 0.3939),
        (3e-4, 128, 16, 3, "Adam", 1.7254, 0.3852),
        (3e-4, 64, 32, 3, "Adam", 1.5742, 0.4244),
        (1e-3, 32, 16, 3, "Adam", 1.6855, 0.3972),
        (1e-3, 32, 32, 5, "Adam", 1.3077, 0.5011),
        (1e-3, 64, 8, 3, "Adam", 1.8450, 0.3550),
        (1e-3, 64, 16, 3, "Adam", 1.6743, 0.3985),
        (1e-3, 64, 16, 5, "Adam", 1.5862, 0.4134),
        (1e-3, 64, 32, 3, "Adam", 1.5318, 0.4354),
        (1e-3, 128, 16, 5, "Adam", 1.4859, 0.4435),
        (3e-3, 64, 16, 3, "Adam", 1.6753, 0.3989),
        (1e-4, 128, 32, 3, "SGD", 2.7519, 0.1462),
        (3e-4, 32, 32, 3, "SGD", 1.8730, 0.3496),
        (3e-4, 64, 8, 5, "SGD", 2.1485, 0.2939),
        (3e-3, 32, 16, 5, "SGD", 1.5193, 0.4379),
        (3e-3, 128, 8, 3, "SGD", 1.9175, 0.3412),
    ],
    columns=[
        "learning_rate",
        "batch_size",
        "num_filters",
        "kernel_size",
        "optimizer",
        "nll",
        "accuracy",
    ],
    index=[f"run {number}" for number in range(1, 22)],
)
BEST_PUBLISHED = 1.3015  # lowest validation loss of run 10 over its epochs


MOMENTUM = {"Adam": 0.0, "SGD": 0.9}  # of the published runs
SWEEP_CONFIGS = {
    name: ColorizationConfig(**keys, momentum=MOMENTUM[keys["optimizer"]], epochs=30, keep="best")
    for name, keys in PUBLISHED.drop(columns=["nll", "accuracy"]).to_dict("index").items()
}
REPORT_CNN = SWEEP_CONFIGS["run 10"]  # the reference report's best network
_RECIPE = ColorizationConfig(
    mirror=True, schedule="one_cycle", optimizer="AdamW", learning_rate=3e-3, keep="best"
)
CNN_PRIOR = _RECIPE.replace(model="cnn_prior", epochs=8)
# Batches of 32 were slightly better than 64. Shifts prevent overfitting up to about the 18th epoch;
# dropout of 0.1 beside them only costs (validation NLL 0.7950, mirrored).
UNET = _RECIPE.replace(model="unet", num_filters=16, kernel_size=3, shift=4, epochs=20)
_WITH_HEAD = UNET.replace(class_weight=0.1)
_WIDE = _WITH_HEAD.replace(num_filters=20)
CLASS_HEAD, WIDE_UNET = "U-Net + class head", "wide U-Net + class head"
MUON_UNET = "wide U-Net + class head, Muon"
MODELS = {
    "report CNN": REPORT_CNN,
    # chosen on validation, in single runs of five epochs: a kernel of 5 with 48 filters was better
    # than 3 with 64 and 7 with 32, at about the same cost
    "tuned CNN": _RECIPE.replace(num_filters=48, epochs=15),
    # each network without and with the prior, otherwise the same
    "CNN": CNN_PRIOR.replace(model="cnn"),
    "CNN + prior": CNN_PRIOR,
    "U-Net without prior": UNET.replace(model="unet_no_prior"),
    "U-Net": UNET,
    # does it help to name what is coloured? the head is left out when colouring
    CLASS_HEAD: _WITH_HEAD,
    WIDE_UNET: _WIDE,
    MUON_UNET: _WIDE.replace(optimizer="Muon"),
}
QUICK_EPOCHS = {"report CNN": 2, "U-Net": 2}
MODEL_SEEDS = 3

TABLE = "luminance table"
METRICS_WITH_INTERVALS = ["accuracy", "nll", "balanced_accuracy", "psnr_grey", "colorfulness_mean"]
ALPHAS = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
VIVID_IMAGES = 2000  # of a split, for the table "vividness"


@cache
def default_data(profile: str) -> ColorizationData:
    """Return CIFAR-10, loaded once a process; a few thousand images of it under "quick"."""
    images = color_images()
    if profile == "quick":
        images = images.take(*QUICK_IMAGES)  # before their colours are encoded, which takes seconds
    return prepare(images, SUPPLIED)


def color_sweep(
    profile: str = "recorded", seed: int = 0, data: ColorizationData | None = None
) -> Study:
    """Return the study that retrains the 21 published runs.

    Args:
        profile: "recorded", "quick" or "full".
        seed: seed of all runs.
        data: data set, by default CIFAR-10 in the supplied colours.
    """
    return Study(
        "q2_sweep",
        profile,
        over_seeds(SWEEP_CONFIGS, seed),
        lambda: data or default_data(profile),
        rank="-best_val_loss",
        tables={"baselines": lambda study: measured_baselines(study.data)},
        weights=lambda study: {},  # several seeds of run 10 ship with the study of the networks
    )


def color_models(
    profile: str = "recorded", seed: int = 0, data: ColorizationData | None = None
) -> Study:
    """Return the study of the networks, three seeds each, beside the baselines.

    Args:
        profile: "recorded", "quick" (one seed) or "full".
        seed: first seed.
        data: data set, by default CIFAR-10 in the supplied colours.
    """
    return Study(
        "q2_models",
        profile,
        over_seeds(MODELS, seed, 1 if profile == "quick" else MODEL_SEEDS),
        lambda: data or default_data(profile),
        quick_epochs=QUICK_EPOCHS,
        rank="-val_mirror_nll",
        tables={
            "baselines": lambda study: measured_baselines(study.data),
            "intervals": compute_intervals,
            "images": compute_images,
            "colors": compute_colors,
            "ceiling": lambda study: ceiling(study.data),
            "frequency": compute_frequency,
            "vividness": compute_vividness,
        },
        weights=shipped_weights,
    )


def comparison(study: Study) -> pd.DataFrame:
    """Return ours beside the published metrics, validation after the last epoch, a row a run.

    Returns:
        The columns of `stats.beside_published` for `nll` and `accuracy`; `best_nll`, our lowest of
        all epochs.
    """
    ours = study.results.set_index("name")[["val_nll", "val_accuracy", "best_val_loss"]]
    ours.columns = ["nll", "accuracy", "best_nll"]
    return stats.beside_published(PUBLISHED, ours)


def agreement(study: Study, without: Sequence[str] = ()) -> dict[str, float]:
    """Return the agreement of our NLL with the published ones; see `stats.agreement`.

    Args:
        study: the sweep.
        without: names of runs to leave out.
    """
    table = comparison(study)
    return stats.agreement(table[~table["run"].isin(without)], "nll")


@cache  # several tables need the scores
def scores_on_test(study: Study) -> dict[str, Scores]:
    """Return the scores on test of the baselines, and of each network as mean over its seeds.

    Networks are scored with mirrored images; a table by grey level does not depend on that.
    """
    test, palette = study.data.test, study.data.palette
    table = {
        name: metrics.score(baseline, test, palette)
        for name, baseline in baselines(study.data).items()
    }
    for name in MODELS:
        seeds = [
            metrics.score(run.load_model(), test, palette, mirror=True)
            for run in study.runs
            if run.name == name
        ]
        table[name] = metrics.mean_scores(seeds)
    return table


def summary(study: Study, columns: list[str]) -> pd.DataFrame:
    """Return a row a model as text: baselines, then networks as mean ± deviation over seeds.

    Args:
        study: the study of the networks.
        columns: columns of the results. A baseline gives the same for a mirrored image, so its
            plain value stands in a column with "mirror" in its name.
    """
    plain = [column.replace("mirror_", "") for column in columns]
    baselines = study.table("baselines").set_index("name")[plain].map("{:.4f}".format)
    networks = study.results.groupby("name", sort=False)[columns].agg(_mean_text)
    rows = pd.concat([baselines.set_axis(columns, axis=1), networks])
    return rows.rename_axis("model").reset_index()


def _mean_text(seeds: pd.Series) -> str:
    deviation = f" ± {seeds.std():.4f}" if len(seeds) > 1 else ""
    return f"{seeds.mean():.4f}{deviation}"


def compute_intervals(study: Study) -> pd.DataFrame:
    """Return each metric of each model on test, and its difference from the lookup table's.

    Returns:
        name, metric, value, low, high, and the same of the paired `difference`: 95 % intervals.
    """
    tables = {}
    for name, scores in scores_on_test(study).items():
        differences = metrics.bootstrap(scores, scores_on_test(study)[TABLE])
        differences.columns = ["difference", "difference_low", "difference_high"]
        tables[name] = metrics.bootstrap(scores).join(differences).loc[METRICS_WITH_INTERVALS]
    return pd.concat(tables, names=["name"]).reset_index()


def differences(study: Study, metric: str) -> pd.DataFrame:
    """Return each model's paired difference from the table: mean, low and high by name."""
    rows = study.table("intervals").query("metric == @metric and name != @TABLE").set_index("name")
    columns = {"difference": "mean", "difference_low": "low", "difference_high": "high"}
    return rows[list(columns)].rename(columns=columns)


def prior_by_network(study: Study, metric: str) -> pd.DataFrame:
    """Return a metric of the CNN and the U-Net, each without and with the prior.

    Returns:
        A row a seed; columns (network, "without prior" or "with prior").
    """
    values = study.results.pivot(index="seed", columns="name", values=metric)
    table = values[["CNN", "CNN + prior", "U-Net without prior", "U-Net"]]
    pairs = [("CNN", "U-Net"), ("without prior", "with prior")]
    columns = pd.MultiIndex.from_product(pairs, names=["network", None])
    return table.set_axis(columns, axis=1)


def gain_by_seed(study: Study, name: str, reference: str) -> pd.DataFrame:
    """Return how much a network differs from another on test, mirrored, paired by seed.

    Returns:
        Accuracy and NLL, a row each, with `seeds`, `difference`, `low` and `high` of
        `stats.paired_differences`.
    """
    pair = (name, reference)
    two = study.results[study.results["name"].isin(pair)]
    gains = {
        metric: stats.paired_differences(two, f"test_mirror_{metric}", [pair], margin=0)
        for metric in ("accuracy", "nll")
    }
    table = pd.concat(gains, names=["metric"]).droplevel(1)
    return table[["seeds", "difference", "low", "high"]]


def paired_gains(study: Study) -> pd.DataFrame:
    """Return `gain_by_seed` of class head, more filters and Muon, a row a change and metric."""
    changes = {
        "class head": (CLASS_HEAD, "U-Net"),
        "20 filters instead of 16": (WIDE_UNET, CLASS_HEAD),
        "Muon instead of AdamW": (MUON_UNET, WIDE_UNET),
    }
    gains = {change: gain_by_seed(study, *pair) for change, pair in changes.items()}
    return pd.concat(gains, names=["change"]).reset_index()


def compute_images(study: Study) -> pd.DataFrame:
    """Return a row a test image: its class, and accuracy and NLL of every model."""
    columns = {"class": np.array(study.data.names)[study.data.test.labels]}
    for name, scores in scores_on_test(study).items():
        for metric in ("accuracy", "nll"):
            columns[f"{metric}: {name}"] = scores[metric].round(4)
    return pd.DataFrame(columns)


def compute_colors(study: Study) -> pd.DataFrame:
    """Return a row a model and true colour of test pixels: pixels, accuracy and NLL."""
    tables = {}
    for name, scores in scores_on_test(study).items():
        pixels = scores["pixels"].sum(0)
        accuracy, nll = scores["correct"].sum(0) / pixels, scores["color_nll"].sum(0) / pixels
        tables[name] = pd.DataFrame({"pixels": pixels, "accuracy": accuracy, "nll": nll})
    return pd.concat(tables, names=["name", "color"]).round(4).reset_index()


def gain_by_class(study: Study, name: str, reference: str) -> pd.Series:
    """Return how much more accurate a model is than another, by class: mean over test images."""
    images = study.table("images").groupby("class").mean()
    return images[f"accuracy: {name}"] - images[f"accuracy: {reference}"]


def never_found(study: Study) -> list[int]:
    """Return the colours of which the lookup table finds less than a thousandth of the pixels."""
    table = study.table("colors").query("name == @TABLE")
    return table.loc[table["accuracy"] < 0.001, "color"].to_list()


def compute_frequency(study: Study) -> pd.DataFrame:
    """Return the share of every colour among the training pixels, a row a colour."""
    share = color_frequency(study.data.train, len(study.data.palette))
    return pd.DataFrame({"color": range(len(share)), "share": share.numpy()})


def compute_vividness(study: Study) -> pd.DataFrame:
    """Return what subtracting alpha times the log-frequency of the colours does.

    Returns:
        A row a split (validation, test; its first VIVID_IMAGES images) and alpha: the metrics of
        the best network from one image; `colorfulness_truth` of the true images, and
        `colorfulness_palette` of the true images in the palette.
    """
    network, palette = study.best_network(), study.data.palette
    frequency = study.table("frequency")
    rows = []
    for name, split in {"validation": study.data.validation, "test": study.data.test}.items():
        split = ColorSplit(*(column[:VIVID_IMAGES] for column in split))
        in_palette = decode(split.colors, palette)
        true = {
            "colorfulness_truth": metrics.colorfulness(split.images).mean().item(),
            "colorfulness_palette": metrics.colorfulness(in_palette).mean().item(),
        }
        for alpha in ALPHAS:
            scored = metrics.score(network, split, palette, bias=vivid_bias(frequency, alpha))
            rows.append({"split": name, "alpha": alpha, **metrics.aggregate(scored), **true})
    return pd.DataFrame(rows)


def shipped_weights(study: Study) -> dict[str, Path]:
    """Return the weights of the best network and of the report's, in half precision."""
    return {
        "best": half_precision(study.best_run.weights_file),
        "report": half_precision(study.run_named("report CNN").weights_file),
    }


def half_precision(file: Path) -> Path:
    """Write a copy beside `file` with 16-bit floats, and return it.

    The palette keeps its precision, and the auxiliary class head is left out.
    """
    state = {}
    for name, value in load_file(file).items():
        if value.is_floating_point() and name != "palette":
            value = value.half()
        if not name.startswith(CLASS_HEAD_WEIGHTS):
            state[name] = value
    target = file.with_name("half." + file.name)
    save_file(state, target)
    return target


def examples(
    study: Study, images: Sequence[int] | None = None
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return colourings of test images by the report's network and the best one.

    Args:
        study: the study of the networks.
        images: numbers of test images; by default one of each class, drawn at random once.

    Returns:
        Rows of a figure, (N, 3, H, W) or (N, 1, H, W) uint8 by label; and a title for each image,
        its class and the accuracy of the best network on it.
    """
    data = study.data
    if images is None:
        labels = data.test.labels.numpy()
        shuffled = np.random.default_rng(0).permutation(len(labels))
        images = shuffled[np.unique(labels[shuffled], return_index=True)[1]]
    few = ColorSplit(*(column[list(images)] for column in data.test))
    best = study.best_network()
    if study.profile == "recorded":
        report = REPORT_CNN.load_model(paths.WEIGHTS / "q2_models_report.safetensors")
    else:
        report = study.run_named("report CNN").load_model()
    alpha = vivid_alpha(1.0, study.table("vividness"))
    vivid = colorize(best, few, vivid_bias(study.table("frequency"), alpha))
    rows = {
        "grey": few.grey,
        "truth": few.images,
        "reference": colorize(report, few)["annealed mean"],
        "ours": colorize(best, few)["annealed mean"],
        "ours, vivid": vivid["annealed mean"],
    }
    accuracy = metrics.score(best, few, data.palette)["accuracy"]
    classes = [data.names[label] for label in few.labels]
    return rows, [f"{name}\n{own:.0%}" for name, own in zip(classes, accuracy, strict=True)]
