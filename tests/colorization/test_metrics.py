import math

import numpy as np
import pytest
import torch

from smai_lib.colorization import metrics as color_metrics
from smai_lib.colorization.data import ColorSplit
from smai_lib.colorization.model import ColorizationUNet, Colorizer
from smai_lib.colorization.palette import decode
from smai_lib.colorization.tables import GreyTable


def test_psnr_and_colorfulness_by_hand():
    image = torch.zeros(2, 3, 8, 8)
    assert color_metrics.psnr(image + 16, image).tolist() == pytest.approx([24.0484] * 2, abs=1e-4)
    assert color_metrics.psnr(image, image)[0].item() == pytest.approx(10 * math.log10(12 * 255**2))
    image[1, 0, :4] = 100  # half red: rg is 100 or 0, yb is 50 or 0
    spread, mean = math.hypot(50, 25), math.hypot(50, 25)
    expected = [0, spread + 0.3 * mean]
    assert color_metrics.colorfulness(image).tolist() == pytest.approx(expected)


def test_scores_agree_with_the_objective(data, tables, metrics_of):
    table = tables["luminance table"]
    scores = color_metrics.score(table, data.test, data.palette)
    found = scores.metrics().iloc[0]
    expected = metrics_of(table, data.test)
    for name in ("accuracy", "nll", "balanced_accuracy"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)
    guess = table.log_probs[0].argmax(1)[data.test.grey[:, 0].long()]
    psnr = color_metrics.psnr(decode(guess, data.palette), data.test.images)
    assert scores.means["psnr"] == pytest.approx(psnr.numpy(), rel=1e-5)
    # the grey value is known, so an answer that keeps it is nearer to the truth
    assert found["psnr_grey"] > found["psnr_mean"] > found["psnr"]
    blocks = color_metrics.score(table, ColorSplit(*(x[3:5] for x in data.test)), data.palette)
    assert blocks.means["nll"] == pytest.approx(scores.means["nll"][3:5])


def test_scoring_in_blocks_changes_nothing(data, tables, monkeypatch):
    table = tables["luminance and row table"]
    whole = color_metrics.score(table, data.test, data.palette).metrics()
    monkeypatch.setattr(color_metrics, "SCORED_PIXELS", 3 * 1024)
    blocks = color_metrics.score(table, data.test, data.palette).metrics()
    assert np.allclose(whole, blocks)


def test_calibration_error_by_hand():
    """One of two colours always foretold with 0.8, right three times in four."""
    palette = torch.tensor([[0, 0, 0], [255, 255, 255]], dtype=torch.uint8)
    table = GreyTable(torch.tensor([0.2, 0.8]).log().expand(1, 256, 2).contiguous())
    colors = torch.ones(1, 4, 4, dtype=torch.uint8)
    colors[0, 0] = 0
    images = decode(colors, palette)
    split = ColorSplit(images, images[:, :1], colors, torch.zeros(1))
    scores = color_metrics.score(table, split, palette)
    metrics = scores.metrics().iloc[0]
    assert scores.color_nll[0] == pytest.approx([-4 * math.log(0.2), -12 * math.log(0.8)])
    assert metrics["ece"] == pytest.approx(0.05, abs=1e-6)
    assert metrics["accuracy"] == 0.75 and metrics["balanced_accuracy"] == 0.5
    assert metrics["nll"] == pytest.approx(-0.75 * math.log(0.8) - 0.25 * math.log(0.2))


def test_mirror_averaging(data, tables):
    table = tables["luminance and row table"]
    plain = color_metrics.score(table, data.test, data.palette).metrics()
    # a table takes no notice of neighbours, so mirroring there and back changes nothing
    averaged = color_metrics.score(table, data.test, data.palette, mirror=True).metrics()
    assert np.allclose(plain, averaged, atol=1e-6)
    torch.manual_seed(0)
    network = Colorizer(ColorizationUNet(num_filters=2, num_colors=8), data.palette)
    torch.nn.init.normal_(network.network.classifier.weight)
    plain = color_metrics.score(network, data.test, data.palette).metrics()
    averaged = color_metrics.score(network, data.test, data.palette, mirror=True).metrics()
    assert averaged["nll"].item() < plain["nll"].item()  # a mean's loss is below the mean loss


def test_bootstrap_intervals(data, tables):
    low, high = (
        color_metrics.score(tables[name], data.test, data.palette)
        for name in ("majority colour", "luminance table")
    )
    intervals = color_metrics.bootstrap(high, resamples=500)
    assert (intervals["low"] <= intervals["high"]).all()
    accuracy = intervals.loc["accuracy"]
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    # of the mean of ten values, by the normal approximation
    half = 1.96 * high.means["accuracy"].std() / math.sqrt(10)
    assert accuracy["high"] - accuracy["low"] == pytest.approx(2 * half, rel=0.2)
    difference = color_metrics.bootstrap(high, low, resamples=500)
    assert difference.loc["accuracy", "low"] > 0 > difference.loc["nll", "high"]
    same = color_metrics.bootstrap(high, high, resamples=50)
    assert (same == 0).all(axis=None)
    with pytest.raises(ValueError, match="same images"):
        color_metrics.bootstrap(
            high, color_metrics.score(tables["majority colour"], data.validation, data.palette)
        )


def test_balanced_accuracy_of_a_resample_counts_what_occurs():
    scores = color_metrics.Scores(
        {},
        np.array([[4.0, 0], [0, 4]]),
        np.array([[4.0, 0], [0, 1]]),
        np.zeros((2, 2)),
        np.zeros((2, 1, 2)),
    )
    found = scores.metrics(np.array([[1.0, 1], [2, 0]]))["balanced_accuracy"].tolist()
    assert found == [(1 + 0.25) / 2, 1]
