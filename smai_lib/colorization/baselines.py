"""Baselines that see one pixel's grey value: lookup tables of colour probabilities.

A table is evaluated exactly like a network. It can also be the prior of one.
"""

import math

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
# of `ceiling`
PATCH_SIZES = (1, 3, 5, 7)  # heights and widths in pixels
LARGEST_PATCH = PATCH_SIZES[-1]
QUERIES = 2000  # test pixels
COMPARED_PIXELS = 100_000  # training pixels of a grey level, drawn at random


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
        cells = _cells(images[:, 0].mul(255).round().long(), rows)
        # an embedding is channels last, and faster than indexing
        return F.embedding(cells, self.log_probs.flatten(0, 1)).permute(0, 3, 1, 2)


def _cells(levels: torch.Tensor, rows: int) -> torch.Tensor:
    """Return the cell of a table with `rows` rows in which each pixel lies, (B, H, W) int64."""
    row = torch.arange(rows, device=levels.device).view(1, rows, 1)
    return row * GREY_LEVELS + levels


def baselines(data: ColorizationData) -> dict[str, GreyTable]:
    """Return the baselines by name, fitted to the training pixels.

    The nearest centre to the grey value (g, g, g) is one colour without a probability. It gets the
    share of training pixels for which it is right; the other colours share the rest.
    """
    train, num_colors = data.train, len(data.palette)
    constant = color_frequency(train, num_colors).expand(1, GREY_LEVELS, num_colors)
    levels = torch.arange(GREY_LEVELS, dtype=torch.uint8).view(1, 1, 1, -1)
    nearest = encode(levels.expand(1, 3, 1, -1), data.palette).flatten().long()  # (256,)
    right = (nearest[train.grey[:, 0].long()] == train.colors).double().mean()
    is_nearest = F.one_hot(nearest, num_colors).bool()
    centre = torch.where(is_nearest, right, (1 - right) / (num_colors - 1))
    return {
        "majority colour": GreyTable(constant.log().float()),
        "nearest centre to the grey value": GreyTable(centre[None].log().float()),
        "luminance table": luminance_table(train, num_colors),
        "luminance and row table": row_table(train, num_colors),
    }


def color_frequency(split: ColorSplit, num_colors: int) -> torch.Tensor:
    """Return the smoothed share (NC,) float64 of each colour among the pixels of a split."""
    counts = torch.bincount(split.colors.flatten(), minlength=num_colors).double() + 1
    return counts / counts.sum()


def luminance_table(split: ColorSplit, num_colors: int) -> GreyTable:
    """Return the table of each colour's frequency by grey level."""
    return _smoothed_table(split, 1, color_frequency(split, num_colors), SMOOTHING)


def row_table(split: ColorSplit, num_colors: int) -> GreyTable:
    """Return the table of each colour's frequency by row and grey level: the sky is at the top."""
    by_level = luminance_table(split, num_colors).log_probs.double().exp()
    return _smoothed_table(split, split.grey.shape[2], by_level, ROW_SMOOTHING)


def _smoothed_table(
    split: ColorSplit, rows: int, coarser: torch.Tensor, strength: float
) -> GreyTable:
    """Return the table of counts plus `strength` pixels of a coarser distribution (..., NC)."""
    shape = (rows, GREY_LEVELS, coarser.shape[-1])
    entries = _cells(split.grey[:, 0].long(), rows) * shape[-1] + split.colors
    counts = torch.bincount(entries.flatten(), minlength=math.prod(shape)).view(shape).double()
    probs = (counts + strength * coarser) / (counts.sum(-1, keepdim=True) + strength)
    return GreyTable(probs.log().float())


def measured_baselines(data: ColorizationData) -> pd.DataFrame:
    """Return the metrics of every baseline on validation and test, a row a baseline."""
    rows = []
    for name, baseline in baselines(data).items():
        row = {"name": name}
        for prefix, split in {"val_": data.validation, "test_": data.test}.items():
            values = metrics.aggregate(metrics.score(baseline, split, data.palette))
            row |= {prefix + key: value for key, value in values.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def ceiling(data: ColorizationData) -> pd.DataFrame:
    """Estimate the best accuracy of any model that sees a grey patch of a given size.

    Each query, a random test pixel, is paired with the training pixel of the same grey level whose
    patch is nearest (Euclidean). The two share their colour in a share A of the cases. With ever
    more training pixels 1 - A becomes the nearest-neighbour error R of Cover and Hart (1967). No
    model that sees the patch alone is right more often than
    1 - (1 - sqrt(1 - R C / (C - 1))) (C - 1) / C for C colours. The larger the patch, the farther
    the nearest one (`distance`), and the more A underestimates.

    Returns:
        A row a size: `size`, `agreement` A, `distance` (root mean square, in grey levels) and
        `ceiling`.
    """
    generator = torch.Generator().manual_seed(0)
    test, train = data.test, data.train
    query = [torch.randint(size, (QUERIES,), generator=generator) for size in test.colors.shape]
    query = torch.stack(query, 1)  # (QUERIES, 3): image, row, column
    levels = test.grey[:, 0][query.unbind(1)]
    test_patches, train_patches = _patches(test), _patches(train)
    pairs = []
    for level in levels.unique():
        known = (train.grey[:, 0] == level).nonzero()
        if not len(known):
            continue
        known = known[torch.randperm(len(known), generator=generator)[:COMPARED_PIXELS]].unbind(1)
        pixels = query[levels == level].unbind(1)
        patches, others = test_patches[pixels].float(), train_patches[known].float()
        for size in PATCH_SIZES:
            inner = slice((LARGEST_PATCH - size) // 2, (LARGEST_PATCH + size) // 2)
            pair = [part[:, inner, inner].flatten(1) for part in (patches, others)]
            distance, nearest = torch.cdist(*pair).min(1)
            same = train.colors[known][nearest] == test.colors[pixels]
            squared = (distance.square() / size**2).double()
            pairs.append(pd.DataFrame({"size": size, "agreement": same, "distance": squared}))
    table = pd.concat(pairs).groupby("size", as_index=False).mean()
    table["distance"] **= 0.5
    share = 1 - 1 / len(data.palette)  # (C - 1) / C
    root = (1 - (1 - table["agreement"]) / share).clip(lower=0) ** 0.5
    return table.assign(ceiling=1 - share * (1 - root))


def _patches(split: ColorSplit) -> torch.Tensor:
    """Return a view (N, H, W, LARGEST_PATCH, LARGEST_PATCH) of the grey patch around every pixel.

    Patches are reflected at the border.
    """
    margin = LARGEST_PATCH // 2
    padded = np.pad(split.grey[:, 0], ((0, 0), (margin, margin), (margin, margin)), "reflect")
    return torch.from_numpy(padded).unfold(1, LARGEST_PATCH, 1).unfold(2, LARGEST_PATCH, 1)
