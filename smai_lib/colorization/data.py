"""Colour images as the colorization task sees them: grey values in, indices of a palette out."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..core.sources import Dataset
from .images import ColorImages
from .palette import check_palette, encode, fit_palette, grey_of


class ColorSplit(NamedTuple):
    """images (N, 3, H, W), grey (N, 1, H, W) and colors (N, H, W), all uint8; labels (N,) of their classes."""

    images: torch.Tensor
    grey: torch.Tensor
    colors: torch.Tensor
    labels: torch.Tensor

    def inputs(self, index: torch.Tensor | slice) -> torch.Tensor:
        """Grey values as the models want them: (B, 1, H, W) float32 in [0, 1], channels last."""
        return self.grey[index].float().div_(255).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class ColorizationData(Dataset):
    """The three splits, each a `ColorSplit`, encoded in one palette, which is part of their identity."""

    palette: torch.Tensor  # (NC, 3), see `palette`
    names: tuple[str, ...]  # of the classes, by label

    def __str__(self) -> str:
        return f"{len(self.palette)} colours of images from {self.source}: {self.counts()}"


def prepare(images: ColorImages, palette: torch.Tensor | int = 24) -> ColorizationData:
    """Grey values and colour indices of `images`, in `palette` or in so many colours of the training pixels' own.

    Raises:
        PaletteError: more colours than the images have, or not 2 to 256; or no palette, see `check_palette`.
    """
    palette = (
        fit_palette(images.train.images, palette)
        if isinstance(palette, int)
        else check_palette(palette)
    )
    splits = (
        ColorSplit(x, grey_of(x), encode(x, palette), labels)
        for x, labels in (images.train, images.validation, images.test)
    )
    # the palette is a function of the images and its size, as far as one version of k-means goes
    return ColorizationData(
        *splits,
        images.source,
        images.directory,
        f"{images.fingerprint}:{palette.numpy().tobytes().hex()}",
        palette,
        images.names,
    )
