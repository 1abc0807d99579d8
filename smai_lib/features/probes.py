"""What a representation holds, in numbers: linear probes, edges, and which channels two networks share.

A representation is a tensor with a row an image. None of these functions trains a network.
"""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
import torch
import torch.nn.functional as F

from ..multitask.fashion_mnist import CLASSES, Split
from ..multitask.model import MultiTaskCNN
from .maps import block_names, floats, maps

STRENGTHS = (
    1e-5,
    1e-2,
    0.1,
    1.0,
    10.0,
)  # of the ridge penalty, in units of the features' mean variance
SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])


def ridge(
    features: torch.Tensor, targets: torch.Tensor, strengths: Sequence[float] = STRENGTHS
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Ridge regressions of targets (N, T) on features (N, D), one a strength: weights (D, T), intercept (T,).

    Closed form (Hoerl and Kennard 1970) in the smaller of D and N unknowns, in float64.

    Args:
        strengths: of the penalty, over N times the features' mean variance: the scale of all features does not matter.
    """
    features, targets = features.double(), targets.double()
    centre, level = features.mean(0), targets.mean(0)
    x, y = features - centre, targets - level
    n, d = x.shape
    gram, right = (x.T @ x, x.T @ y) if d <= n else (x @ x.T, y)
    scale = gram.trace() / d
    for strength in strengths:
        penalty = (strength * scale + 1e-13 * gram.trace()) * torch.eye(len(gram), dtype=gram.dtype)
        solved = torch.cholesky_solve(right, torch.linalg.cholesky(gram + penalty))
        weights = solved if d <= n else x.T @ solved
        yield weights, level - centre @ weights


def probe(
    fit: tuple[torch.Tensor, Split],
    choose: tuple[torch.Tensor, Split],
    report: tuple[torch.Tensor, Split],
) -> dict[str, float]:
    """Linear probe (Alain and Bengio 2016) for class and for ink: what a linear head could read off.

    One ridge regression on the classes as -1 and 1 and on the ink; the largest class output is the predicted class.

    Args:
        fit, choose, report: features (N, ...) and their Split: to fit on, to choose the strength on, of STRENGTHS and
            for each task by itself, and to report on; three sets without a common image.

    Returns:
        accuracy, in [0, 1]; rmse, in units of ink; features, how many; both strengths.
    """
    flat = [features.flatten(1) for features, _ in (fit, choose, report)]
    targets = torch.cat([2.0 * F.one_hot(fit[1].labels, len(CLASSES)) - 1, fit[1].ink[:, None]], 1)
    best = {"accuracy": (-float("inf"),), "rmse": (-float("inf"),)}
    for strength, (weights, intercept) in zip(STRENGTHS, ridge(flat[0], targets), strict=True):
        weights, intercept = weights.float(), intercept.float()
        chosen, found = (
            _measure(x @ weights + intercept, split)
            for x, (_, split) in zip(flat[1:], (choose, report), strict=True)
        )
        for task, sign in (("accuracy", 1), ("rmse", -1)):
            best[task] = max(best[task], (sign * chosen[task], found[task], strength))
    return {
        "accuracy": best["accuracy"][1],
        "rmse": best["rmse"][1],
        "features": flat[0].shape[1],
        "accuracy_strength": best["accuracy"][2],
        "rmse_strength": best["rmse"][2],
    }


def _measure(outputs: torch.Tensor, split: Split) -> dict[str, float]:
    right = outputs[:, : len(CLASSES)].argmax(1) == split.labels
    return {
        "accuracy": right.double().mean().item(),
        "rmse": (outputs[:, len(CLASSES)] - split.ink).square().mean().sqrt().item(),
    }


def probe_blocks(
    models: Mapping[str, MultiTaskCNN], fit: Split, choose: Split, report: Split
) -> pd.DataFrame:
    """Probes of the raw pixels and of every block of every network.

    Returns:
        A row a representation: network, layer, and what `probe` returns. The first is network "none", layer "pixels".
    """
    splits = (fit, choose, report)
    rows = [
        {"network": "none", "layer": "pixels"}
        | probe(*((floats(split.images), split) for split in splits))
    ]
    for name, model in models.items():
        held = [(maps(model, split.images), split) for split in splits]
        rows += [
            {"network": name, "layer": block}
            | probe(*((values[block], split) for values, split in held))
            for block in block_names(model)
        ]
    return pd.DataFrame(rows)


def candidates(images: torch.Tensor, side: int) -> dict[str, torch.Tensor]:
    """Simple pictures of raw images that a map may resemble: {name: (N, side, side)}.

    Brightness, darkness, the Sobel gradient's magnitude, and the gradient towards each of four sides
    (what is brighter there; 0 where it is darker). Pooled by maximum, as blocks pool.
    """
    pixels = floats(images)
    padded = F.pad(
        pixels, (1, 1, 1, 1), mode="replicate"
    )  # or the frame of the picture were an edge
    gx, gy = F.conv2d(padded, torch.stack([SOBEL, SOBEL.T])[:, None]).split(1, 1)
    full = {
        "brightness": pixels,
        "darkness": 1 - pixels,
        "edge, any direction": (gx**2 + gy**2).sqrt(),
        "edge, brighter right": gx.relu(),
        "edge, brighter left": (-gx).relu(),
        "edge, brighter below": gy.relu(),
        "edge, brighter above": (-gy).relu(),
    }
    return {name: F.adaptive_max_pool2d(picture, side)[:, 0] for name, picture in full.items()}


def resemblance(model: MultiTaskCNN, images: torch.Tensor, block: str) -> pd.DataFrame:
    """Pearson correlation of each map of a block with each of the `candidates`, over images and pixels.

    A row a channel, without the silent ones; a column a candidate.
    """
    values = maps(model, images, [block])[block]  # (N, C, H, W)
    pictures = candidates(images, values.shape[-1])
    likeness = correlations(values.transpose(0, 1), torch.stack(list(pictures.values())))
    return pd.DataFrame(likeness.numpy(), columns=list(pictures)).rename_axis("channel").dropna()


def correlations(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Pearson's, of each row of `first`, (A, ...), with each of `second`, (B, ...): (A, B), NaN for a constant row."""
    rows = torch.cat([first.flatten(1), second.flatten(1)]).double()
    return torch.corrcoef(rows)[: len(first), len(first) :]


def filter_energy(model: MultiTaskCNN) -> pd.DataFrame:
    """What the first layer's 3 x 3 filters are made of, a row a filter: shares of its squared weights, sum 1.

    `mean` is the part that sees brightness, `gradient` the part along the two Sobel filters, `rest` what is left:
    1, 2 and 6 of the nine dimensions, so a random filter has 1/9, 2/9 and 6/9 on average.
    """
    filters = model.backbone.block1.conv.weight.detach().flatten(1).double()  # (F, 9)
    basis = F.normalize(
        torch.stack([torch.ones(9), SOBEL.flatten(), SOBEL.T.flatten()]).double()
    )  # orthogonal
    shares = (filters @ basis.T).square() / filters.square().sum(1, keepdim=True)
    mean, gradient = shares[:, 0], shares[:, 1:].sum(1)
    return pd.DataFrame(
        {"mean": mean.numpy(), "gradient": gradient.numpy(), "rest": (1 - mean - gradient).numpy()}
    ).rename_axis("channel")


def same_channel(a: torch.Tensor, b: torch.Tensor) -> float:
    """Share of a's channels whose most correlated channel in b, over images and pixels, has the same number.

    Of maps (N, C, H, W) of the same images; 1 / C for unrelated networks. Channels silent in `a` are left out.
    """
    likeness = correlations(a.transpose(0, 1), b.transpose(0, 1)).nan_to_num(
        -2
    )  # below every correlation
    live = likeness.amax(1) > -2
    return (likeness.argmax(1) == torch.arange(len(likeness)))[live].double().mean().item()
