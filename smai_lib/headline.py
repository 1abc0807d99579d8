"""README's tables, written from the shipped results."""

import re

from . import studies
from .core import paths
from .multitask.fashion_mnist import CLASSES

README = paths.ROOT / "README.md"
HEADLINE = re.compile(r"(<!-- headline:.*?-->\n)(.*?)(<!-- /headline -->)", re.DOTALL)


def headline() -> str:
    """README's tables, from the shipped results: ours beside the reference report's and no network's."""
    return f"{_headline_q1()}\n{_headline_q2()}"


def _headline_q1() -> str:
    study = studies.ten_configs("recorded")
    results = study.results().set_index("name")
    baselines = study.ink_baselines().set_index("ink predicted by")["rmse"]
    lines = ["| Q1: accuracy | report, validation | here, validation | here, test | ink RMSE, test |",
             "|---|---|---|---|---|"]
    names = dict.fromkeys([*studies.REPORTED_VAL_ACCURACY, study.best()])
    for name in names:
        row = results.loc[name]
        reported = studies.REPORTED_VAL_ACCURACY.get(name)
        lines.append(
            f"| {name}{' (best of the ten on validation)' if name == study.best() else ''} "
            f"| {f'{100 * reported:.2f} %' if reported else 'not given'} | {100 * row['val_accuracy']:.2f} % "
            f"| {100 * row['test_accuracy']:.2f} % | {row['test_rmse']:.4f} |"
        )
    recipes = {"our recipe": studies.best_recipe("recorded", data=study.data),
               "our recipe, refitted on validation images too": studies.refitted_recipe("recorded", data=study.data)}
    for name, recipe in recipes.items():
        mean = recipe.summary().iloc[-1]
        validation = _percent(mean, "val_accuracy") if "val_accuracy" in mean else ""
        lines.append(f"| {name} | | {validation} | {_percent(mean, 'test_accuracy')} | {mean['test_rmse']:.4f} |")
    chance = f"{100 / len(CLASSES):.2f} %"  # the splits are stratified
    lines.append(f"| guessing one class; the mean ink | | {chance} | {chance} "
                 f"| {baselines['constant (training mean)']:.4f} |")
    lines.append(f"| the true class's mean ink | | | | {baselines['mean of the true class']:.4f} |")
    lines.append(f"| `x.mean()` | | | | {baselines['x.mean()']:.4f} |")
    seeds, (plain, refitted) = int(mean["seeds"]), (recipe.caption() for recipe in recipes.values())
    return "\n".join(lines) + (
        f"\n\nConfigurations: {study.caption()}; one run each.\n\nRecipe, on config 1's backbone: {plain}. "
        f"Refitted: {refitted}. Mean ± standard deviation of {seeds} seeds, image and mirror image averaged.\n")


def _percent(row, column: str) -> str:
    return f"{100 * row[column]:.2f} ± {100 * row[f'{column} sd']:.2f} %"


def _headline_q2() -> str:
    study = studies.color_models("recorded")
    lines = ["| Q2: pixel accuracy / NLL | report, validation | here, validation | here, test |", "|---|---|---|---|"]

    def cell(row, split):
        return f"{100 * row[f'{split}_accuracy']:.2f} % / {row[f'{split}_nll']:.3f}"

    for row in study.baselines().to_dict("records"):
        lines.append(f"| {row['name']}, no network | | {cell(row, 'val')} | {cell(row, 'test')} |")
    runs = study.results()
    for name, metrics in runs.groupby("name", sort=False):
        mean = metrics.mean(numeric_only=True)
        mean = {key.replace("mirror_", ""): value for key, value in mean.items() if "_mirror_" in key}
        published = studies.REPORTED_VALIDATION
        reported = f"{100 * published['accuracy']:.2f} % / {published['nll']}" if name == "report CNN" else ""
        lines.append(f"| {name} | {reported} | {cell(mean, 'val')} | {cell(mean, 'test')} |")
    return "\n".join(lines) + (f"\n\n{study.caption()}; networks: mean of {runs['seed'].nunique()} seeds, "
                               "image and mirror image averaged.\n")


def refresh_readme() -> None:
    """Write `headline()` between README's markers."""
    text = README.read_text()
    README.write_text(HEADLINE.sub(lambda match: match[1] + headline() + match[3], text))
