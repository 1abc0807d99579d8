"""What grey alone tells of the colour: tables of log-probabilities by grey level, the answers that need no network.

A table is evaluated exactly like a network, and can stand beneath one as its prior.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from . import metrics
from .data import ColorizationData, ColorSplit
from .palette import GREY_LEVELS, encode

SMOOTHING = 1.0  # pixels' worth of the coarser distribution added to a grey level's counts
ROW_SMOOTHING = 50.0  # likewise to a row's; a row has a 32nd of the pixels


class GreyTable(nn.Module):
    """Log-probabilities of the colours by grey level, and by row where the table has rows.

    Args:
        log_probs: (R, 256, NC) float32; R is 1, or the height of the images.
    """

    def __init__(self, log_probs: torch.Tensor):
        super().__init__()
        self.register_buffer("log_probs", log_probs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """images (B, 1, H, W) of whole grey levels over 255 -> log-probabilities (B, NC, H, W).

        Raises:
            ValueError: a table with rows meets images of another height.
        """
        rows, height = len(self.log_probs), images.shape[2]
        if rows not in (1, height):
            raise ValueError(f"the table has {rows} rows, expected {height}, the images' height")
        cell = (
            images[:, 0].mul(255).round().long()
            + torch.arange(rows, device=images.device).view(1, rows, 1) * GREY_LEVELS
        )
        return F.embedding(cell, self.log_probs.flatten(0, 1)).permute(
            0, 3, 1, 2
        )  # channels last; indexing is slower


def baselines(data: ColorizationData) -> dict[str, GreyTable]:
    """The answers to beat, by name, all fitted to the training pixels.

    The nearest centre to the grey value (g, g, g) names one colour without a probability; it is
    given that of being right on a training pixel, and the other colours share the rest.
    """
    train, num_colors = data.train, len(data.palette)
    constant = majority(train.colors, num_colors).expand(1, GREY_LEVELS, num_colors)
    levels = torch.arange(GREY_LEVELS, dtype=torch.uint8).view(1, 1, 1, -1).expand(1, 3, 1, -1)
    nearest = encode(levels, data.palette).flatten().long()  # (256,)
    right = (nearest[train.grey[:, 0].long()] == train.colors).double().mean()
    centre = F.one_hot(nearest, num_colors).double()
    centre = centre * right + (1 - centre) * (1 - right) / (num_colors - 1)
    return {
        "majority colour": GreyTable(constant.log().float()),
        "nearest centre to the grey value": GreyTable(centre[None].log().float()),
        "luminance table": luminance_table(train.grey, train.colors, num_colors),
        "luminance and row table": row_table(train.grey, train.colors, num_colors),
    }


def majority(colors: torch.Tensor, num_colors: int) -> torch.Tensor:
    """Smoothed share of each colour among the pixels, (NC,) float64."""
    counts = torch.bincount(colors.flatten(), minlength=num_colors).double() + 1
    return counts / counts.sum()


def luminance_table(grey: torch.Tensor, colors: torch.Tensor, num_colors: int) -> GreyTable:
    """Frequency of each colour by grey level: what a pixel's own luminance tells.

    Args:
        grey: (N, 1, H, W) uint8; training images only.
        colors: (N, H, W) uint8, their indices.
    """
    counts = _counts(grey, colors, num_colors, rows=1)
    return _table(counts, majority(colors, num_colors), SMOOTHING)


def row_table(grey: torch.Tensor, colors: torch.Tensor, num_colors: int) -> GreyTable:
    """The same by row and grey level, which knows that the sky is above."""
    by_level = luminance_table(grey, colors, num_colors).log_probs.double().exp()
    return _table(_counts(grey, colors, num_colors, rows=grey.shape[2]), by_level, ROW_SMOOTHING)


def _counts(grey: torch.Tensor, colors: torch.Tensor, num_colors: int, rows: int) -> torch.Tensor:
    """Pixels by row (1 takes all rows as one), grey level and colour: (rows, 256, NC) float64."""
    row = torch.arange(rows).view(1, rows, 1)
    cell = (row * GREY_LEVELS + grey[:, 0].long()) * num_colors + colors
    counts = torch.bincount(cell.flatten(), minlength=rows * GREY_LEVELS * num_colors)
    return counts.view(rows, GREY_LEVELS, num_colors).double()


def _table(counts: torch.Tensor, coarser: torch.Tensor, strength: float) -> GreyTable:
    """Log-probabilities from counts and `strength` further pixels of a coarser distribution."""
    probs = (counts + strength * coarser) / (counts.sum(-1, keepdim=True) + strength)
    return GreyTable(probs.log().float())


def measured_baselines(data: ColorizationData) -> pd.DataFrame:
    """One row an answer that needs no network: its metrics on validation and test."""
    splits = {"val_": data.validation, "test_": data.test}
    rows = {
        name: pd.concat(
            [
                metrics.score(answer, split, data.palette).metrics().add_prefix(prefix)
                for prefix, split in splits.items()
            ],
            axis=1,
        )
        for name, answer in baselines(data).items()
    }
    return pd.concat(rows, names=["name"]).reset_index("name").reset_index(drop=True)


def ceiling(
    data: ColorizationData,
    *,
    sizes: Sequence[int] = (1, 3, 5, 7),
    queries: int = 2000,
    most: int = 100_000,
    seed: int = 0,
) -> pd.DataFrame:
    """How far any answer may get that sees a grey patch: an estimate from pixels with nearly equal patches.

    Each test pixel asked about is paired with the training pixel of the same grey level whose patch is nearest
    (Euclidean); they share their colour in a share A of cases. With ever more training pixels 1 - A becomes the
    nearest-neighbour error R of Cover and Hart (1967), and no answer that sees just the patch is right more often
    than 1 - (1 - sqrt(1 - R C / (C - 1))) (C - 1) / C with C colours. The larger the patch, the less equal is the
    nearest one, which `distance` tells: A then is too low, though in truth it cannot fall with the size.

    Args:
        queries: test pixels asked about, drawn at random.
        most: training pixels of a grey level that are compared, drawn at random where there are more.

    Returns:
        A row a patch size: `size`, `agreement` A, `distance` (root mean square, in grey levels) and `ceiling`.
    """
    generator = torch.Generator().manual_seed(seed)
    asked = torch.stack(
        [torch.randint(n, (queries,), generator=generator) for n in data.test.colors.shape], 1
    )
    levels = data.test.grey[asked[:, 0], 0, asked[:, 1], asked[:, 2]]
    alike, squared = ({size: [] for size in sizes} for _ in range(2))
    for level in levels.unique():
        known = (data.train.grey[:, 0] == level).nonzero()  # (P, 3): image, row, column
        if not len(known):
            continue
        known = known[torch.randperm(len(known), generator=generator)[:most]]
        for size in sizes:
            (wanted, color), (patches, colors) = (
                _patches(split, pixels, size)
                for split, pixels in ((data.test, asked[levels == level]), (data.train, known))
            )
            distance, index = torch.cdist(wanted, patches).min(1)
            alike[size] += (colors[index] == color).tolist()
            squared[size] += (distance.square() / size**2).tolist()
    table = pd.DataFrame(
        {
            "size": sizes,
            "agreement": [np.mean(alike[size]) for size in sizes],
            "distance": [np.mean(squared[size]) ** 0.5 for size in sizes],
        }
    )
    share = 1 - 1 / len(data.palette)
    return table.assign(
        ceiling=1 - share * (1 - (1 - (1 - table["agreement"]) / share).clip(lower=0) ** 0.5)
    )


def _patches(
    split: ColorSplit, pixels: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Grey patches around `pixels` (P, 3), image, row and column; what lies outside is reflected. And their colours.

    Returns:
        (P, size^2) float32 and (P,) uint8.
    """
    image, row, column = pixels.unbind(1)
    reach = torch.arange(size) - size // 2
    height, width = split.grey.shape[-2:]
    rows, columns = (
        (n - 1) - ((n - 1) - (at[:, None] + reach).abs()).abs()
        for n, at in ((height, row), (width, column))
    )
    patches = split.grey[image[:, None, None], 0, rows[:, :, None], columns[:, None]]
    return patches.flatten(1).float(), split.colors[image, row, column]
