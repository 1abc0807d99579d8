"""Palettes of a few colours, supplied or fitted: encoding, decoding and expected colours.

A palette is (NC, 3) RGB from 0 to 255. A fitted one is uint8, from dark to light, so that ties go
to the darker colour. The supplied one is float32. All are in whole thousandths.
"""

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from ..core.errors import ConfigError

PALETTE_SEED = 2012
# starts of k-means, of which the best is kept. Palettes that are equally good to half a percent
# change the lookup table's accuracy by up to 5 points, so results compare within one palette only
STARTS = 10
SAMPLED_PIXELS = 200_000  # for k-means in seconds; a million end in the same range of errors
BLOCK_IMAGES = 1 << 10  # images that are encoded at once, which bounds the memory
BLOCK_COLORS = 1 << 18  # colours that are compared with the palette at once, likewise
GREY_LEVELS = 256
TEMPERATURE = 0.38  # of the annealed mean in Zhang, Isola and Efros 2016
# the 24 colours that the assignment supplies for CIFAR-10, to a thousandth and in its row order;
# results in them compare with published ones of that assignment
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


def grey_of(images: torch.Tensor) -> torch.Tensor:
    """Return the rounded mean of R, G and B.

    It is the mean, as in the published exercise, and not the BT.601 luma of television. The two
    differ by several points of accuracy, since the mean says more about the colour.

    Args:
        images: (N, 3, H, W) uint8.

    Returns:
        (N, 1, H, W) uint8.
    """
    # a third is never a half, so adding 1 before dividing rounds to the nearest
    total = images.sum(1, keepdim=True, dtype=torch.int32)
    return (total + 1).div_(3, rounding_mode="floor").byte()


def check_palette(palette: torch.Tensor) -> None:
    """Check the shape and the values of a palette.

    Raises:
        ConfigError: the shape is not (2 to 256, 3), or a value is outside 0 to 255 or finer than a
            thousandth.
    """
    if palette.ndim != 2 or palette.shape[1] != 3 or not 2 <= len(palette) <= 256:
        raise ConfigError(
            f"palette: found shape {tuple(palette.shape)}, expected (NC, 3) with 2 to 256 colours"
        )
    low, high = palette.min(), palette.max()
    if not (low >= 0 and high <= 255):  # also if a value is NaN
        raise ConfigError(f"palette: found values from {low:g} to {high:g}, expected 0 to 255")
    thousandths = palette.double() * 1000
    if (thousandths - thousandths.round()).abs().max() > 0.01:  # float32 is at least that precise
        raise ConfigError("palette: found values finer than thousandths; round them")


def fit_palette(images: torch.Tensor, num_colors: int, seed: int = PALETTE_SEED) -> torch.Tensor:
    """Return the k-means centres of the pixels, from dark to light.

    Args:
        images: (N, 3, H, W) uint8; training images only.
        num_colors: 2 to 256, so that an index fits a byte.
        seed: of the sampled pixels and of the starts of k-means.

    Returns:
        (num_colors, 3) uint8.

    Raises:
        ConfigError: the number of colours is out of range, or larger than the images have.
    """
    if not 2 <= num_colors <= 256:
        raise ConfigError(f"num_colors: found {num_colors}, expected 2 to 256")
    pixels = images.permute(0, 2, 3, 1).reshape(-1, 3).numpy()
    if len(pixels) > SAMPLED_PIXELS:
        generator = np.random.default_rng(seed)
        pixels = pixels[generator.choice(len(pixels), SAMPLED_PIXELS, replace=False)]
    with threadpool_limits(1):  # more threads add in another order, and find another minimum
        kmeans = KMeans(num_colors, n_init=STARTS, random_state=seed).fit(pixels.astype(np.float32))
    centres = np.unique(kmeans.cluster_centers_.round().astype(np.uint8), axis=0)
    if len(centres) < num_colors:
        raise ConfigError(
            f"num_colors: found {num_colors}, expected at most {len(centres)}: k-means finds no "
            "more distinct colours in the images"
        )
    return torch.from_numpy(centres[np.argsort(centres.sum(1, dtype=int), kind="stable")])


def encode(images: torch.Tensor, palette: torch.Tensor) -> torch.Tensor:
    """Return the index of the nearest colour of every pixel, exactly.

    Each distinct colour is looked up once: CIFAR-10 has fewer than a tenth as many as pixels. In
    thousandths every term is an integer, exact in float64.

    Args:
        images: (N, 3, H, W) uint8.
        palette: (NC, 3) in whole thousandths, see `check_palette`.

    Returns:
        (N, H, W) uint8.
    """
    blocks = images.split(BLOCK_IMAGES)
    present = torch.zeros(1 << 24, dtype=torch.bool)
    for block in blocks:
        present[_color_numbers(block)] = True
    centres = (palette.double() * 1000).round()
    half_squared = centres.square().sum(1) / 2
    nearest = torch.zeros(1 << 24, dtype=torch.uint8)
    for numbers in present.nonzero().flatten().split(BLOCK_COLORS):
        rgb = torch.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], 1).double() * 1000
        # argmin |p - c|^2 = argmax p.c - |c|^2 / 2
        nearest[numbers] = (rgb @ centres.T).sub_(half_squared).argmax(1).byte()
    return torch.cat([nearest[_color_numbers(block)] for block in blocks])


def _color_numbers(images: torch.Tensor) -> torch.Tensor:
    """Return colours as one number of 24 bits, (B, 3, H, W) uint8 -> (B, H, W) int32."""
    red, green, blue = images.int().unbind(1)
    return red << 16 | green << 8 | blue


def decode(colors: torch.Tensor, palette: torch.Tensor) -> torch.Tensor:
    """Return the RGB values of indices, (N, H, W) integers -> (N, 3, H, W) uint8."""
    return palette.round().byte()[colors.long()].permute(0, 3, 1, 2).contiguous()


def expected_rgb(
    log_probs: torch.Tensor, palette: torch.Tensor, temperature: float = TEMPERATURE
) -> torch.Tensor:
    """Return the annealed mean colour (Zhang, Isola and Efros 2016).

    Probabilities are sharpened to p^(1 / temperature) and renormalized before the mean.
    Temperature 1 gives the plain expectation, which is dull, and 0 in the limit the likeliest
    colour.

    Args:
        log_probs: (B, NC, H, W) log-probabilities.
        palette: (NC, 3).
        temperature: more than 0.

    Returns:
        (B, 3, H, W) float32, 0 to 255.
    """
    weights = (log_probs.float() / temperature).softmax(1)
    return torch.einsum("bnhw,nc->bchw", weights, palette.to(weights.device).float())


def keep_grey(rgb: torch.Tensor, grey: torch.Tensor) -> torch.Tensor:
    """Shift colours so that the mean of R, G and B is the known grey value, exactly.

    Hue is kept, and so is chroma as far as 0 to 255 allows.

    Args:
        rgb: (B, 3, H, W).
        grey: (B, 1, H, W).

    Returns:
        (B, 3, H, W) float32.
    """
    chroma = rgb - rgb.float().mean(1, keepdim=True)
    room = torch.where(chroma > 0, 255.0 - grey, grey)
    share = (room / chroma.abs().clamp_min(1e-6)).amin(1, keepdim=True).clamp_max(1)
    return (grey + share * chroma).clamp(0, 255)  # against rounding in the last bit
