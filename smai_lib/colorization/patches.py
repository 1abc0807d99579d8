"""Colour images where there is no data set: patches of photographs that ship inside two wheels.

Seven photographs of scikit-image and scikit-learn make several thousand patches. They are alike, so
what is measured on them says little beyond them, but everything can be tried without a network.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..core.sources import SPLIT_SEED

# of the stereo pair only the left view, since the right one shows the same things
SCIKIT_IMAGE = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
SCIKIT_LEARN = ("china.jpg", "flower.jpg")
SIZE = 32  # of CIFAR-10's images, in pixels
BLOCK = 128  # pixels; a block of a photograph belongs to one split
STRIDE = 16
SCALES = (32, 64, 128)


def bundled_photographs() -> list[np.ndarray]:
    """The colour photographs inside the scikit-image and scikit-learn wheels, (H, W, 3) uint8."""
    from skimage import io
    from skimage.data import data_dir
    from sklearn.datasets import load_sample_image

    return [
        *(io.imread(Path(data_dir) / name) for name in SCIKIT_IMAGE),
        *map(load_sample_image, SCIKIT_LEARN),
    ]


def photo_patches(photographs: Sequence[np.ndarray]) -> tuple[torch.Tensor, ...]:
    """Crops at several scales for training, validation and test, (N, 3, 32, 32) uint8, split by region: no pixel is in two.

    Every photograph, (H, W, 3) uint8, is cut into blocks of 128 x 128; a seeded tenth of all blocks
    validates, another tenth tests. Crops of 32, 64 and 128 pixels are taken every 16 pixels inside a
    block and averaged down.
    """
    blocks = torch.cat(
        [
            _windows(torch.from_numpy(photograph.copy()).permute(2, 0, 1), BLOCK, BLOCK)
            for photograph in photographs
        ]
    )
    order = np.random.default_rng(SPLIT_SEED).permutation(len(blocks))
    tenth = max(1, len(blocks) // 10)
    chosen = order[2 * tenth :], order[:tenth], order[tenth : 2 * tenth]
    return tuple(
        torch.cat(
            [
                F.avg_pool2d(_windows(blocks[i], scale, STRIDE).float(), scale // SIZE)
                for i in np.sort(part)
                for scale in SCALES
            ]
        )
        .round()
        .byte()
        for part in chosen
    )


def _windows(image: torch.Tensor, side: int, stride: int) -> torch.Tensor:
    """Square windows of (3, H, W), every `stride` pixels: (N, 3, side, side)."""
    windows = image.unfold(1, side, stride).unfold(
        2, side, stride
    )  # (3, rows, columns, side, side)
    return windows.flatten(1, 2).transpose(0, 1)
