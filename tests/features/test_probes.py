import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from smai_lib.features import probes


@pytest.fixture
def splits(tiny):
    """150 images to fit on, 50 to choose on, 100 to report on."""
    train = tiny.train
    parts = zip(*(column.split([150, 50, 100]) for column in train), strict=True)
    return [train._make(part) for part in parts]


def test_the_scale_of_all_features_does_not_matter(splits):
    features = [split.images.double().flatten(1) for split in splits]
    result = probes.probe(features, splits)
    larger = probes.probe([1000 * x - 5 for x in features], splits)
    assert larger == pytest.approx(result)


def test_a_probe_reads_what_features_hold_and_nothing_else(splits):
    torch.manual_seed(0)
    features = {
        "class": [F.one_hot(split.labels, 10).float() for split in splits],
        "ink": [split.ink[:, None] for split in splits],
        "noise": [torch.rand(len(split.ink), 5) for split in splits],
    }
    result = {name: probes.probe(values, splits) for name, values in features.items()}
    deviation = splits[2].ink.std().item()
    assert result["class"]["accuracy"] == 1 and result["class"]["rmse"] > 0.3 * deviation
    assert result["ink"]["rmse"] < 1e-3 * deviation and result["ink"]["accuracy"] < 0.6
    assert result["noise"]["accuracy"] < 0.3 and result["noise"]["rmse"] > 0.9 * deviation


def test_the_strength_is_not_chosen_on_the_images_reported(splits):
    features = [split.images.float() for split in splits]
    report = splits[2]
    scrambled = report._replace(labels=report.labels.flip(0), ink=report.ink.flip(0))
    first = probes.probe(features, splits)
    second = probes.probe(features, [*splits[:2], scrambled])
    for key in ("accuracy_strength", "rmse_strength"):
        assert first[key] == second[key]
    assert first["accuracy"] > second["accuracy"] and first["rmse"] < second["rmse"]


def test_the_strength_is_the_best_on_the_images_to_choose_on(splits, monkeypatch):
    fit, choose, _ = splits
    splits = [fit, choose, choose]
    features = [split.images.float() for split in splits]
    best = probes.probe(features, splits)
    for strength in probes.STRENGTHS:
        monkeypatch.setattr(probes, "STRENGTHS", [strength])
        alone = probes.probe(features, splits)
        assert alone["accuracy"] <= best["accuracy"] and alone["rmse"] >= best["rmse"]


def test_every_block_is_probed_beside_the_pixels(network, splits):
    table = probes.probe_blocks({"a": network(), "b": network()}, splits)
    assert table[["network", "layer", "features"]].to_numpy().tolist() == [
        ["none", "pixels", 784],
        ["a", "block1", 4 * 14 * 14],
        ["a", "block2", 8 * 7 * 7],
        ["b", "block1", 4 * 14 * 14],
        ["b", "block2", 8 * 7 * 7],
    ]
    # ink is linear in the pixels
    assert table.loc[0, "rmse"] < 0.2 * splits[2].ink.std().item()


CENTRE = F.pad(torch.ones(1, 1), (1, 1, 1, 1))


@pytest.mark.parametrize(
    "kernel, name",
    [
        (CENTRE, "brightness"),
        (-CENTRE, "darkness"),
        (probes.SOBEL, "edge, brighter right"),
        (-probes.SOBEL, "edge, brighter left"),
        (probes.SOBEL.T, "edge, brighter below"),
        (-probes.SOBEL.T, "edge, brighter above"),
    ],
)
def test_a_known_filter_resembles_its_picture(network, splits, kernel, name):
    model = network()
    block = model.backbone.block1
    block.norm = nn.Identity()
    with torch.no_grad():
        block.conv.weight[2] = kernel
        block.conv.bias[2] = 1.0 if name == "darkness" else 0.0  # darkness is 1 - brightness
        block.conv.weight[3], block.conv.bias[3] = 0, -1  # no image excites it
    table = probes.resemblance(model, splits[0].images[:40], "block1")
    assert table.index.tolist() == [0, 1, 2]
    assert table.loc[2].idxmax() == name and table.loc[2, name] > 0.9


def test_the_energy_of_known_and_of_random_filters(network):
    model = network()
    model.backbone.block1.conv = nn.Conv2d(1, 4000, 3)
    with torch.no_grad():
        weight = model.backbone.block1.conv.weight
        weight[0], weight[1] = 0.3, 0.6 * probes.SOBEL - 0.8 * probes.SOBEL.T
        weight[2] = torch.tensor([[1.0, 0, -1], [0, 0, 0], [-1, 0, 1]])
    table = probes.filter_energy(model)
    assert np.allclose(table.iloc[:3], np.eye(3), atol=1e-6)
    assert np.allclose(table.iloc[3:].mean(), [1 / 9, 2 / 9, 6 / 9], atol=0.02)
