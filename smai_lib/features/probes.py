"""What feature maps hold, in numbers: linear probes, and edges.

Features are tensors with a row an image. None of these functions trains a network.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.metrics import root_mean_squared_error

from ..core.layers import scale_pixels
from ..multitask.data import Split
from ..multitask.model import MultiTaskCNN
from .maps import maps

# of the ridge penalty, in units of N times the mean variance of the features; strongest first,
# since among equals the first is chosen
STRENGTHS = (10.0, 1.0, 0.1, 1e-2, 1e-5)
SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])


def probe(features: Sequence[torch.Tensor], splits: Sequence[Split]) -> dict[str, float]:
    """Return what a linear probe (Alain and Bengio 2016) reads from features.

    The probe is a ridge regression of the classes as -1 and 1, and of ink. The class with the
    largest output is predicted. Each task has the strength of the penalty that is best on the
    images to choose on.

    Args:
        features: (N, ...) of the images to fit on, to choose the strength on, and to report on.
        splits: labels and ink of these three.

    Returns:
        accuracy in [0, 1], rmse in units of ink, number of features, and both strengths.
    """
    x, x_choose, x_report = [values.flatten(1).double().numpy() for values in features]
    fit, choose, report = splits
    unit = len(x) * x.var(axis=0).mean()
    classifiers, regressors = {}, {}
    for strength in STRENGTHS:
        classifiers[strength] = RidgeClassifier(alpha=strength * unit).fit(x, fit.labels)
        regressors[strength] = Ridge(alpha=strength * unit).fit(x, fit.ink)
    accuracy = {key: model.score(x_choose, choose.labels) for key, model in classifiers.items()}
    r2 = {key: model.score(x_choose, choose.ink) for key, model in regressors.items()}
    by_accuracy, by_r2 = max(accuracy, key=accuracy.get), max(r2, key=r2.get)
    return {
        "accuracy": classifiers[by_accuracy].score(x_report, report.labels),
        "rmse": root_mean_squared_error(report.ink, regressors[by_r2].predict(x_report)),
        "features": x.shape[1],
        "accuracy_strength": by_accuracy,
        "rmse_strength": by_r2,
    }


def probe_blocks(models: Mapping[str, MultiTaskCNN], splits: Sequence[Split]) -> pd.DataFrame:
    """Return probes of the raw pixels and of every block of every network.

    Args:
        models: networks by name.
        splits: images to fit on, to choose the strength on, and to report on.

    Returns:
        A row a set of features: network, layer, and the results of `probe`. The first row is
        network "none", layer "pixels".
    """
    pixels = [scale_pixels(split.images) for split in splits]
    rows = [{"network": "none", "layer": "pixels", **probe(pixels, splits)}]
    for name, model in models.items():
        maps_of_split = [maps(model, split.images) for split in splits]
        for block in maps_of_split[0]:
            features = [maps_of_block[block] for maps_of_block in maps_of_split]
            rows.append({"network": name, "layer": block, **probe(features, splits)})
    return pd.DataFrame(rows)


def candidates(images: torch.Tensor, side: int) -> dict[str, torch.Tensor]:
    """Return simple pictures of raw images that a map may resemble: {name: (N, side, side)}.

    They are brightness, darkness, the magnitude of the Sobel gradient, and its part towards each
    of four sides: what is brighter there, 0 where it is darker. All are max-pooled, as in a block.
    """
    pixels = scale_pixels(images)
    padded = F.pad(pixels, (1, 1, 1, 1), mode="replicate")  # zeros would make the frame an edge
    gx, gy = F.conv2d(padded, torch.stack([SOBEL, SOBEL.T])[:, None]).split(1, 1)
    pictures = {
        "brightness": pixels,
        "darkness": 1 - pixels,
        "edge, any direction": (gx**2 + gy**2).sqrt(),
        "edge, brighter right": gx.relu(),
        "edge, brighter left": (-gx).relu(),
        "edge, brighter below": gy.relu(),
        "edge, brighter above": (-gy).relu(),
    }
    return {name: F.adaptive_max_pool2d(picture, side)[:, 0] for name, picture in pictures.items()}


def resemblance(model: MultiTaskCNN, images: torch.Tensor, block: str) -> pd.DataFrame:
    """Return the correlation of each map of a block with each of `candidates`.

    Returns:
        Pearson correlation over images and pixels, a row a channel, a column a candidate. Channels
        that are 0 everywhere are left out.
    """
    values = maps(model, images)[block].transpose(0, 1)  # (C, N, H, W)
    pictures = candidates(images, values.shape[-1])
    rows = torch.cat([values.flatten(1), torch.stack(list(pictures.values())).flatten(1)])
    correlations = torch.corrcoef(rows.double())[: len(values), len(values) :]
    table = pd.DataFrame(correlations.numpy(), columns=list(pictures))
    return table.rename_axis("channel").dropna()  # NaN for a constant channel


def filter_energy(model: MultiTaskCNN) -> pd.DataFrame:
    """Return the shares of the squared weights of the first layer's 3 x 3 filters.

    Returns:
        A row a filter: `mean`, the part that sees brightness; `gradient`, the part along the two
        Sobel filters; `rest`. They sum to 1. They have 1, 2 and 6 of nine dimensions, so a random
        filter has 1/9, 2/9 and 6/9 on average.
    """
    filters = model.backbone.block1.conv.weight.detach().flatten(1).double()  # (F, 9)
    directions = torch.stack([torch.ones(9), SOBEL.flatten(), SOBEL.T.flatten()])
    basis = F.normalize(directions.double())  # orthonormal
    shares = (filters @ basis.T).square() / filters.square().sum(1, keepdim=True)
    mean, gradient = shares[:, 0].numpy(), shares[:, 1:].sum(1).numpy()
    table = pd.DataFrame({"mean": mean, "gradient": gradient, "rest": 1 - mean - gradient})
    return table.rename_axis("channel")
