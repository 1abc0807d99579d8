"""What a reader tries: a run of one's own beside the recorded ones, and a picture of one's own in colour."""

import argparse
import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from .colorization import figures as color_figures
from .colorization import images, palette
from .colorization.data import prepare
from .colorization.studies import REPORT_CNN, color_models
from .colorization.sweep import sweep_data
from .core import paths, plotting, runs
from .multitask import spread
from .multitask.fashion_mnist import fashion_mnist
from .multitask.figures import tick
from .multitask.studies import lambda_config, lambda_study

# what is trained where nothing else is asked: the lambda study's network at equal weights; the report's
BASES = {"q1": lambda_config(1.0), "q2": REPORT_CNN}
DATA = {
    "q1": lambda config: fashion_mnist(),
    "q2": lambda config: (
        sweep_data()
        if config.num_colors == len(palette.SUPPLIED)
        else prepare(images.color_images(), config.num_colors)
    ),
}
REPORTED = {"q1": ("test_accuracy", "test_rmse"), "q2": ("test_accuracy", "test_nll")}


def add_keys(parser: argparse.ArgumentParser, task: str) -> None:
    """Every key of the task's config as an option, with its type, default and meaning."""
    for field in fields(BASES[task]):
        default = getattr(BASES[task], field.name)
        kind = (
            {"action": argparse.BooleanOptionalAction}
            if field.type is bool
            else {"type": field.type, "metavar": field.type.__name__}
        )
        parser.add_argument(
            f"--{field.name}",
            default=default,
            **kind,
            help=f"{field.metadata.get('meaning', '')} (default: {default})".replace("%", "%%"),
        )


def train(task: str, *, seed: int = 0, n_images: int = 0, **keys) -> runs.RunSpec:
    """Train, or look up, the run of the task's base configuration with further `keys`, showing a bar.

    Args:
        task: "q1" or "q2".
        n_images: the first so many training images, and a sixth as many to validate and to test; 0 is all.

    Raises:
        ConfigError: a key that is unknown, or a value out of range.
    """
    base = BASES[task].to_dict()
    config = BASES[task].from_dict(base | keys)
    data = DATA[task](config)
    if 0 < n_images < len(data.train.images):
        data = data.subset(n_images, n_images // 6, n_images // 6)
    name = (
        ", ".join(f"{key} {value}" for key, value in config.to_dict().items() if value != base[key])
        or "base"
    )
    spec = runs.RunSpec(
        name,
        f"{task}_own",
        config,
        seed,
        data.fingerprint,
        paths.runs_dir() / "own" / f"{task}_own",
    )
    runs.run_all([spec], data, engine="serial")
    return spec


def among(spec: runs.RunSpec) -> np.ndarray:
    """Axes of a finished Q1 run among the recorded ones of its ratio of lambdas, or of the two nearest."""
    study, images = lambda_study(), spec.folder.result()["train_images"]
    groups, labels, frames = {}, {}, []
    near = spread.neighbours(spec.config, study).groupby("ratio")
    for color, (ratio, rows) in zip(("C0", "C1"), near, strict=False):
        frames.append(rows.assign(name=tick(ratio) + "/" + rows["seed"].astype(str)))
        names = frames[-1]["name"].unique()
        groups |= dict.fromkeys(names, color)
        labels |= dict.fromkeys(names, "_") | {
            names[0]: f"recorded, lambda2 / lambda1 = {tick(ratio)}"
        }  # a legend of two
    frames.append(spec.folder.history().assign(name="this run"))
    shown = {metric: label for metric, label in spread.METRICS.items() if metric.startswith("val")}
    grid = plotting.curves(pd.concat(frames), shown, groups | {"this run": "black"}, labels=labels)
    plotting.caption(
        grid[0, 0].figure, f"This run: {spec.name}, {images:,} images. Recorded: {study.caption()}"
    )
    return grid


def summary(spec: runs.RunSpec) -> list[str]:
    """Three lines: what the run found, where it stands (for Q1 drawn, too), and where it is kept."""
    result, task = spec.folder.result(), spec.study[:2]
    metrics, images = result["metrics"], result["train_images"]
    standing = f"lowest validation loss {metrics['best_val_loss']:.4f}, after epoch {metrics['best_epoch']}"
    if task == "q1":
        among(spec)[0, 0].figure.savefig(file := spec.folder.path / "among.png", dpi=150)
        standing += f"; drawn among recorded runs: {file}"
        if len(spread.alike(spec.config, study := lambda_study())):
            placed = spread.place(spec.folder.history(), spec.config, study, train_images=images)
            standing = f"{' '.join(placed.words)} {standing}"
    found = ", ".join(f"{key} {metrics[key]:.4f}" for key in REPORTED[task])
    return [
        f"{found}; epochs {spec.config.epochs}, images {images:,}, seconds {result['seconds']:.0f}",
        standing,
        f"record: {spec.folder.path}",
    ]


def color(
    picture: str | os.PathLike, file: str | os.PathLike | None = None
) -> tuple[Figure, Path, Path]:
    """Colour any picture by the shipped network, into `file`, by default NAME_colored.png in the current folder.

    Returns the original, grey and coloured picture side by side, `file`, and where the former was saved beside it.

    Raises:
        UnusableImageError: what is no picture, or too large; see `images.open_picture`.
    """
    file = Path(file or f"{Path(picture).stem}_colored.png")
    original = images.open_picture(picture)
    colored = palette.color_picture(color_models().best_network(), original)
    Image.fromarray(colored.permute(1, 2, 0).numpy()).save(file)
    columns = {
        "original": original,
        "grey": palette.grey_of(original[None])[0],
        "coloured": colored,
    }
    figure = (
        color_figures.pictures({title: image[None] for title, image in columns.items()}, width=5)
        .flat[0]
        .figure
    )
    compared = file.with_name(f"{file.stem}_compared.png")
    figure.savefig(compared, dpi=200)
    return figure, file, compared
