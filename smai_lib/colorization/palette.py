"""A palette of a few colours: k-means over pixels, encoding, decoding, and what grey tells of it.

Centres are whole RGB values, so every squared distance is an integer below 2^24, which float32
holds exactly: the nearest centre is the true one, and ties go to the darker.
"""

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from .model import GreyTable

PALETTE_SEED = 2012
# of k-means, the least error kept: minima whose errors differ by half a percent put the table's
# accuracy anywhere between 59 and 64 %, so results compare within one palette only
STARTS = 10
SAMPLED_PIXELS = 200_000  # for k-means in seconds; a million end in the same range of errors
BLOCK_VALUES = 1 << 24  # distances held at once when encoding, 64 MiB
GREY_LEVELS = 256
SMOOTHING = 1.0  # pixels' worth of the coarser distribution added to a grey level's counts
ROW_SMOOTHING = 50.0  # likewise to a row's; a row has a 32nd of the pixels
ANNEALED = 0.38  # the temperature of Zhang, Isola and Efros 2016


class PaletteError(ValueError):
    """A palette that cannot be made, or that is not the one that was expected."""


def grey_of(images: torch.Tensor) -> torch.Tensor:
    """Mean of R, G and B, rounded: (N, 3, H, W) uint8 -> (N, 1, H, W) uint8.

    The mean, as in the published exercise, and not the BT.601 luma of television: the two differ
    by several points of accuracy, since a colour's mean says more about the colour.
    """
    # a third is never a half, so adding 1 before dividing rounds to the nearest
    total = images.sum(1, keepdim=True, dtype=torch.int32)
    return (total + 1).div_(3, rounding_mode="floor").byte()


def fit_palette(images: torch.Tensor, num_colors: int, seed: int = PALETTE_SEED) -> torch.Tensor:
    """k-means centres of the pixels of `images`, (num_colors, 3) uint8, dark to light.

    Args:
        images: (N, 3, H, W) uint8; training images only.
        num_colors: 2 to 256, so that an index fits a byte.

    Raises:
        PaletteError: a number of colours out of range, or more than `images` has.
    """
    if not 2 <= num_colors <= 256:
        raise PaletteError(f"num_colors: found {num_colors}, expected 2 to 256")
    pixels = images.permute(0, 2, 3, 1).reshape(-1, 3).numpy()
    distinct = len(np.unique(pixels @ np.array([1, 256, 65536], np.int32)))
    if distinct < num_colors:
        raise PaletteError(f"num_colors: found {num_colors}, expected at most {distinct}, the "
                           "number of distinct colours in the images; ask for fewer")
    generator = np.random.default_rng(seed)
    if len(pixels) > SAMPLED_PIXELS:
        pixels = pixels[generator.choice(len(pixels), SAMPLED_PIXELS, replace=False)]
    with threadpool_limits(1):  # threads add in another order, and end in another minimum
        kmeans = KMeans(num_colors, n_init=STARTS, random_state=seed).fit(pixels.astype(np.float32))
    centres = np.unique(kmeans.cluster_centers_.round().astype(np.uint8), axis=0)
    if len(centres) < num_colors:
        raise PaletteError(f"num_colors: found {num_colors}, expected at most {len(centres)}, the "
                           "number of centres that differ once rounded; ask for fewer")
    return torch.from_numpy(centres[np.argsort(centres.sum(1, dtype=int), kind="stable")])


def encode(images: torch.Tensor, palette: torch.Tensor) -> torch.Tensor:
    """Index of the nearest centre: (N, 3, H, W) uint8 -> (N, H, W) uint8, exact.

    Works in blocks of pixels, so memory is bounded whatever N and the number of colours.
    """
    n, _, h, w = images.shape
    centres = palette.float()
    half_squared = centres.square().sum(1) / 2
    colors = torch.empty(n, h, w, dtype=torch.uint8)
    step = max(1, BLOCK_VALUES // (h * w * len(palette)))  # images a block
    for start in range(0, n, step):
        pixels = images[start : start + step].permute(0, 2, 3, 1).reshape(-1, 3).float()
        # argmin |p - c|^2 = argmax p.c - |c|^2 / 2
        nearest = (pixels @ centres.T).sub_(half_squared).argmax(1)
        colors[start : start + step] = nearest.view(-1, h, w).byte()
    return colors


def decode(colors: torch.Tensor, palette: torch.Tensor) -> torch.Tensor:
    """RGB of each index: (N, H, W) integers -> (N, 3, H, W) uint8."""
    return palette[colors.long()].permute(0, 3, 1, 2).contiguous()


def expected_rgb(
    log_probs: torch.Tensor, palette: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Annealed mean colour: (B, NC, H, W) log-probabilities -> (B, 3, H, W) float32, 0 to 255.

    Probabilities are sharpened to p^(1 / temperature) and renormalised before the mean: 1 is the
    plain expectation, which is dull, and 0 in the limit the most likely colour.

    Raises:
        ValueError: a temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature: found {temperature}, expected more than 0")
    weights = (log_probs.float() / temperature).softmax(1)
    return torch.einsum("bnhw,nc->bchw", weights, palette.to(weights.device).float())


def keep_grey(rgb: torch.Tensor, grey: torch.Tensor) -> torch.Tensor:
    """Give every pixel of `rgb` (B, 3, H, W) the known `grey` (B, 1, H, W) as its mean, exactly.

    Hue is kept, and so is chroma as far as 0 to 255 allows.
    """
    chroma = rgb - rgb.float().mean(1, keepdim=True)
    room = torch.where(chroma > 0, 255.0 - grey, grey)
    share = (room / chroma.abs().clamp_min(1e-6)).amin(1, keepdim=True).clamp_max(1)
    return (grey + share * chroma).clamp(0, 255)  # against the last bit of rounding


def round_trip_error(images: torch.Tensor, palette: torch.Tensor) -> float:
    """Root mean square difference, in grey levels of 0 to 255, that the palette alone costs."""
    error = decode(encode(images, palette), palette).float().sub_(images)
    return error.square_().mean(dtype=torch.float64).sqrt().item()


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
