"""The command `smai train q1|q2`, whose options are the keys of the task's config.

It is a module of its own because the configs import torch; `smai --help` does without.
"""

import inspect
from typing import Annotated

from cyclopts import App, Group, Parameter

from .cli import Whole
from .colorization.data import cifar10, prepare
from .colorization.images import color_images
from .colorization.palette import SUPPLIED
from .colorization.studies import REPORT_CNN
from .core import plots
from .core.config import Config
from .core.data import Dataset
from .core.runs import train as train_run
from .core.tracking import requested_mode
from .multitask.data import fashion_mnist
from .multitask.placement import plot_among_recorded, summarize
from .multitask.studies import lambda_config, lambda_study

RUN = Group("Run", sort_key=0)
TRAINING = Group("Training", sort_key=1)
TASK = Group("Loss, images and network", sort_key=2)


Seed = Annotated[Whole, Parameter(help="seed of weights, order of images and dropout", group=RUN)]
Images = Annotated[
    Whole,
    Parameter(help="number of training images, for a quick try; 0: all of them", group=RUN),
]

train = App(name="train", help="Train a configuration of your own, resume it or look it up.")


def add_command(name: str, base: Config, help: str):
    """Add `smai train NAME` with an option for every key of `base`, which gives the defaults.

    The decorated function trains: it is called with the config, the seed and the number of images.
    """

    def decorate(function):
        def command(*, seed: Seed = 0, images: Images = 0, **keys):
            requested_mode()  # a bad WANDB_MODE is refused before the data are loaded
            function(base.replace(**keys), seed, images)

        options = [_option(key, base) for key in type(base).model_fields]
        first = list(inspect.signature(command).parameters.values())[:-1]
        command.__signature__ = inspect.Signature(first + options)
        train.command(command, name=name, help=help)
        return function

    return decorate


def _option(key: str, base: Config) -> inspect.Parameter:
    field = type(base).model_fields[key]
    group = TRAINING if key in Config.model_fields else TASK
    kind = Whole if field.annotation is int else field.annotation
    described = Annotated[kind, Parameter(help=field.description, group=group)]
    return inspect.Parameter(
        key, inspect.Parameter.KEYWORD_ONLY, default=getattr(base, key), annotation=described
    )


def _take(data: Dataset, images: int) -> Dataset:
    """Return the first images, or all, which are the data set itself."""
    return data.take(images) if images < len(data.train[0]) else data


@add_command("q1", lambda_config(1.0), "Train a multi-task network on Fashion-MNIST.")
def train_q1(config: Config, seed: int, images: int) -> None:
    """Train a multi-task run, print its placement among recorded runs, and plot it there."""
    for table in ("results", "history"):
        lambda_study().table(table)  # damaged records are refused before the training
    run = train_run(config, _take(fashion_mnist(), images), seed)
    picture = run.folder / "among_recorded.png"
    with plots.style():
        plot_among_recorded(run).savefig(picture)
    print("\n".join([*summarize(run), f"plotted among recorded runs: {picture}"]))


@add_command("q2", REPORT_CNN, "Train a colorization network on CIFAR-10.")
def train_q2(config: Config, seed: int, images: int) -> None:
    """Train a colorization run and print its results."""
    if config.num_colors == len(SUPPLIED):
        data = cifar10()
    else:
        data = prepare(color_images(), config.num_colors)
    run = train_run(config, _take(data, images), seed)
    metrics = run.metrics
    print(
        f"test_accuracy {metrics['test_accuracy']:.4f}, test_nll {metrics['test_nll']:.4f}; "
        f"epochs {config.epochs}, lowest validation loss {metrics['best_val_loss']:.4f} after "
        f"epoch {metrics['best_epoch']}\nrecord: {run.folder}"
    )
