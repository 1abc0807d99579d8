"""Colour images as the colorization task sees them: grey values in, indices of a palette out."""

import os
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ..core.data import Dataset
from ..core.layers import scale_pixels
from .images import ColorImages, color_images
from .palette import SUPPLIED, check_palette, encode, fit_palette, grey_of


class ColorSplit(NamedTuple):
    """images (N, 3, H, W), grey (N, 1, H, W), colors (N, H, W), all uint8; labels (N,) int64."""

    images: torch.Tensor
    grey: torch.Tensor
    colors: torch.Tensor
    labels: torch.Tensor

    def inputs(self, index: torch.Tensor | slice) -> torch.Tensor:
        """Return grey values for a model: (B, 1, H, W) float32 in [0, 1], channels last."""
        return scale_pixels(self.grey[index])


@dataclass(frozen=True)
class ColorizationData(Dataset):
    """The three splits, each a `ColorSplit`, encoded in one palette that the fingerprint names."""

    palette: torch.Tensor  # (NC, 3), see `palette`
    names: tuple[str, ...]  # of the classes, by label

    def __str__(self) -> str:
        return f"{len(self.palette)} colours of images from {self.source}: {self.counts()}"


def cifar10(
    directory: str | os.PathLike | None = None, *, verbose: bool = True
) -> ColorizationData:
    """Load CIFAR-10, encoded in the 24 supplied colours.

    Args:
        directory: folder of CIFAR-10 or of other colour images, see `images.color_images`.
        verbose: whether to print the source.

    Raises:
        DataError: `directory` has no usable pictures, or CIFAR-10 is truncated or altered.
    """
    return prepare(color_images(directory, verbose=verbose), SUPPLIED)


def prepare(images: ColorImages, palette: torch.Tensor | int = 24) -> ColorizationData:
    """Encode images in a palette.

    Args:
        images: RGB images.
        palette: the palette (NC, 3), or the number of colours to fit to the training images.

    Raises:
        ConfigError: not 2 to 256 colours, more than the images have, or values outside 0 to 255 or
            finer than a thousandth.
    """
    if isinstance(palette, (int, np.integer)):
        palette = fit_palette(images.train.images, palette)
    else:
        check_palette(palette)
    splits = [
        ColorSplit(split.images, grey_of(split.images), encode(split.images, palette), split.labels)
        for split in (images.train, images.validation, images.test)
    ]
    # another version of k-means may fit another palette, so the palette itself is named
    fingerprint = f"{images.fingerprint}:{palette.numpy().tobytes().hex()}"
    return ColorizationData(
        *splits, images.source, images.directory, fingerprint, palette, images.names
    )
