"""Feature maps of a multi-task network, and what each of their channels contributes.

A *map* is one channel of a block's output for one image. It comes after the ReLU, so it is never
negative. Images are raw everywhere: (N, 1, 28, 28) uint8.
"""

import copy

import pandas as pd
import torch

from ..core.errors import ConfigError
from ..core.layers import scale_pixels
from ..multitask.data import Split
from ..multitask.model import IMAGE_SIZE, MultiTaskCNN

BATCH = 250  # images; larger batches are no faster and need more memory


def check_images(images: torch.Tensor) -> torch.Tensor:
    """Return raw images as (N, 1, 28, 28), also a single (28, 28) or (1, 28, 28) one.

    Raises:
        ConfigError: `images` is no uint8 tensor of such a shape.
    """
    single = (1, IMAGE_SIZE, IMAGE_SIZE)
    if images.dtype != torch.uint8 or (1, *images.shape)[-3:] != single:
        raise ConfigError(
            f"images: found {images.dtype} of shape {tuple(images.shape)}, expected raw "
            "intensities, a uint8 tensor of shape (28, 28), (1, 28, 28) or (N, 1, 28, 28)"
        )
    return images.reshape(-1, *single)


@torch.inference_mode()
def maps(model: MultiTaskCNN, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the maps of each block for raw images: {block: (N, C, H, W) float32}.

    Args:
        model: the network, which is left as it is; one without heads will do.
        images: see `check_images`.

    Raises:
        ConfigError: an image is unusable.
    """
    backbone = copy.deepcopy(model.backbone).eval()
    maps_of_block = {block: [] for block, _ in backbone.named_children()}
    for batch in check_images(images).split(BATCH):
        hidden = scale_pixels(batch)
        for name, block in backbone.named_children():
            hidden = block(hidden)
            maps_of_block[name].append(hidden)
    return {block: torch.cat(batches) for block, batches in maps_of_block.items()}


def strongest(maps_of_block: torch.Tensor, count: int) -> list[int]:
    """Return the channels with the highest mean over images and pixels of (N, C, H, W) maps."""
    return maps_of_block.mean((0, 2, 3)).topk(count).indices.tolist()


def responses(model: MultiTaskCNN, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return each channel's response to each image, the maximum of its map: {block: (N, C)}."""
    return {block: values.amax((2, 3)) for block, values in maps(model, images).items()}


def purity(response: torch.Tensor, labels: torch.Tensor, count: int = 9) -> pd.Series:
    """Return the share of a channel's most exciting images that belong to one class.

    Args:
        response: (N, C) of `responses`.
        labels: (N,) classes.
        count: number of most exciting images.

    Returns:
        The share of the most common class, by channel. Channels without any response are left out.
    """
    excited = labels[response.topk(count, dim=0).indices]  # (count, C)
    most_common = excited.mode(dim=0).values
    share = pd.Series((excited == most_common).double().mean(0).numpy())
    return share[(response > 0).any(0).numpy()]


def activity(response: dict[str, torch.Tensor]) -> pd.DataFrame:
    """Return how active each channel is over the images.

    Args:
        response: of `responses`.

    Returns:
        A row a block and channel (the index): share of images with a response, and `dead` if no
        image has one. Then no gradient reaches the channel's weights.
    """
    shares = {
        block: pd.Series((values > 0).float().mean(0).numpy()) for block, values in response.items()
    }
    table = pd.concat(shares, names=["block", "channel"]).to_frame("active_share")
    return table.assign(dead=table["active_share"] == 0)


@torch.inference_mode()
def ablate(model: MultiTaskCNN, split: Split) -> pd.DataFrame:
    """Return what the network loses without each channel.

    A channel is replaced by its mean map over the images, so that only the differences between
    images are lost. Zeros would also shift everything that depends on the mean, above all the ink.

    Args:
        model: the network, which is left as it is.
        split: images to measure on.

    Returns:
        A row a channel: block, channel, accuracy_cost (accuracy with it minus without, -1 to 1),
        accuracy_se (its standard error over images), rmse_cost (in units of ink).
    """
    model = copy.deepcopy(model).eval()
    maps_of_block = maps(model, split.images)
    *_, last_maps = maps_of_block.values()
    wrong, squares = _errors(model, last_maps, split)
    rows = []
    for number, (block, values) in enumerate(maps_of_block.items(), start=1):
        later_blocks = model.backbone[number:]
        for channel in range(values.shape[1]):
            changed = values.clone()
            changed[:, channel] = values[:, channel].mean(0)
            last_maps = torch.cat([later_blocks(batch) for batch in changed.split(BATCH)])
            wrong_without, squares_without = _errors(model, last_maps, split)
            more_wrong = wrong_without - wrong
            rmse_cost = squares_without.mean().sqrt() - squares.mean().sqrt()
            rows.append(
                {
                    "block": block,
                    "channel": channel,
                    "accuracy_cost": more_wrong.mean().item(),
                    "accuracy_se": more_wrong.std().item() / len(wrong) ** 0.5,
                    "rmse_cost": rmse_cost.item(),
                }
            )
    return pd.DataFrame(rows)


def _errors(
    model: MultiTaskCNN, last_maps: torch.Tensor, split: Split
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return whether each image is misclassified, (N,), and its squared error of ink, (N,)."""
    output = model.heads(last_maps)
    wrong = output.logits.argmax(1) != split.labels
    return wrong.float(), (output.ink - split.ink).square()
