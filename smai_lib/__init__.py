"""Multi-task Fashion-MNIST and CIFAR-10 colorization: the library of the notebooks.

Three ideas hold it together:

- A *config* says what to train: `smai.multitask.Config`, `smai.colorization.Config`.
- A *run* is a config, a data set and a seed: `smai.train` trains it, resumes it or looks it up.
- A *study* is a list of runs with a name and its results: `smai.load_study`.

Example:
    >>> import smai_lib as smai
    >>> config = smai.multitask.Config(lambda1=2.0, epochs=2)
    >>> data = smai.fashion_mnist().take(2000)
    >>> run = smai.train(config, data, seed=0)
    >>> run.metrics["val_accuracy"], run.history, run.load_model()
    >>> study = smai.load_study("q1_lambda")
    >>> study.results.groupby("ratio")["test_accuracy"].mean()
"""

from importlib import import_module
from importlib.metadata import version

__version__ = version("smai-lib")

# Imported on first use, so that commands and worker processes load only what they need.
_PUBLIC = {
    "fashion_mnist": "multitask.data",
    "cifar10": "colorization.data",
    "train": "core.runs",
    "load_study": "studies",
    "color": "colorization.coloring",
    "claims": "claims",
    "multitask": "multitask",
    "colorization": "colorization",
    "SmaiError": "core.errors",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str):
    """Import a public name on its first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_PUBLIC[name]}")
    value = getattr(module, name, module)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
