"""Patches of photographs that ship inside two wheels, for trying everything without a network.

Seven photographs of scikit-image and scikit-learn make several thousand patches. The patches are
alike, so a result on them says little about other images.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..core.data import SPLIT_SEED

# of the stereo pair only the left view, since the right one shows the same scene
SCIKIT_IMAGE = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
SCIKIT_LEARN = ("china.jpg", "flower.jpg")
SIZE = 32  # of CIFAR-10's images, in pixels
BLOCK = 128  # side of the blocks of a photograph in pixels; each block belongs to one split
STRIDE = 16
SCALES = (32, 64, 128)  # sides of the crops in pixels


def bundled_photographs() -> list[np.ndarray]:
    """Return the colour photographs in the two wheels, each (H, W, 3) uint8."""
    from skimage import io
    from skimage.data import data_dir
    from sklearn.datasets import load_sample_image

    photographs = [io.imread(Path(data_dir) / name) for name in SCIKIT_IMAGE]
    return photographs + [load_sample_image(name) for name in SCIKIT_LEARN]


def photo_patches(photographs: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """Cut photographs into training, validation and test patches that share no pixel.

    Every photograph is cut into blocks of 128 x 128 pixels. A seeded tenth of all blocks is for
    validation, another tenth for testing. Inside a block, crops of three sizes are taken every 16
    pixels and averaged down to 32 x 32.

    Args:
        photographs: each (H, W, 3) uint8.

    Returns:
        Three tensors (N, 3, 32, 32) uint8.
    """
    images = [torch.from_numpy(photograph.copy()).permute(2, 0, 1) for photograph in photographs]
    blocks = torch.cat([_windows(image, BLOCK, BLOCK) for image in images])
    order = np.random.default_rng(SPLIT_SEED).permutation(len(blocks))
    tenth = max(1, len(blocks) // 10)
    parts = order[2 * tenth :], order[:tenth], order[tenth : 2 * tenth]
    return [torch.cat([_crops(blocks[index]) for index in np.sort(part)]) for part in parts]


def _crops(block: torch.Tensor) -> torch.Tensor:
    """Return the crops of a block, (3, 128, 128) -> (N, 3, 32, 32) uint8."""
    crops = []
    for scale in SCALES:
        windows = _windows(block, scale, STRIDE).float()
        crops.append(F.avg_pool2d(windows, scale // SIZE))
    return torch.cat(crops).round().byte()


def _windows(image: torch.Tensor, side: int, stride: int) -> torch.Tensor:
    """Return the square windows every `stride` pixels, (3, H, W) -> (N, 3, side, side)."""
    windows = image.unfold(1, side, stride).unfold(2, side, stride)  # (3, rows, columns, ...)
    return windows.flatten(1, 2).transpose(0, 1)
