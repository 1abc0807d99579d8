"""A palette of a few colours, supplied or by k-means over pixels: encoding, decoding, and pictures coloured in it.

A palette is (NC, 3) RGB from 0 to 255: whole numbers, uint8, if fitted here, dark to light, so that ties
go to the darker; thousandths, float32, if supplied.
"""

import os

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from .images import open_picture
from .patches import SIZE

PALETTE_SEED = 2012
# of k-means, the least error kept: minima whose errors differ by half a percent put the table's
# accuracy anywhere between 59 and 64 %, so results compare within one palette only
STARTS = 10
SAMPLED_PIXELS = 200_000  # for k-means in seconds; a million end in the same range of errors
BLOCK_IMAGES, BLOCK_COLORS = 1 << 12, 1 << 18  # encoded at once, so that memory is bounded
GREY_LEVELS = 256
ANNEALED = 0.38  # the temperature of Zhang, Isola and Efros 2016
# the 24 colours that the assignment supplies for CIFAR-10, its row order, to a thousandth; with them a
# result compares with published ones of that assignment
SUPPLIED = torch.tensor(
    [
        (159.645, 160.748, 158.411),
        (38.254, 36.083, 30.845),
        (99.041, 97.350, 88.562),
        (215.229, 217.059, 217.591),
        (154.790, 143.690, 111.636),
        (50.648, 56.884, 56.544),
        (190.674, 169.773, 132.781),
        (166.413, 197.294, 227.372),
        (244.775, 246.064, 245.451),
        (184.318, 185.395, 185.482),
        (131.687, 138.075, 141.219),
        (173.688, 52.809, 42.493),
        (77.327, 78.490, 67.009),
        (72.378, 123.066, 168.683),
        (57.080, 85.407, 113.096),
        (198.059, 147.211, 75.484),
        (78.569, 56.082, 34.046),
        (114.700, 138.775, 63.261),
        (14.382, 13.396, 12.705),
        (114.688, 117.498, 113.786),
        (219.587, 200.724, 168.371),
        (112.522, 86.148, 52.699),
        (123.193, 161.301, 200.279),
        (142.601, 112.582, 82.322),
    ]
)


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


def check_palette(palette: torch.Tensor) -> torch.Tensor:
    """`palette`, if it is one.

    Raises:
        PaletteError: another shape than (2 to 256, 3), or a value outside 0 to 255.
    """
    if palette.ndim != 2 or palette.shape[1] != 3 or not 2 <= len(palette) <= 256:
        raise PaletteError(
            f"palette: found shape {tuple(palette.shape)}, expected (NC, 3) with 2 to 256 colours"
        )
    if not (palette.min() >= 0 and palette.max() <= 255):
        raise PaletteError(
            f"palette: found values from {palette.min():g} to {palette.max():g}, expected RGB in 0 to 255"
        )
    return palette


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
        raise PaletteError(
            f"num_colors: found {num_colors}, expected at most {distinct}, the "
            "number of distinct colours in the images; ask for fewer"
        )
    generator = np.random.default_rng(seed)
    if len(pixels) > SAMPLED_PIXELS:
        pixels = pixels[generator.choice(len(pixels), SAMPLED_PIXELS, replace=False)]
    with threadpool_limits(1):  # threads add in another order, and end in another minimum
        kmeans = KMeans(num_colors, n_init=STARTS, random_state=seed).fit(pixels.astype(np.float32))
    centres = np.unique(kmeans.cluster_centers_.round().astype(np.uint8), axis=0)
    if len(centres) < num_colors:
        raise PaletteError(
            f"num_colors: found {num_colors}, expected at most {len(centres)}, the "
            "number of centres that differ once rounded; ask for fewer"
        )
    return torch.from_numpy(centres[np.argsort(centres.sum(1, dtype=int), kind="stable")])


def encode(images: torch.Tensor, palette: torch.Tensor) -> torch.Tensor:
    """Index of the nearest centre: (N, 3, H, W) uint8 -> (N, H, W) uint8, exact.

    Each distinct colour is looked up once: CIFAR-10 has fewer than a tenth as many as pixels. Centres are whole
    thousandths, so in units of those every term is an integer, which float64 holds exactly.
    """
    codes = torch.zeros(images.shape[0], *images.shape[2:], dtype=torch.int32)
    for channel in range(3):
        codes = (codes << 8) | images[:, channel]
    present = torch.zeros(1 << 24, dtype=torch.bool)
    for part in codes.split(BLOCK_IMAGES):
        present[part.flatten().long()] = True
    colors = present.nonzero().flatten()
    centres = (palette.double() * 1000).round()
    half_squared = centres.square().sum(1) / 2
    nearest = torch.zeros(1 << 24, dtype=torch.uint8)
    for part in colors.split(BLOCK_COLORS):
        rgb = torch.stack([part >> 16, part >> 8 & 255, part & 255], 1).double() * 1000
        # argmin |p - c|^2 = argmax p.c - |c|^2 / 2
        nearest[part] = (rgb @ centres.T).sub_(half_squared).argmax(1).byte()
    return torch.cat([nearest[part.long()] for part in codes.split(BLOCK_IMAGES)])


def decode(colors: torch.Tensor, palette: torch.Tensor) -> torch.Tensor:
    """RGB of each index: (N, H, W) integers -> (N, 3, H, W) uint8."""
    return palette.round().byte()[colors.long()].permute(0, 3, 1, 2).contiguous()


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


@torch.inference_mode()
def colored(model: torch.nn.Module, split) -> dict[str, torch.Tensor]:
    """Images in their most likely colours, and in annealed means that keep the grey value, (N, 3, H, W) uint8.

    Args:
        model: a `model.Colorizer`.
        split: a `data.ColorSplit`.
    """
    log_probs = model.eval()(split.inputs(slice(None))).log_softmax(1)
    mean = keep_grey(expected_rgb(log_probs, model.palette, ANNEALED), split.grey)
    return {
        "most likely": decode(log_probs.argmax(1), model.palette),
        "annealed mean": mean.round().byte(),
    }


@torch.inference_mode()
def color_picture(
    model: torch.nn.Module, picture: str | os.PathLike | torch.Tensor
) -> torch.Tensor:
    """Colour an image file, or (3, H, W) uint8 of one: (3, H, W) uint8 at its own resolution.

    The model sees the picture's grey value at 32 x 32, as it did in training. The colours
    that it expects there are enlarged, and every pixel keeps its own luminance.

    Raises:
        UnusableImageError: from `images.open_picture`.
    """
    picture = picture if isinstance(picture, torch.Tensor) else open_picture(picture)
    grey = grey_of(picture[None])  # (1, 1, H, W)
    small = F.interpolate(grey.float(), size=(SIZE, SIZE), mode="bicubic", antialias=True)
    logits = model(small.clamp(0, 255).round().div(255))
    rgb = expected_rgb(logits.log_softmax(1), model.palette, ANNEALED)
    rgb = F.interpolate(rgb, size=grey.shape[-2:], mode="bicubic")
    return keep_grey(rgb, grey).round().byte()[0]
