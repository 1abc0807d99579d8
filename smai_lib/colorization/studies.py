"""The studies of Q2: the networks beside the answers that need none, and the search for hyper-parameters."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from ..core import checksums, paths
from ..core.config import require_number
from ..core.runs import RunSpec
from ..core.study import Study, assemble, loader, over_seeds
from . import metrics, tables
from .config import ColorizationConfig
from .data import ColorizationData, ColorSplit
from .metrics import Scores
from .model import Colorizer
from .palette import colored, decode
from .search import ColorSearch
from .space import Space
from .sweep import CONFIGS, sweep_data
from .tables import baselines, measured_baselines

TABLE = "luminance table"
COMPARED = (
    "accuracy",
    "nll",
    "balanced_accuracy",
    "psnr_grey",
    "colorfulness_mean",
)  # with intervals
EXTREMES = 3  # examples of the largest gain, and of failure, after one of each class

# the reference report's best network, as it was trained
REPORT_CNN = CONFIGS["run 10"]
_recipe = {
    "mirror": True,
    "schedule": "one_cycle",
    "optimizer": "AdamW",
    "learning_rate": 3e-3,
    "keep": "best",
}
# chosen by single short runs on validation, at five epochs each: a kernel of 5 with 48 filters before 3 with 64 and
# 7 with 32, which cost about the same
TUNED_CNN = ColorizationConfig(num_filters=48, kernel_size=5, batch_size=32, epochs=15, **_recipe)
CNN_PRIOR = ColorizationConfig(
    model="cnn_prior", num_filters=32, kernel_size=5, batch_size=32, epochs=8, **_recipe
)
# batches of 32 before 64, by a hair; shifts keep it from learning its images by heart before the 20th epoch, and beside
# them dropout of 0.1 only costs: 0.7950 nats on validation, mirrored, three seeds; more filters are better, and slower
UNET = ColorizationConfig(
    model="unet", num_filters=16, kernel_size=3, shift=4, batch_size=32, epochs=20, **_recipe
)

SEARCH_TRIALS = {"quick": 4, "full": 30}
SEARCH_EPOCHS = {
    "cnn": 4,
    "unet": 3,
}  # of a trial, so that sixty take less than half an hour of a core
SEARCH_IMAGES = {"quick": (1000, 300, 100), "full": (6000, 2000, 100)}
QUICK_EPOCHS = {"report CNN": 2, "tuned CNN": 1, "CNN + prior": 1, "U-Net": 2}
MODEL_SEEDS = 3


class ColorModels(Study):
    """The networks, several seeds each, beside the answers that need none.

    What compares images uses test-time mirroring for all alike; a table by grey level does not feel it.
    """

    @cached_property
    def scores(self) -> dict[str, Scores]:
        """Per-image values on the test images: of the baselines, and of each network the mean over seeds."""
        test, palette = self.data.test, self.data.palette
        found = {
            name: metrics.score(answer, test, palette)
            for name, answer in baselines(self.data).items()
        }
        for name in dict.fromkeys(spec.name for spec in self.specs):
            found[name] = metrics.mean_scores(
                [
                    metrics.score(self.network(spec), test, palette, mirror=True)
                    for spec in self.specs
                    if spec.name == name
                ]
            )
        return found

    def network(self, spec: RunSpec) -> torch.nn.Module:
        """The trained network of a finished run."""
        self.result(spec)
        return spec.config.load(spec.weights_file)

    def baselines(self) -> pd.DataFrame:
        """One row an answer that needs no network: its metrics on validation and test."""
        return self.table("_baselines", lambda: measured_baselines(self.data))

    def summary(self, columns: Sequence[str]) -> pd.DataFrame:
        """A row a model, as text: the answers without a network, then networks as mean ± deviation over seeds.

        Args:
            columns: of `results`; where a name says mirror, an answer without a network, which does
                not feel it, shows its plain value.
        """
        rows = [
            {"model": row["name"]}
            | {key: f"{row[key.replace('mirror_', '')]:.4f}" for key in columns}
            for _, row in self.baselines().iterrows()
        ]
        for name, runs in self.results().groupby("name", sort=False):
            deviation = {
                key: f" ± {runs[key].std():.4f}" if len(runs) > 1 else "" for key in columns
            }
            rows.append(
                {"model": name}
                | {key: f"{runs[key].mean():.4f}{deviation[key]}" for key in columns}
            )
        return pd.DataFrame(rows)

    def intervals(self) -> pd.DataFrame:
        """Each metric of each model on test, and its difference from the table's, with 95 % intervals.

        Columns: name, metric, value, low, high, and the same of the paired `difference`.
        """
        return self.table("_intervals", self._intervals)

    def _intervals(self) -> pd.DataFrame:
        frames = []
        for name, scores in self.scores.items():
            own = metrics.bootstrap(scores).loc[list(COMPARED)]
            gap = metrics.bootstrap(scores, self.scores[TABLE]).loc[list(COMPARED)]
            gap.columns = ["difference", "difference_low", "difference_high"]
            frames.append(own.join(gap).reset_index().assign(name=name))
        return pd.concat(frames, ignore_index=True).set_index("name").reset_index()

    def images(self) -> pd.DataFrame:
        """One row a test image: its class, and accuracy and NLL of every model, so that any pair can be compared."""
        return self.table(
            "_images",
            lambda: pd.DataFrame(
                {"class": np.array(self.data.names)[self.data.test.labels]}
                | {
                    f"{metric}: {name}": scores.means[metric].round(4)
                    for name, scores in self.scores.items()
                    for metric in ("accuracy", "nll")
                }
            ),
        )

    def by_color(self) -> pd.DataFrame:
        """One row a model and true colour, test pixels: how many, accuracy and NLL."""
        return self.table(
            "_colors",
            lambda: pd.concat(
                (
                    pd.DataFrame(
                        {
                            "name": name,
                            "color": range(scores.counts.shape[1]),
                            "pixels": (pixels := scores.counts.sum(0)),
                            "accuracy": scores.correct.sum(0) / pixels,
                            "nll": scores.color_nll.sum(0) / pixels,
                        }
                    ).round(4)
                    for name, scores in self.scores.items()
                ),
                ignore_index=True,
            ),
        )

    def ceiling(self) -> pd.DataFrame:
        """See `tables.ceiling`."""
        return self.table("_ceiling", lambda: tables.ceiling(self.data))

    def best(self) -> str:
        """Name of the network with the lowest validation NLL, mean over seeds, test-time mirroring."""
        return self.results().groupby("name")["val_mirror_nll"].mean().idxmin()

    def merit(self, spec: RunSpec) -> float:
        return -self.result(spec)["metrics"]["val_mirror_nll"]

    def examples(self) -> dict[str, np.ndarray]:
        """A fixed choice of test images by column of a figure, (N, C, H, W) uint8, and their `titles`.

        One of each class, drawn at random; then those where the best network gains most on the table, and those
        where it is right least often.
        """
        if self.profile == "recorded":
            checksums.verify(shipped := paths.RESULTS / f"{self.name}_examples.npz")
            with np.load(shipped) as file:
                return dict(file)
        best, labels = self.best(), self.data.test.labels.numpy()
        right, by_table = (self.scores[name].means["accuracy"] for name in (best, TABLE))
        shuffled = np.random.default_rng(0).permutation(len(labels))
        drawn = shuffled[np.unique(labels[shuffled], return_index=True)[1]]
        chosen = np.concatenate(
            [drawn, np.argsort(by_table - right)[:EXTREMES], np.argsort(right)[:EXTREMES]]
        )
        few = ColorSplit(*(x[chosen] for x in self.data.test))
        columns = {
            "grey": few.grey,
            "truth": few.images,
            "in palette": decode(few.colors, self.data.palette),
        }
        table_model = Colorizer(baselines(self.data)[TABLE], self.data.palette)
        columns["table"] = colored(table_model, few)["most likely"]
        for name in dict.fromkeys(("report CNN", best)):
            shown = colored(self.network(self.best_spec(name)), few)
            columns[name] = shown["most likely"]
        columns[f"{best}, mean"] = shown["annealed mean"]
        groups = [
            *(self.data.names[label] for label in labels[drawn]),
            *["gain"] * EXTREMES,
            *["failure"] * EXTREMES,
        ]
        titles = [
            f"{group}\n{right[i]:.0%}, table {by_table[i]:.0%}"
            for group, i in zip(groups, chosen, strict=True)
        ]
        return {name: image.numpy() for name, image in columns.items()} | {
            "titles": np.array(titles)
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        return super().tables() | {
            "_baselines": self.baselines(),
            "_intervals": self.intervals(),
            "_images": self.images(),
            "_colors": self.by_color(),
            "_ceiling": self.ceiling(),
        }

    def publish(self) -> None:
        super().publish()
        np.savez_compressed(file := paths.RESULTS / f"{self.name}_examples.npz", **self.examples())
        checksums.record(file)

    def weights(self) -> dict[str, Path]:
        """The best network and the report's, in half precision: half the size, no digit that shows."""
        return {
            "_best": half(self.best_spec().weights_file),
            "_report": half(self.best_spec("report CNN").weights_file),
        }


def half(file: Path) -> Path:
    """A copy beside `file` whose floats, but for the palette's, have 16 bits; `ColorizationConfig.load` reads either."""
    target = file.with_name("half." + file.name)
    save_file(
        {
            name: value.half() if value.is_floating_point() and name != "palette" else value
            for name, value in load_file(file).items()
        },
        target,
    )
    return target


def search_spaces(profile: str) -> dict[str, Space]:
    """What is searched for the report's network and for ours; `quick` leaves out what is slow."""
    quick = profile == "quick"
    return {
        "cnn": Space(
            base=replace(REPORT_CNN, keep="last", epochs=2 if quick else SEARCH_EPOCHS["cnn"]),
            learning_rate=(3e-4, 1e-2),
            batch_size=(16, 32, 64, 128),
            num_filters=(16, 32) if quick else (8, 16, 32),
            kernel_size=(3, 5) if quick else (3, 5, 7),
        ),
        "unet": Space(
            base=replace(
                UNET, dropout_rate=0.1, keep="last", epochs=2 if quick else SEARCH_EPOCHS["unet"]
            ),
            learning_rate=(5e-4, 2e-2),
            batch_size=(32, 64, 128),
            num_filters=(8, 12, 16),
            kernel_size=(3,) if quick else (3, 5),
        ),
    }


def color_search(
    profile: str = "recorded", seed: int = 0, data: ColorizationData | None = None
) -> ColorSearch:
    """Optuna over the report's five hyper-parameters, for its network and for the U-Net, on the first images."""
    require_number("seed", seed, int)

    def load() -> ColorizationData:
        return (data or sweep_data()).subset(*SEARCH_IMAGES[profile])

    return ColorSearch(
        "q2_search",
        profile,
        search_spaces(profile),
        SEARCH_TRIALS.get(profile, 0),
        seed,
        loader(profile, load),
        paths.runs_dir() / profile / "q2_search",
    )


def color_models(
    profile: str = "recorded", seed: int = 0, data: ColorizationData | None = None
) -> ColorModels:
    """The report's network as it was, tuned, and with the prior; and the U-Net."""
    configs = {
        "report CNN": REPORT_CNN,
        "tuned CNN": TUNED_CNN,
        "CNN + prior": CNN_PRIOR,
        "U-Net": UNET,
    }
    wanted = over_seeds(configs, seed, 1 if profile == "quick" else MODEL_SEEDS)
    return assemble(
        ColorModels,
        "q2_models",
        profile,
        wanted,
        lambda: sweep_data(profile, data),
        quick_epochs=QUICK_EPOCHS,
    )
