"""What the backbone of a MultiTaskCNN sees: its maps, and what each channel is worth.

A *map* is one channel of a layer's output for one image. Blocks are named as in the model, `block1`, `block2`, ...; a
block's maps are those after its ReLU, so they are never negative. Images are raw, (N, 1, 28, 28) uint8, everywhere.
"""

import copy
from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from ..multitask.fashion_mnist import Split
from ..multitask.model import MultiTaskCNN

BATCH = 250  # images that pass through at once; more is no faster and needs more memory
REPLACEMENTS = ("mean", "zero")


class FeatureError(ValueError):
    """An image, a layer or a channel that a network does not take or have."""


def block_names(model: MultiTaskCNN) -> list[str]:
    """Names of the blocks, first to last."""
    return [name for name, _ in model.backbone.named_children()]


def check_images(images: torch.Tensor) -> torch.Tensor:
    """`images` as (N, 1, 28, 28) uint8, also a single (28, 28) or (1, 28, 28) one; FeatureError for what is neither."""
    side = MultiTaskCNN.image_size
    expected = (
        f"a uint8 tensor of shape ({side}, {side}), (1, {side}, {side}) or (N, 1, {side}, {side})"
    )
    if not isinstance(images, torch.Tensor):
        raise FeatureError(f"images: found {type(images).__name__}, expected {expected}")
    if images.dtype != torch.uint8:
        raise FeatureError(
            f"images: found {images.dtype}, expected {expected}: raw intensities, 0 to 255"
        )
    if images.ndim > 4 or (1, *images.shape)[-3:] != (1, side, side):
        raise FeatureError(f"images: found shape {tuple(images.shape)}, expected {expected}")
    return images.reshape(-1, 1, side, side)


def floats(images: torch.Tensor) -> torch.Tensor:
    """Raw images as the network wants them: float32 in [0, 1], channels last."""
    return check_images(images).float().div_(255).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def maps(
    model: MultiTaskCNN,
    images: torch.Tensor,
    layers: Sequence[str] | None = None,
    reduce: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.float,
) -> dict[str, torch.Tensor]:
    """{layer: (N, C, H, W) float32} for raw images, or what `reduce` leaves of the maps of a batch.

    Of the backbone alone, since the heads switch autocast off by the images' device, which symbolic tracing does not
    know; of a copy whose ReLUs are not in place, or the layer before a ReLU would show what the ReLU left of it.

    Args:
        layers: blocks, or layers of a block such as `block1.conv`; default every block. FeatureError lists them if one
            does not exist.
    """
    backbone = copy.deepcopy(model.backbone).eval()
    for module in backbone.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    names = block_names(model)
    nodes = get_graph_node_names(backbone)[1][1:]  # without the input
    layers = names if layers is None else layers
    for layer in layers:
        if layer not in (*names, *nodes):
            raise FeatureError(
                f"layer: found {layer!r}, expected one of {', '.join((*names, *nodes))}"
            )
    network = create_feature_extractor(backbone, list(layers)).eval()
    parts = [
        {layer: reduce(values) for layer, values in network(floats(part)).items()}
        for part in check_images(images).split(BATCH)
    ]
    return {layer: torch.cat([part[layer] for part in parts]) for layer in layers}


def responses(model: MultiTaskCNN, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """How much each channel answers to each image: {block: (N, C)}, the maximum of its map."""
    return maps(model, images, reduce=lambda values: values.amax((2, 3)))


def most_exciting(response: torch.Tensor, channel: int, count: int = 9) -> torch.Tensor:
    """Indices (count,) of the images that a channel answers to most, from responses (N, C)."""
    return response[:, channel].topk(count).indices


def purity(response: torch.Tensor, labels: torch.Tensor, count: int = 9) -> pd.DataFrame:
    """A row a channel: channel, the most common label of its `count` most exciting images, and that label's share.

    Silent channels, which no image excites, are left out.
    """
    rows = []
    for channel in response.amax(0).nonzero().flatten().tolist():
        counts = labels[most_exciting(response, channel, count)].bincount(minlength=10)
        rows.append(
            {
                "channel": channel,
                "label": int(counts.argmax()),
                "share": counts.max().item() / count,
            }
        )
    return pd.DataFrame(rows)


def activity(response: dict[str, torch.Tensor]) -> pd.DataFrame:
    """A row a channel: block, channel, its largest response, the share of images that it answers to.

    A channel is `dead` if it answers to no image at all: then no gradient reaches its weights.
    """
    tables = [
        pd.DataFrame(
            {
                "block": block,
                "channel": range(values.shape[1]),
                "largest": values.amax(0).numpy(),
                "active_share": (values > 0).float().mean(0).numpy(),
            }
        )
        for block, values in response.items()
    ]
    return pd.concat(tables, ignore_index=True).assign(dead=lambda table: table["largest"] == 0)


@torch.inference_mode()
def ablate(model: MultiTaskCNN, split: Split, *, replace_by: str = "mean") -> pd.DataFrame:
    """What the network loses when one channel no longer tells images apart, channel by channel.

    "mean" puts the channel's mean map over the images in its place: only what differs from image to image is lost.
    "zero" silences the channel, and so also shifts everything that counts on its mean, most of all the ink.

    Returns:
        A row a channel: block, channel, accuracy_cost (in [0, 1], positive when it was needed), accuracy_se (standard
        error of that over images, which are the same before and after), rmse_cost (units of ink).
    """
    if replace_by not in REPLACEMENTS:
        raise ValueError(
            f"replace_by: found {replace_by!r}, expected one of {', '.join(REPLACEMENTS)}"
        )
    whole = maps(model.eval(), split.images)
    before = _judge(model, whole[block_names(model)[-1]], split)
    tables = []
    for number, (block, values) in enumerate(whole.items(), start=1):
        later = model.backbone[number:]
        mean = values.mean(0) if replace_by == "mean" else torch.zeros_like(values[0])
        after = torch.empty(len(mean), 2, len(values))  # (C, right | squared error, N)
        for channel in range(len(mean)):
            changed = values.clone()
            changed[:, channel] = mean[channel]
            after[channel] = _judge(
                model, torch.cat([later(part) for part in changed.split(BATCH)]), split
            )
        change = after - before
        tables.append(
            pd.DataFrame(
                {
                    "block": block,
                    "channel": range(len(after)),
                    "accuracy_cost": -change[:, 0].mean(1).numpy(),
                    "accuracy_se": (change[:, 0].std(1) / len(values) ** 0.5).numpy(),
                    "rmse_cost": (after[:, 1].mean(1).sqrt() - before[1].mean().sqrt()).numpy(),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _judge(model: MultiTaskCNN, last: torch.Tensor, split: Split) -> torch.Tensor:
    """From the last block's maps: whether the class is right, and the squared error in ink; (2, B)."""
    output = model.heads(last)
    right = (output.logits.argmax(1) == split.labels).float()
    return torch.stack([right, (output.ink - split.ink).square()])
