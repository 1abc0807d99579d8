"""README's tables, written from the shipped results."""

import re
from collections.abc import Iterable, Sequence

from . import studies
from .core import paths
from .multitask.fashion_mnist import CLASSES

README = paths.ROOT / "README.md"
HEADLINE = re.compile(r"(<!-- headline:.*?-->\n)(.*?)(<!-- /headline -->)", re.DOTALL)


def headline() -> str:
    """README's tables, from the shipped results: ours beside the reference report's and no network's."""
    return f"{_multitask()}\n{_sweep()}\n{_horses()}"


def _multitask() -> str:
    study = studies.ten_configs("recorded")
    results = study.results().set_index("name")
    baselines = study.ink_baselines().set_index("ink predicted by")["rmse"]
    rows = []
    for name in dict.fromkeys([*studies.REPORTED_VAL_ACCURACY, study.best()]):
        row = results.loc[name]
        rows.append((name + " (best of the ten on validation)" * (name == study.best()),
                     _percent(studies.REPORTED_VAL_ACCURACY.get(name)), _percent(row["val_accuracy"]),
                     _percent(row["test_accuracy"]), f"{row['test_rmse']:.4f}"))
    recipes = {"our recipe": studies.best_recipe(), "our recipe, refitted on validation images too": studies.refitted_recipe()}
    for name, recipe in recipes.items():
        mean = recipe.summary().iloc[-1]
        rows.append((name, "", *(_percent(mean.get(key), mean.get(f"{key} sd")) for key in ("val_accuracy", "test_accuracy")),
                     f"{mean['test_rmse']:.4f}"))
    chance = _percent(1 / len(CLASSES))  # the splits are stratified
    rows += [("guessing one class; the mean ink", "", chance, chance, f"{baselines['constant (training mean)']:.4f}"),
             ("the true class's mean ink", "", "", "", f"{baselines['mean of the true class']:.4f}"),
             ("`x.mean()`", "", "", "", f"{baselines['x.mean()']:.4f}")]
    plain, refitted = (recipe.caption() for recipe in recipes.values())
    return _table(("Q1: accuracy", "report, validation", "here, validation", "here, test", "ink RMSE, test"), rows, (
        f"Configurations: {study.caption()}; one run each. The report's figures are of the same configurations in another "
        "network, with average pooling and dropout after every block, on a split of its own; the best of them is the best of 20 "
        f"epochs, ours are last epochs.\n\nRecipe, on config 1's backbone: {plain}. Refitted: {refitted}. Mean ± standard "
        f"deviation of {int(mean['seeds'])} seeds, image and mirror image averaged."))


def _sweep() -> str:
    study = studies.color_sweep()
    results, best = study.results().set_index("name"), study.best()
    compared, agreement = study.comparison().set_index("run").loc[best], study.agreement()
    rows = [(f"{row['name']}, no network", "", _both(row["val_accuracy"], row["val_nll"]),
             _both(row["test_accuracy"], row["test_nll"])) for row in study.baselines().to_dict("records")]
    rows.append((f"the report's best network ({best}), last epoch", _both(compared["published_accuracy"], compared["published_nll"]),
                 _both(compared["accuracy"], compared["nll"]), ""))
    rows.append(("the same, epoch of lowest validation loss", f"{studies.BEST_PUBLISHED}", f"{compared['best_nll']:.3f}",
                 _both(*results.loc[best, ["test_accuracy", "test_nll"]])))
    return _table(("Q2, the assignment's task: pixel accuracy / NLL", "report, validation", "here, validation", "here, test"), rows, (
        f"All of CIFAR-10 in the 24 supplied colours, as the report had it, on a split of our own. {study.caption()}. Of its 21 runs "
        f"{agreement['runs']} are trained again so far: rank correlation of the validation losses "
        f"{agreement['rank_correlation']:.3f}, mean absolute difference {agreement['mean_absolute_difference']:.3f}."))


def _horses() -> str:
    study = studies.color_models()
    runs = study.results()
    rows = [(f"{row['name']}, no network", _both(row["val_accuracy"], row["val_nll"]), _both(row["test_accuracy"], row["test_nll"]))
            for row in study.baselines().to_dict("records")]
    for name, values in runs.groupby("name", sort=False):
        mean = values.mean(numeric_only=True)
        rows.append((name, *(_both(mean[f"{split}_mirror_accuracy"], mean[f"{split}_mirror_nll"]) for split in ("val", "test"))))
    return _table(("Q2, horses alone: pixel accuracy / NLL", "here, validation", "here, test"), rows, (
        "Another task: one class of CIFAR-10, in 24 colours of its own; no figure of the report belongs here. "
        f"{study.caption()}; networks: mean of {runs['seed'].nunique()} seeds, image and mirror image averaged."))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + f"\n\n{caption}\n"


def _percent(share: float | None, deviation: float | None = None) -> str:
    """Empty where there is nothing to say."""
    if share is None:
        return ""
    return f"{100 * share:.2f} %" if deviation is None else f"{100 * share:.2f} ± {100 * deviation:.2f} %"


def _both(accuracy: float, nll: float) -> str:
    return f"{100 * accuracy:.2f} % / {nll:.3f}"


def refresh_readme() -> None:
    """Write `headline()` between README's markers."""
    text = README.read_text()
    README.write_text(HEADLINE.sub(lambda match: match[1] + headline() + match[3], text))
