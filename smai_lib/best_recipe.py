"""How good the reference report's own backbone can get in its own 20 epochs, and which ingredient gave what."""

from pathlib import Path

import pandas as pd
from scipy import stats

from . import paths
from .config import RecipeConfig
from .data import FashionMNIST, fashion_mnist
from .multitask_studies import QUICK_EPOCHS, QUICK_IMAGES, TEN_CONFIGS
from .runs import RunSpec
from .study import Study, check_profile, refuse_sample

# config 1's network: 3 blocks, 32 base filters, two heads. All else was chosen on validation.
BEST = RecipeConfig.from_dict(TEN_CONFIGS["config 1"].to_dict() | {
    "optimizer": "AdamW", "learning_rate": 3e-3, "schedule": "one_cycle", "weight_decay": 0.05,
    "label_smoothing": 0.1, "mirror": True, "shift": 2, "average_decay": 0.998,
    "ink_scaling": "z_score", "lambda2": 3.0,
})  # fmt: skip
# what each row of the ablation table takes back to config 1's value
WITHOUT = {
    "schedule": ("schedule", "learning_rate"),
    "mirroring": ("mirror",),
    "shifts": ("shift",),
    "label smoothing": ("label_smoothing",),
    "weight averaging": ("average_decay",),
    "z-scored ink": ("ink_scaling", "lambda2"),
}
SEEDS = 5
ACCURACY = "mirror_accuracy"  # with test-time mirroring; after "val_" or "test_"


class BestRecipe(Study):
    """The recipe with several seeds; beside it, with the first seed, each ingredient left out and the plain run."""

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
                row[column.replace(infix, "")] = runs[column].mean()
                row[column.replace(infix, "") + " sd"] = runs[column].std()
            rows.append(row)
        return pd.DataFrame(rows)

    def ablation(self) -> pd.DataFrame:
        """What each ingredient gave: one row a run that lacks it, against the recipe.

        Columns: accuracy and ink RMSE (test, mirrored), their differences `accuracy_loss` and `rmse_loss`
        from the recipe's mean (above 0: worse without), and `beyond_seeds`: which of the two lie
        outside the 95 % prediction interval for one more run of the recipe (Student's t), so that
        another seed does not explain them.
        """
        recipe, results = self._recipe(), self.results()
        rows = []
        for name, runs in results[results["name"] != self.best()].groupby("name", sort=False):
            row, beyond = {"run": name}, []
            for column, label, sign in ((f"test_{ACCURACY}", "accuracy", -1), ("test_mirror_rmse", "rmse", 1)):
                loss = sign * (runs[column].mean() - recipe[column].mean())
                row |= {label: runs[column].mean(), f"{label}_loss": loss}
                n = len(recipe)
                if n > 1 and abs(loss) > stats.t.ppf(0.975, n - 1) * recipe[column].std() * (1 + 1 / n) ** 0.5:
                    beyond.append(label)
            rows.append(row | {"beyond_seeds": ", ".join(beyond) or "neither"})
        return pd.DataFrame(rows)

    def _recipe(self) -> pd.DataFrame:
        results = self.results()
        return results[results["name"] == self.best()]

    def weights(self) -> dict[str, Path]:
        """The recipe's run that is best on validation."""
        runs = [spec for spec in self.specs if spec.name == self.best()]
        chosen = max(runs, key=lambda spec: self.result(spec)["metrics"][f"val_{ACCURACY}"])
        return {"_best": chosen.folder.weights_file}


def best_recipe(profile: str = "recorded", seed: int = 0, data: FashionMNIST | None = None) -> BestRecipe:
    """The recipe over five seeds, and its ablations."""
    check_profile(profile)
    data = data or fashion_mnist()
    plain = TEN_CONFIGS["config 1"].to_dict()
    default = RecipeConfig.from_dict(plain)
    ablations = {f"without {name}": {key: getattr(default, key) for key in keys} for name, keys in WITHOUT.items()}
    configs = {name: RecipeConfig.from_dict(BEST.to_dict() | changes) for name, changes in ablations.items()}
    configs = {BestRecipe.name_of_best: BEST, "config 1, nothing added": default} | configs
    if profile == "quick":
        data = data.subset(*QUICK_IMAGES)
        configs = {name: RecipeConfig.from_dict(config.to_dict() | {"epochs": QUICK_EPOCHS})
                   for name, config in configs.items()}  # fmt: skip
    refuse_sample(profile, data, "see `python -m smai_lib fetch`")
    root = paths.runs_dir() / profile / "q1_best"
    seeds = {BestRecipe.name_of_best: SEEDS if profile != "quick" else 1}
    specs = [RunSpec(name, "q1_best", config, seed + offset, data.fingerprint, root)
             for name, config in configs.items() for offset in range(seeds.get(name, 1))]  # fmt: skip
    return BestRecipe("q1_best", profile, specs, data)
