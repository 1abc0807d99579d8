"""How good the reference report's own backbone can get in no more than its 20 epochs, and which ingredient gave what."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from ..core.runs import RunSpec
from ..core.significance import prediction_half_width
from ..core.study import Study, assemble
from .config import MultiTaskConfig
from .fashion_mnist import FashionMNIST
from .studies import TEN_CONFIGS, few_images

# config 1's network: 3 blocks, 32 base filters, two heads. All else was chosen on validation, in single
# runs: shifted or partly erased images, mixup, the answers of a teacher, batches of 64 and
# six times the weight decay were no better there; kernels of 5 pixels, overlapping pools and more
# dropout were behind when they were stopped.
PLAIN = TEN_CONFIGS["config 1"]
BEST = replace(
    PLAIN, optimizer="AdamW", learning_rate=3e-3, schedule="one_cycle", weight_decay=0.05,
    label_smoothing=0.1, mirror=True, average_decay=0.998, ink_scaling="z_score", lambda2=3.0,
    ceil_mode=True, hidden=96)  # narrower heads pay for the larger maps: below 500,000 parameters
# what each row of the ablation table takes back to config 1's value
WITHOUT = {
    "schedule": ("schedule", "learning_rate"),
    "mirroring": ("mirror",),
    "label smoothing": ("label_smoothing",),
    "weight averaging": ("average_decay",),
    "z-scored ink": ("ink_scaling", "lambda2"),
    "the maps' border": ("ceil_mode", "hidden"),
}
SEEDS = 5
# label -> column, and whether more (1) or less (-1) is better; answers to one image, since a network that
# never saw a mirrored image has no good answer to one
MEASURED = {"accuracy": ("test_accuracy", 1), "rmse": ("test_rmse", -1)}


class BestRecipe(Study):
    """The recipe with several seeds; beside it, with the first seed, each ingredient left out."""

    name_of_best = "recipe"

    def best(self) -> str:
        """Name of the recipe's runs; it was chosen before them."""
        return self.name_of_best

    def summary(self) -> pd.DataFrame:
        """One row for plain and for mirrored test-time answers: mean and deviation over the recipe's seeds."""
        runs = self._recipe()
        rows = []
        for answer, infix in (("one image", ""), ("image and mirror image averaged", "mirror_")):
            row = {"answer": answer, "seeds": len(runs)}
            for column in (f"val_{infix}accuracy", f"test_{infix}accuracy", f"test_{infix}rmse"):
                if column in runs:
                    key = column.replace(infix, "")
                    row |= {key: runs[column].mean(), f"{key} sd": runs[column].std()}
            rows.append(row)
        return pd.DataFrame(rows)

    def ablation(self) -> pd.DataFrame:
        """What each ingredient gave: one row a run that lacks it, against the recipe.

        Columns: accuracy and ink RMSE (test, one image), their differences `accuracy_loss` and `rmse_loss`
        from the recipe's mean (above 0: worse without), and `beyond_seeds`: which of the two are
        larger than `reach`, so that another seed does not explain them.
        """
        recipe, results, reach = self._recipe(), self.results(), self.reach()
        rows = []
        for name, runs in results[results["name"] != self.best()].groupby("name", sort=False):
            row = {"run": name}
            for label, (column, sign) in MEASURED.items():
                row |= {label: runs[column].mean(), f"{label}_loss": sign * (recipe[column].mean() - runs[column].mean())}
            beyond = [label for label in MEASURED if abs(row[f"{label}_loss"]) > reach[label]]
            rows.append(row | {"beyond_seeds": ", ".join(beyond) or "neither"})
        return pd.DataFrame(rows)

    def reach(self) -> dict[str, float]:
        """How far one more run of the recipe may lie from its mean, 95 % (Student's t); NaN with one seed."""
        recipe = self._recipe()
        return {label: prediction_half_width(recipe[column].std(), len(recipe))
                for label, (column, _) in MEASURED.items()}

    def _recipe(self) -> pd.DataFrame:
        results = self.results()
        return results[results["name"] == self.best()]

    def merit(self, spec: RunSpec) -> float:
        return self.result(spec)["metrics"]["val_mirror_accuracy"]


class Refitted(BestRecipe):
    """The recipe with validation images among the training images: nothing was left to choose.

    Published accuracies are mostly of networks trained on all 60,000. There is no validation then, so
    no column of it, and no weights are shipped.
    """

    def results(self) -> pd.DataFrame:
        return _without_validation(super().results())

    def history(self) -> pd.DataFrame:
        return _without_validation(super().history())

    def weights(self) -> dict[str, Path]:
        return {}


def best_recipe(profile: str = "recorded", seed: int = 0, data: FashionMNIST | None = None) -> BestRecipe:
    """The recipe over five seeds, and its ablations with the first."""
    ablations = {f"without {name}": replace(BEST, **{key: getattr(PLAIN, key) for key in keys})
                 for name, keys in WITHOUT.items()}
    wanted = _seeds(profile, seed) + [(name, config, seed) for name, config in ablations.items()]
    return assemble(BestRecipe, "q1_best", profile, wanted, lambda: few_images(profile, data))


def refitted_recipe(profile: str = "recorded", seed: int = 0, data: FashionMNIST | None = None) -> Refitted:
    """The recipe over five seeds, trained on training and validation images."""
    return assemble(Refitted, "q1_refitted", profile, _seeds(profile, seed), lambda: few_images(profile, data).refitted())


def _seeds(profile: str, seed: int) -> list[tuple[str, MultiTaskConfig, int]]:
    """The recipe's runs, as `assemble` wants them; one under `quick`."""
    return [(BestRecipe.name_of_best, BEST, seed + offset) for offset in range(1 if profile == "quick" else SEEDS)]


def _without_validation(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[[column for column in frame if not column.startswith(("val_", "best_val_"))]]
