import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from smai_lib.features import probes
from smai_lib.features.maps import maps
from smai_lib.multitask.fashion_mnist import Split
from smai_lib.multitask.model import MultiTaskCNN


def network(seed=0, num_layers=2):
    torch.manual_seed(seed)
    return MultiTaskCNN(num_layers=num_layers, base_filters=4, dropout_rate=0.0).eval()


def part(split, first, last):
    return Split(*(column[first:last] for column in split))


def three(split):
    return part(split, 0, 150), part(split, 150, 200), part(split, 200, 300)


@pytest.mark.parametrize("images, features", [(40, 7), (20, 31)])
def test_ridge_is_scikit_learns_in_both_forms(images, features):
    generator = torch.Generator().manual_seed(0)
    x = 3 + torch.randn(images, features, generator=generator).double()
    y = torch.randn(images, 2, generator=generator).double()
    for strength, (weights, intercept) in zip((0.01, 2.0), probes.ridge(x, y, (0.01, 2.0)), strict=True):
        alpha = strength * images * x.var(0, correction=0).mean().item()
        witness = Ridge(alpha=alpha).fit(x.numpy(), y.numpy())
        assert np.allclose(weights.T, witness.coef_) and np.allclose(intercept, witness.intercept_)


def test_the_probe_of_pixels_measures_ink_exactly_and_names_more_than_chance(tiny):
    splits = three(tiny.train)
    table = probes.probe_blocks({}, *splits)
    assert table[["network", "layer", "features"]].to_numpy().tolist() == [["none", "pixels", 784]]
    spread = splits[2].ink.std().item()
    assert table["rmse"].item() < 0.2 * spread and table["accuracy"].item() > 0.5


def test_the_probe_reads_what_the_features_hold_and_nothing_else(tiny):
    splits = three(tiny.train)
    given = {"class": lambda split: torch.nn.functional.one_hot(split.labels, 10).float(),
             "ink": lambda split: split.ink[:, None], "noise": lambda split: torch.rand(len(split.ink), 5)}
    torch.manual_seed(0)
    found = {name: probes.probe(*((features(split), split) for split in splits)) for name, features in given.items()}
    spread = splits[2].ink.std().item()
    assert found["class"]["accuracy"] == 1 and found["class"]["rmse"] > 0.3 * spread
    assert found["ink"]["rmse"] < 1e-3 * spread and found["ink"]["accuracy"] < 0.6
    assert found["noise"]["accuracy"] < 0.3 and found["noise"]["rmse"] > 0.9 * spread


def test_the_strength_is_chosen_on_its_own_images_not_on_those_reported(tiny):
    fit, choose, report = three(tiny.train)
    features = [split.images.float().flatten(1) for split in (fit, choose, report)]
    scrambled = Split(report.images, report.labels.flip(0), report.ink.flip(0))
    first = probes.probe((features[0], fit), (features[1], choose), (features[2], report))
    second = probes.probe((features[0], fit), (features[1], choose), (features[2], scrambled))
    for key in ("accuracy_strength", "rmse_strength"):
        assert first[key] == second[key]
    assert first["accuracy"] > second["accuracy"] and first["rmse"] < second["rmse"]


def test_probes_of_every_block_beside_the_pixels(tiny):
    table = probes.probe_blocks({"a": network(), "b": network(1, 3)}, *three(tiny.train))
    assert list(zip(table["network"], table["layer"], strict=True)) == [
        ("none", "pixels"), ("a", "block1"), ("a", "block2"), ("b", "block1"), ("b", "block2"), ("b", "block3")]
    assert table["features"].tolist() == [784, 4 * 14 * 14, 8 * 7 * 7, 4 * 14 * 14, 8 * 7 * 7, 16 * 3 * 3]


@pytest.mark.parametrize("kernel, name", [
    (torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]), "brightness"),
    (torch.tensor([[0.0, 0, 0], [0, -1, 0], [0, 0, 0]]), "darkness"),
    (probes.SOBEL, "edge, brighter right"),
    (-probes.SOBEL, "edge, brighter left"),
    (probes.SOBEL.T, "edge, brighter below"),
    (-probes.SOBEL.T, "edge, brighter above"),
])
def test_a_channel_with_a_known_filter_resembles_its_picture(tiny, kernel, name):
    model = network()
    block = model.backbone.block1
    with torch.no_grad():
        block.conv.weight[2] = kernel
        block.conv.bias[2] = 1.0 if name == "darkness" else 0.0  # 1 - x, as that picture is
        block.conv.weight[3] = 0
        block.conv.bias[3] = -1  # silent
    table = probes.resemblance(model, tiny.train.images[:40], "block1")
    assert table.index.tolist() == [0, 1, 2]
    assert table.loc[2].idxmax() == name and table.loc[2, name] > 0.9


def test_the_energy_of_known_filters_and_of_random_ones():
    torch.manual_seed(0)
    model = network()
    model.backbone.block1.conv = torch.nn.Conv2d(1, 4000, 3)
    with torch.no_grad():
        weight = model.backbone.block1.conv.weight
        weight[0], weight[1] = 0.3, 0.6 * probes.SOBEL - 0.8 * probes.SOBEL.T
        weight[2] = torch.tensor([[1.0, 0, -1], [0, 0, 0], [-1, 0, 1]])
    table = probes.filter_energy(model)
    assert np.allclose(table.iloc[:3], np.eye(3), atol=1e-6)
    assert np.allclose(table.iloc[3:].mean(), [1 / 9, 2 / 9, 6 / 9], atol=0.02)


def linear_cka(a, b):
    return (probes.gram(a) * probes.gram(b)).sum().item()


def test_cka_ignores_rotation_scale_and_order_and_not_a_shuffle_of_images():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    assert linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1, abs=1e-6)
    assert linear_cka(x.view(200, 6, 1), x.flip(1)) == pytest.approx(1, abs=1e-6)
    assert linear_cka(x, x.flip(0)) < 0.1
    assert linear_cka(x, x * torch.tensor([5.0, 1, 1, 1, 1, 1])) < 0.7


def test_cka_is_kornblith_and_others_formula():
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(50, d, generator=generator).double() for d in (4, 9))
    x, y = x - x.mean(0), y - y.mean(0)
    expected = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert linear_cka(x + 1, y - 2) == pytest.approx(expected.item())


def test_cka_of_other_images_is_refused():
    with pytest.raises(RuntimeError, match="must match"):
        linear_cka(torch.rand(3, 2), torch.rand(4, 2))


def test_networks_are_compared_at_the_blocks_that_both_have(tiny):
    images = tiny.train.images[:50]
    models = {"a": network(0), "b": network(1), "c": network(2, num_layers=3)}
    table = probes.compare(models, images)
    assert table[["first", "second", "block"]].to_numpy().tolist() == [
        [a, b, block] for a, b in ("ab", "ac", "bc") for block in ("block1", "block2")]
    expected = linear_cka(maps(models["a"], images)["block2"], maps(models["b"], images)["block2"])
    assert table["cka"].iloc[1] == pytest.approx(expected)
    shuffled = network(0)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        block = shuffled.backbone.block1
        block.conv.weight.copy_(block.conv.weight[order])
        block.conv.bias.copy_(block.conv.bias[order])
    same = probes.compare({"a": network(0), "shuffled": shuffled}, images)
    assert same.query("block == 'block1'")["cka"].item() == pytest.approx(1, abs=1e-6)


def test_kinds_are_compared_across_seeds_only_and_both_ways_round(tiny):
    images = tiny.train.images[:50]
    models = {(kind, seed): network(10 * number + seed) for number, kind in enumerate("ab") for seed in (0, 1)}
    table = probes.compare_kinds(models, images)
    assert table.index.names == ["block", "first", "second"] and len(table) == 2 * 4
    held = {name: maps(model, images)["block2"] for name, model in models.items()}
    pair = [linear_cka(held["a", 0], held["b", 1]), linear_cka(held["a", 1], held["b", 0])]
    for key in (("block2", "a", "b"), ("block2", "b", "a")):
        assert table.loc[key].tolist() == pytest.approx([np.mean(pair), min(pair), max(pair)])
    own = linear_cka(held["b", 0], held["b", 1])
    assert table.loc[("block2", "b", "b")].tolist() == pytest.approx([own] * 3)
    assert pair[0] != pytest.approx(pair[1]) != own


def test_channels_are_found_again_under_their_number_or_not():
    x = torch.randn(30, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    assert probes.same_channel(x, 2 * x + 1) == 1
    assert probes.same_channel(x, x[:, [0, 2, 1, 3]]) == 0.5
    assert probes.same_channel(x, -x) == 0  # the opposite is not the same
    silent = x.clone()
    silent[:, 2] = 0
    assert probes.same_channel(silent, x) == 1  # a silent channel is no evidence
    assert probes.same_channel(x, silent) == 0.75
