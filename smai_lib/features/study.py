"""The study of feature maps: what each block of trained backbones holds, and each channel is worth.

It trains nothing. The networks are the chosen run of `q1_published` (network B) and the shipped
backbones of `q1_lambda`.
"""

from functools import partial

import pandas as pd

from ..core.study import Study
from ..multitask.data import FashionMNIST, Split
from ..multitask.model import MultiTaskCNN
from ..multitask.plots import format_ratio
from ..multitask.studies import (
    LAMBDA_RATIOS,
    all_data,
    backbone,
    lambda_config,
    lambda_study,
    published_configs,
)
from .maps import ablate
from .probes import probe_blocks

FITTED = 1500  # training images that a probe is fitted to
QUICK_IMAGES = (300, 1200, 100)  # under the profile "quick"; probes take a minute with all
RATIO_SEEDS = (0, 1)  # seeds whose backbones are shipped


class FeatureStudy(Study):
    """Tables about feature maps; the results are linear probes of every block.

    Args:
        profile: "recorded" reads its tables; otherwise they are computed, in minutes.
        seed: first seed of the networks of `q1_published`.
        data: data set, by default Fashion-MNIST.
    """

    def __init__(self, profile: str, seed: int, data: FashionMNIST | None):
        tables = {"channels": compute_channels, "ratios": compute_ratios}
        load_data = partial(_load_data, profile, data)
        super().__init__("q1_features", profile, [], load_data, tables=tables)
        del self.table_functions["history"]  # nothing is trained
        self.networks_study = published_configs(profile, seed, data)
        self.seed = seed

    def run(self, **where) -> None:
        """Train the networks if need be; `full` also publishes the tables."""
        self.networks_study.run(**where)
        if self.profile == "full":
            self.publish()

    def networks(self) -> dict[str, MultiTaskCNN]:
        """Return the trained network, and one of the same shape with its initial weights."""
        # the ink target does not matter here, and the published one would warn
        config = self.networks_study.best_run.config.replace(ink_target="augmented")
        _, untrained = config.build(self.data, self.seed)
        return {"trained": self.networks_study.best_network(), "untrained": untrained.eval()}

    def compute_results(self) -> pd.DataFrame:
        """Return linear probes of the pixels and of every block, a row a representation."""
        splits = probe_splits(self.data)
        table = probe_blocks(self.networks(), splits)
        return table.assign(fitted=len(splits[0].labels), measured=len(splits[2].labels))


def _load_data(profile: str, data: FashionMNIST | None) -> FashionMNIST:
    data = data or all_data()
    return data.take(*QUICK_IMAGES) if profile == "quick" else data


def take(split: Split, first: int, last: int) -> Split:
    """Return the images `first` to `last` of a split."""
    return Split(*(column[first:last] for column in split))


def probe_splits(data: FashionMNIST) -> tuple[Split, Split, Split]:
    """Return images to fit probes on, to choose their penalty on, and to measure them on."""
    sixth = len(data.validation.labels) // 6
    return (
        take(data.train, 0, FITTED),
        take(data.validation, 0, sixth),
        take(data.validation, sixth, 4 * sixth),
    )


def compute_channels(study: FeatureStudy) -> pd.DataFrame:
    """Return what the network loses without each channel, on two halves of 1,000 images.

    Returns:
        The rows of `maps.ablate`, with the number of the `half`.
    """
    network = study.networks()["trained"]
    middle = len(study.data.validation.labels) // 12
    tables = []
    for half in (1, 2):
        images = take(study.data.validation, (half - 1) * middle, half * middle)
        tables.append(ablate(network, images).assign(half=half))
    return pd.concat(tables, ignore_index=True)


def compute_ratios(study: FeatureStudy) -> pd.DataFrame:
    """Return probes of the backbones trained with each ratio of the loss weights, two seeds each.

    Returns:
        The rows of `probes.probe_blocks` with `ratio` ("untrained" for the initial weights) and
        `seed`.
    """
    tables = []
    for seed in RATIO_SEEDS:
        _, untrained = lambda_config(1.0, ink_scaling="z_score").build(study.data, seed)
        networks = {"untrained": untrained.eval()}
        for ratio in LAMBDA_RATIOS:
            networks[format_ratio(ratio)] = backbone(lambda_study(), f"z_score {ratio:g}", seed)
        probed = probe_blocks(networks, probe_splits(study.data)).query("layer != 'pixels'")
        tables.append(probed.rename(columns={"network": "ratio"}).assign(seed=seed))
    return pd.concat(tables, ignore_index=True)
