"""Baselines that see one pixel's grey value: lookup tables of colour probabilities.

A table is evaluated exactly like a network. It can also be the prior of one.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from ..core.errors import ConfigError
from . import metrics
from .data import ColorizationData, ColorSplit
from .palette import GREY_LEVELS, encode

SMOOTHING = 1.0  # pixels of the coarser distribution that are added to a grey level's counts
ROW_SMOOTHING = 50.0  # likewise to a row's counts, which has a 32nd of the pixels


class GreyTable(nn.Module):
    """Log-probabilities of the colours by grey level, and by row where the table has rows.

    Args:
        log_probs: (R, 256, NC) float32; R is 1, or the height of the images.
    """

    def __init__(self, log_probs: torch.Tensor):
        super().__init__()
        self.register_buffer("log_probs", log_probs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (B, NC, H, W) of images (B, 1, H, W), grey levels over 255.

        Raises:
            ConfigError: a table with rows is given images of another height.
        """
        rows, height = len(self.log_probs), images.shape[2]
        if rows not in (1, height):
            raise ConfigError(f"images: found height {height}, but the table has {rows} rows")
        levels = images[:, 0].mul(255).round().long()
        row = torch.arange(rows, device=images.device).view(1, rows, 1)
        cells = levels + row * GREY_LEVELS
        # an embedding is channels last, and faster than indexing
        return F.embedding(cells, self.log_probs.flatten(0, 1)).permute(0, 3, 1, 2)


def baselines(data: ColorizationData) -> dict[str, GreyTable]:
    """Return the baselines by name, fitted to the training pixels.

    The nearest centre to the grey value (g, g, g) is one colour without a probability. It gets the
    share of training pixels for which it is right; the other colours share the rest.
    """
    train, num_colors = data.train, len(data.palette)
    constant = color_frequency(train.colors, num_colors).expand(1, GREY_LEVELS, num_colors)
    levels = torch.arange(GREY_LEVELS, dtype=torch.uint8).view(1, 1, 1, -1)
    nearest = encode(levels.expand(1, 3, 1, -1), data.palette).flatten().long()  # (256,)
    right = (nearest[train.grey[:, 0].long()] == train.colors).double().mean()
    one_hot = F.one_hot(nearest, num_colors).double()
    centre = one_hot * right + (1 - one_hot) * (1 - right) / (num_colors - 1)
    return {
        "majority colour": GreyTable(constant.log().float()),
        "nearest centre to the grey value": GreyTable(centre[None].log().float()),
        "luminance table": luminance_table(train.grey, train.colors, num_colors),
        "luminance and row table": row_table(train.grey, train.colors, num_colors),
    }


def color_frequency(colors: torch.Tensor, num_colors: int) -> torch.Tensor:
    """Return the smoothed share (NC,) float64 of each colour among pixels (N, H, W)."""
    counts = torch.bincount(colors.flatten(), minlength=num_colors).double() + 1
    return counts / counts.sum()


def luminance_table(grey: torch.Tensor, colors: torch.Tensor, num_colors: int) -> GreyTable:
    """Return the table of each colour's frequency by grey level.

    Args:
        grey: (N, 1, H, W) uint8, of training images.
        colors: (N, H, W) uint8, indices of their colours.
        num_colors: NC.
    """
    counts = _counts(grey, colors, num_colors, rows=1)
    return _smoothed(counts, color_frequency(colors, num_colors), SMOOTHING)


def row_table(grey: torch.Tensor, colors: torch.Tensor, num_colors: int) -> GreyTable:
    """Return the table by row and grey level: the sky is at the top. Args as `luminance_table`."""
    by_level = luminance_table(grey, colors, num_colors).log_probs.double().exp()
    counts = _counts(grey, colors, num_colors, rows=grey.shape[2])
    return _smoothed(counts, by_level, ROW_SMOOTHING)


def _counts(grey: torch.Tensor, colors: torch.Tensor, num_colors: int, rows: int) -> torch.Tensor:
    """Count pixels by row, grey level and colour, (rows, 256, NC) float64; 1 row: all rows."""
    row = torch.arange(rows).view(1, rows, 1)
    cell = (row * GREY_LEVELS + grey[:, 0].long()) * num_colors + colors
    counts = torch.bincount(cell.flatten(), minlength=rows * GREY_LEVELS * num_colors)
    return counts.view(rows, GREY_LEVELS, num_colors).double()


def _smoothed(counts: torch.Tensor, coarser: torch.Tensor, strength: float) -> GreyTable:
    """Return the table of counts plus `strength` further pixels of a coarser distribution."""
    probs = (counts + strength * coarser) / (counts.sum(-1, keepdim=True) + strength)
    return GreyTable(probs.log().float())


def measured_baselines(data: ColorizationData) -> pd.DataFrame:
    """Return the metrics of every baseline on validation and test, a row a baseline."""
    rows = []
    for name, baseline in baselines(data).items():
        row = {"name": name}
        for prefix, split in {"val_": data.validation, "test_": data.test}.items():
            measured = metrics.score(baseline, split, data.palette).metrics()
            row |= measured.add_prefix(prefix).iloc[0].to_dict()
        rows.append(row)
    return pd.DataFrame(rows)


def ceiling(
    data: ColorizationData,
    *,
    sizes: Sequence[int] = (1, 3, 5, 7),
    queries: int = 2000,
    most: int = 100_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Estimate the best accuracy of any model that sees a grey patch of a given size.

    Each query, a random test pixel, is paired with the training pixel of the same grey level whose
    patch is nearest (Euclidean). The two share their colour in a share A of the cases. With ever
    more training pixels 1 - A becomes the nearest-neighbour error R of Cover and Hart (1967). No
    model that sees the patch alone is right more often than
    1 - (1 - sqrt(1 - R C / (C - 1))) (C - 1) / C for C colours. The larger the patch, the farther
    the nearest one (`distance`), and the more A underestimates.

    Args:
        data: the data.
        sizes: heights and widths of the patches.
        queries: number of test pixels.
        most: number of training pixels of a grey level to compare with, drawn at random.
        seed: seed of all drawing.

    Returns:
        A row a size: `size`, `agreement` A, `distance` (root mean square, in grey levels) and
        `ceiling`.
    """
    generator = torch.Generator().manual_seed(seed)
    places = [torch.randint(n, (queries,), generator=generator) for n in data.test.colors.shape]
    query = torch.stack(places, 1)  # (queries, 3): image, row, column
    levels = data.test.grey[query[:, 0], 0, query[:, 1], query[:, 2]]
    equal = {size: [] for size in sizes}
    squared = {size: [] for size in sizes}
    for level in levels.unique():
        known = (data.train.grey[:, 0] == level).nonzero()
        if not len(known):
            continue
        known = known[torch.randperm(len(known), generator=generator)[:most]]
        for size in sizes:
            patches, colors = _patches(data.test, query[levels == level], size)
            others, their_colors = _patches(data.train, known, size)
            distance, nearest = torch.cdist(patches, others).min(1)
            equal[size] += (their_colors[nearest] == colors).tolist()
            squared[size] += (distance.square() / size**2).tolist()
    agreement = np.array([np.mean(equal[size]) for size in sizes])
    share = 1 - 1 / len(data.palette)  # (C - 1) / C
    root = np.clip(1 - (1 - agreement) / share, 0, None) ** 0.5
    return pd.DataFrame(
        {
            "size": sizes,
            "agreement": agreement,
            "distance": [np.mean(squared[size]) ** 0.5 for size in sizes],
            "ceiling": 1 - share * (1 - root),
        }
    )


def _patches(
    split: ColorSplit, pixels: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return grey patches (P, size²) float32 around pixels, reflected at the border, and colours.

    `pixels` is (P, 3): image, row, column; colours are (P,) uint8.
    """
    image, row, column = pixels.unbind(1)
    offsets = torch.arange(size) - size // 2
    height, width = split.grey.shape[-2:]
    rows = _reflect(row[:, None] + offsets, height)
    columns = _reflect(column[:, None] + offsets, width)
    patches = split.grey[image[:, None, None], 0, rows[:, :, None], columns[:, None]]
    return patches.flatten(1).float(), split.colors[image, row, column]


def _reflect(index: torch.Tensor, size: int) -> torch.Tensor:
    """Return indices reflected into 0 to size - 1."""
    return (size - 1) - ((size - 1) - index.abs()).abs()
