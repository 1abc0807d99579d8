"""Feature maps of a multi-task network, and what each of their channels contributes.

A *map* is one channel of a layer's output for one image. The maps of a block come after its ReLU,
so they are never negative. Images are raw everywhere: (N, 1, 28, 28) uint8.
"""

import copy
from collections.abc import Callable, Sequence

import pandas as pd
import torch

from ..core.errors import ConfigError
from ..multitask.data import CLASSES, Split
from ..multitask.model import IMAGE_SIZE, MultiTaskCNN, scale_pixels

BATCH = 250  # images; larger batches are no faster and need more memory
REPLACEMENTS = ("mean", "zero")


def block_names(model: MultiTaskCNN) -> list[str]:
    """Return the names of the blocks, first to last."""
    return [name for name, _ in model.backbone.named_children()]


def check_images(images: torch.Tensor) -> torch.Tensor:
    """Return raw images as (N, 1, 28, 28), also a single (28, 28) or (1, 28, 28) one.

    Raises:
        ConfigError: `images` is no uint8 tensor of such a shape.
    """
    side = IMAGE_SIZE
    expected = (
        f"a uint8 tensor of shape ({side}, {side}), (1, {side}, {side}) or (N, 1, {side}, {side})"
    )
    if not isinstance(images, torch.Tensor):
        raise ConfigError(f"images: found {type(images).__name__}, expected {expected}")
    if images.dtype != torch.uint8:
        raise ConfigError(
            f"images: found {images.dtype}, expected {expected}: raw intensities, 0 to 255"
        )
    if images.ndim > 4 or (1, *images.shape)[-3:] != (1, side, side):
        raise ConfigError(f"images: found shape {tuple(images.shape)}, expected {expected}")
    return images.reshape(-1, 1, side, side)


@torch.inference_mode()
def maps(
    model: MultiTaskCNN,
    images: torch.Tensor,
    layers: Sequence[str] | None = None,
    reduce: Callable[[torch.Tensor], torch.Tensor] = torch.clone,
) -> dict[str, torch.Tensor]:
    """Return the maps of each layer for raw images: {layer: (N, C, H, W) float32}.

    Args:
        model: the network, which is left as it is; one without heads will do.
        images: see `check_images`.
        layers: names of blocks, or of layers of a block such as "block1.conv"; default: all blocks.
        reduce: reduces the maps (B, C, H, W) of a batch to the tensor to keep.

    Raises:
        ConfigError: an image is unusable, or a layer does not exist.
    """
    images = check_images(images)
    backbone = copy.deepcopy(model.backbone).eval()
    modules = dict(backbone.named_modules())
    del modules[""]  # the backbone itself
    layers = block_names(model) if layers is None else layers
    kept = {layer: [] for layer in layers}
    for layer in layers:
        if layer not in modules:
            raise ConfigError(f"layer: found {layer!r}, expected one of {', '.join(modules)}")
        # the next layer may be a ReLU in place, so the maps are reduced or copied at once
        modules[layer].register_forward_hook(_keeper(kept[layer], reduce))
    for batch in images.split(BATCH):
        backbone(scale_pixels(batch))
    return {layer: torch.cat(batches) for layer, batches in kept.items()}


def _keeper(kept: list[torch.Tensor], reduce: Callable[[torch.Tensor], torch.Tensor]) -> Callable:
    """Return a forward hook that appends a layer's reduced output to `kept`."""

    def hook(module, inputs, output):
        kept.append(reduce(output))

    return hook


def responses(model: MultiTaskCNN, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return each channel's response to each image, the maximum of its map: {block: (N, C)}."""
    return maps(model, images, reduce=lambda values: values.amax((2, 3)))


def most_exciting(response: torch.Tensor, channel: int, count: int = 9) -> torch.Tensor:
    """Return the indices (count,) of the images with a channel's largest responses (N, C)."""
    return response[:, channel].topk(count).indices


def purity(response: torch.Tensor, labels: torch.Tensor, count: int = 9) -> pd.DataFrame:
    """Return the most common label among the images that excite a channel most, and its share.

    Args:
        response: (N, C) of `responses`.
        labels: (N,) classes.
        count: number of most exciting images.

    Returns:
        A row a channel: channel, label, share. Channels without any response are left out.
    """
    rows = []
    for channel in response.amax(0).nonzero().flatten().tolist():
        excited = labels[most_exciting(response, channel, count)]
        counts = excited.bincount(minlength=len(CLASSES))
        share = counts.max().item() / count
        rows.append({"channel": channel, "label": int(counts.argmax()), "share": share})
    return pd.DataFrame(rows)


def activity(response: dict[str, torch.Tensor]) -> pd.DataFrame:
    """Return how active each channel is over the images.

    Args:
        response: of `responses`.

    Returns:
        A row a channel: block, channel, largest response, share of images with a response, and
        `dead` if no image has one: then no gradient reaches the channel's weights.
    """
    tables = []
    for block, values in response.items():
        columns = {
            "block": block,
            "channel": range(values.shape[1]),
            "largest": values.amax(0).numpy(),
            "active_share": (values > 0).float().mean(0).numpy(),
        }
        tables.append(pd.DataFrame(columns))
    table = pd.concat(tables, ignore_index=True)
    return table.assign(dead=table["largest"] == 0)


@torch.inference_mode()
def ablate(model: MultiTaskCNN, split: Split, *, replace_by: str = "mean") -> pd.DataFrame:
    """Return what the network loses without each channel.

    Args:
        model: the network, which is put into evaluation mode.
        split: images to measure on.
        replace_by: "mean" replaces a channel by its mean map over the images, so that only the
            differences between images are lost. "zero" also shifts everything that depends on the
            channel's mean, above all the ink.

    Returns:
        A row a channel: block, channel, accuracy_cost (in [0, 1], above 0 if it was needed),
        accuracy_se (its standard error over images), rmse_cost (in units of ink).

    Raises:
        ConfigError: `replace_by` is unknown.
    """
    if replace_by not in REPLACEMENTS:
        expected = ", ".join(REPLACEMENTS)
        raise ConfigError(f"replace_by: found {replace_by!r}, expected one of {expected}")
    values_of_block = maps(model.eval(), split.images)
    before = _errors(model, values_of_block[block_names(model)[-1]], split)
    tables = []
    for number, (block, values) in enumerate(values_of_block.items(), start=1):
        later_blocks = model.backbone[number:]
        mean = values.mean(0) if replace_by == "mean" else torch.zeros_like(values[0])
        after = []
        for channel in range(len(mean)):
            changed = values.clone()
            changed[:, channel] = mean[channel]
            last = torch.cat([later_blocks(batch) for batch in changed.split(BATCH)])
            after.append(_errors(model, last, split))
        tables.append(_costs(before, torch.stack(after)).assign(block=block))
    table = pd.concat(tables, ignore_index=True)
    return table[["block", "channel", "accuracy_cost", "accuracy_se", "rmse_cost"]]


def _errors(model: MultiTaskCNN, last_maps: torch.Tensor, split: Split) -> torch.Tensor:
    """Return whether each image is misclassified, and its squared error of ink: (2, N)."""
    output = model.heads(last_maps)
    wrong = (output.logits.argmax(1) != split.labels).float()
    return torch.stack([wrong, (output.ink - split.ink).square()])


def _costs(before: torch.Tensor, after: torch.Tensor) -> pd.DataFrame:
    """Return the costs of channels from the errors before (2, N) and without each (C, 2, N)."""
    more_wrong = after[:, 0] - before[0]
    rmse = after[:, 1].mean(1).sqrt() - before[1].mean().sqrt()
    return pd.DataFrame(
        {
            "channel": range(len(after)),
            "accuracy_cost": more_wrong.mean(1).numpy(),
            "accuracy_se": (more_wrong.std(1) / len(before[0]) ** 0.5).numpy(),
            "rmse_cost": rmse.numpy(),
        }
    )
