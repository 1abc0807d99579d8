"""What grey alone tells of the colour: tables of log-probabilities by grey level, the answers that need no network.

A table is evaluated exactly like a network, and can stand beneath one as its prior.
"""

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from . import metrics
from .data import ColorizationData
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
        level = images[:, 0].mul(255).round().long()
        row = torch.arange(rows, device=images.device).view(1, rows, 1)
        return self.log_probs[row, level].permute(0, 3, 1, 2)  # channels last as it is


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
    rows = []
    for name, answer in baselines(data).items():
        row = {"name": name}
        for prefix, split in (("val_", data.validation), ("test_", data.test)):
            values = metrics.score(answer, split, data.palette).metrics().iloc[0]
            row |= {prefix + metric: value for metric, value in values.items()}
        rows.append(row)
    return pd.DataFrame(rows)
