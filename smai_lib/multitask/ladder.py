"""From 89 % to our recipe, one change at a time: which decision cost what?

What a rung gives depends on the rungs below it, so the order is part of the answer. First what was wrong, the stale ink.
Then what the network can hold, since until it can learn its training images nothing else shows. Then which images it
sees, how it is trained and what it minimises; last the border of its maps, of use only to an otherwise good network.
"""

from dataclasses import replace

import pandas as pd

from ..core.significance import paired_differences
from ..core.study import Study, assemble, over_seeds
from .fashion_mnist import FashionMNIST
from .published import CONFIGS, PUBLISHED
from .recipe import BEST
from .studies import few_images

START = "config 1 as published"
RUNGS = {  # name -> the keys that take the recipe's value, here and above
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
LADDER = {START: CONFIGS["config 1"]}
for name, keys in RUNGS.items():
    LADDER[name] = replace(list(LADDER.values())[-1], **{key: getattr(BEST, key) for key in keys})
MEASURED = [
    "val_accuracy",
    "val_mirror_accuracy",
    "test_accuracy",
    "test_mirror_accuracy",
    "val_rmse",
    "test_rmse",
]
SEEDS = 3
MARGIN = 0.002  # of accuracy, which is smaller than two seeds differ by


class Ladder(Study):
    """Every rung with the same seeds."""

    def rungs(self, metric: str = "test_accuracy") -> pd.DataFrame:
        """One row a rung: means and deviations (`sd`) over seeds, and its step in `metric` from the rung before.

        Columns: `step` with its 95 % interval, paired by seed (`low`, `high`), the `verdict` of
        `significance.paired_differences`, and `share`, the part of the whole way that the step is.
        """
        results = self.results()
        table = results.groupby("name", sort=False)[MEASURED].agg(["mean", "std"])
        table.columns = [
            column + {"mean": "", "std": " sd"}[statistic] for column, statistic in table
        ]
        names = list(table.index)
        steps = paired_differences(
            results, metric, list(zip(names[1:], names, strict=False)), margin=MARGIN
        )
        steps = steps.set_index("first").rename(columns={"difference": "step"})[
            ["step", "low", "high", "verdict"]
        ]
        whole = table[metric].iloc[-1] - table[metric].iloc[0]
        return (
            table.join(steps.assign(share=steps["step"] / whole)).rename_axis("rung").reset_index()
        )

    def explained(self, metric: str = "test_accuracy") -> float:
        """How much of the way from config 1's published figure to the recipe the rungs are; the rest is not retraced.

        Above 1 where ours, as published, is the worse of the two.
        """
        found = self.rungs(metric)[metric]
        return (found.iloc[-1] - found.iloc[0]) / (
            found.iloc[-1] - PUBLISHED.loc["config 1", metric]
        )

    def weights(self) -> dict:
        """None: the recipe's ship with its own study."""
        return {}


def recipe_ladder(
    profile: str = "recorded", seed: int = 0, data: FashionMNIST | None = None
) -> Ladder:
    """Twelve configurations from config 1 as published to the recipe, three seeds each, two under `quick`."""
    wanted = over_seeds(LADDER, seed, 2 if profile == "quick" else SEEDS)
    return assemble(Ladder, "q1_ladder", profile, wanted, lambda: few_images(profile, data))
