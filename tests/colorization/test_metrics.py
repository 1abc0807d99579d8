import math

import numpy as np
import pytest
import torch

from smai_lib.colorization import metrics
from smai_lib.colorization.baselines import GreyTable
from smai_lib.colorization.data import ColorSplit
from smai_lib.colorization.metrics import aggregate, bootstrap, mean_scores, score
from smai_lib.colorization.model import ColorizationUNet, Colorizer
from smai_lib.colorization.palette import decode
from smai_lib.core.errors import ConfigError


@pytest.fixture
def network(data):
    torch.manual_seed(0)
    model = Colorizer(ColorizationUNet(num_filters=2, num_colors=8), data.palette)
    torch.nn.init.normal_(model.network.classifier.weight)
    return model


def test_psnr_and_colorfulness_by_hand():
    image = torch.zeros(2, 3, 8, 8)
    assert metrics.psnr(image + 16, image).tolist() == pytest.approx([24.0484] * 2, abs=1e-4)
    assert metrics.psnr(image, image)[0].item() == pytest.approx(10 * math.log10(12 * 255**2))
    image[1, 0, :4] = 100  # half red: rg is 100 or 0, yb is 50 or 0
    expected = [0, 1.3 * math.hypot(50, 25)]
    assert metrics.colorfulness(image).tolist() == pytest.approx(expected)


def test_metrics_agree_with_the_task(data, tables, metrics_of):
    table = tables["luminance table"]
    scores = score(table, data.test, data.palette)
    values, expected = aggregate(scores), metrics_of(table, data.test)
    for name in ("accuracy", "nll", "balanced_accuracy"):
        assert values[name] == pytest.approx(expected[name], rel=1e-5)
    predicted = table.log_probs[0].argmax(1)[data.test.grey[:, 0].long()]
    psnr = metrics.psnr(decode(predicted, data.palette), data.test.images)
    assert scores["psnr"] == pytest.approx(psnr.numpy(), rel=1e-5)
    # the known grey value brings a prediction nearer to the truth
    assert values["psnr_grey"] > values["psnr_mean"] > values["psnr"]


def test_scoring_in_batches_changes_nothing(data, tables, monkeypatch):
    table = tables["luminance and row table"]
    whole = score(table, data.test, data.palette)
    monkeypatch.setattr(metrics, "BATCH_PIXELS", 3 * 1024)
    batches = score(table, data.test, data.palette)
    assert all(np.allclose(whole[name], batches[name]) for name in whole)  # image by image


def test_calibration_error_by_hand():
    """One of two colours is always predicted with 0.8, and right three times in four."""
    palette = torch.tensor([[0, 0, 0], [255, 255, 255]], dtype=torch.uint8)
    table = GreyTable(torch.tensor([0.2, 0.8]).log().expand(1, 256, 2).contiguous())
    colors = torch.ones(1, 4, 4, dtype=torch.uint8)
    colors[0, 0] = 0
    images = decode(colors, palette)
    scores = score(table, ColorSplit(images, images[:, :1], colors, torch.zeros(1)), palette)
    assert scores["color_nll"][0] == pytest.approx([-4 * math.log(0.2), -12 * math.log(0.8)])
    assert aggregate(scores)["ece"] == pytest.approx(0.05, abs=1e-6)


def test_mirror_averaging_lowers_the_loss_of_a_network_and_changes_no_table(data, tables, network):
    def nll(model, mirror):
        return aggregate(score(model, data.test, data.palette, mirror=mirror))["nll"]

    table = tables["luminance and row table"]
    assert nll(table, True) == pytest.approx(nll(table, False), abs=1e-6)
    assert nll(network, True) < nll(network, False)  # a mean's loss is below the mean loss


def test_a_bias_is_added_to_the_logits(data, tables):
    table, bias = tables["luminance and row table"], torch.arange(8.0)
    biased = score(table, data.test, data.palette, bias=bias.view(1, 8, 1, 1), mirror=True)
    expected = score(GreyTable(table.log_probs + bias), data.test, data.palette)
    assert biased["nll"] == pytest.approx(expected["nll"])


def test_mean_scores_are_means_of_the_seeds_metrics(data, tables, network):
    seeds = [score(model, data.test, data.palette) for model in (*tables.values(), network)]
    mean = aggregate(mean_scores(seeds))
    for key in ("accuracy", "nll", "balanced_accuracy", "psnr"):
        assert mean[key] == pytest.approx(np.mean([aggregate(seed)[key] for seed in seeds]))


def test_bootstrap_intervals(data, tables):
    names = ("majority colour", "luminance table")
    low, high = (score(tables[name], data.test, data.palette) for name in names)
    accuracy = bootstrap(high).loc["accuracy"]
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    # of the mean of ten values, by the normal approximation
    half = 1.96 * high["accuracy"].std() / math.sqrt(10)
    assert accuracy["high"] - accuracy["low"] == pytest.approx(2 * half, rel=0.2)
    difference = bootstrap(high, low)
    assert difference.loc["accuracy", "low"] > 0 > difference.loc["nll", "high"]
    assert (bootstrap(high, high) == 0).all(axis=None)  # resamples are paired
    with pytest.raises(ConfigError, match="same images"):
        bootstrap(high, score(tables[names[0]], data.validation, data.palette))


def test_balanced_accuracy_of_a_resample_counts_what_occurs():
    scores = {
        "nll": np.zeros(2),
        "pixels": np.array([[4.0, 0], [0, 4]]),
        "correct": np.array([[4.0, 0], [0, 1]]),
        "calibration": np.zeros((2, 1, 2)),
    }
    balanced = aggregate(scores, np.array([[1.0, 1], [2, 0]]))["balanced_accuracy"]
    assert balanced.tolist() == [(1 + 0.25) / 2, 1]
