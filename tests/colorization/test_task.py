import math

import numpy as np
import pytest
import torch

from smai_lib.colorization.data import ColorSplit
from smai_lib.colorization.task import Colorization, mirror_and_shift
from smai_lib.core.training import evaluate, fit
from tests.conftest import every_move


def test_loss_and_metrics_by_hand(config):
    """Three images of two pixels, in batches of two and one; most of the colours are absent."""
    task = Colorization(config())
    colors = torch.tensor([[0, 1], [1, 1], [0, 1]]).view(3, 1, 2)
    probs_of_1 = torch.tensor([[0.2, 0.6], [0.4, 0.9], [0.7, 0.8]]).view(3, 1, 2)
    logits = torch.stack([1 - probs_of_1, probs_of_1, *torch.zeros(6, 3, 1, 2)], 1).log()
    split = ColorSplit(None, None, colors, None)
    total = 0
    for part in (slice(0, 2), slice(2, 3)):
        loss, sums = task.loss(logits[part], split, part)
        total = total + sums
    assert loss.item() == pytest.approx(-math.log(0.3 * 0.8) / 2)
    nll = -math.log(0.8 * 0.6 * 0.4 * 0.9 * 0.3 * 0.8) / 6
    expected = {
        "loss": nll,
        "nll": nll,
        "accuracy": 4 / 6,
        "balanced_accuracy": (1 / 2 + 3 / 4) / 2,
    }
    assert task.metrics(total) == pytest.approx(expected)


def test_the_class_loss_is_added_with_its_weight_and_left_out_of_metrics(data, config):
    task, model = config(model="unet", class_weight=0.5).build(data, 0)
    part = slice(0, 10)
    output = model.train()(task.inputs(data.train, part))
    loss, sums = task.loss(output, data.train, part)
    plain, plain_sums = task.loss(output.logits, data.train, part)
    log_probs = output.class_logits.log_softmax(1)
    class_loss = -log_probs[range(10), data.train.labels[part]].mean()
    assert loss.item() == pytest.approx((plain + 0.5 * class_loss).item())
    assert torch.equal(sums, plain_sums)


@pytest.mark.parametrize("keys", [{"model": "cnn_prior"}, {"model": "unet", "class_weight": 0.1}])
def test_every_weight_learns_and_the_network_beats_its_prior(
    data, config, tables, metrics_of, keys
):
    choice = config(batch_size=4, learning_rate=1e-2, **keys)
    task, network = choice.build(data, 0)
    untrained = evaluate(network, task, data.validation)["nll"]
    fitted = fit(network, task, data.train, data.validation, choice, seed=0, device="cpu")
    assert fitted.rows[-1]["val_nll"] < untrained
    assert all(x.grad.abs().sum() > 0 for x in network.parameters())


def test_grey_and_colours_are_mirrored_and_shifted_with_their_image(data):
    split, mirrored = data.validation, torch.arange(10) < 5
    moved = mirror_and_shift(split, mirrored, torch.full((10,), 3), torch.full((10,), -2))
    assert torch.equal(moved.labels, split.labels)
    for before, after in zip(split[:3], moved[:3], strict=True):
        before = torch.cat([before[:5].flip(-1), before[5:]])
        assert torch.equal(after[..., 3:, :-2], before[..., :-3, 2:])  # what stays in the picture
        assert torch.equal(after[..., 0, :-2], before[..., 3, 2:])  # the border is not doubled
        assert torch.equal(after[..., 3:, -1], before[..., :-3, -3])


@pytest.mark.parametrize("keys", [{"mirror": True}, {"shift": 2}])
def test_augmentation_is_drawn_anew_for_every_image(data, config, keys):
    task = Colorization(config(**keys))
    torch.manual_seed(0)
    augmented, second = task.augment(data.train), task.augment(data.train)
    assert not torch.equal(augmented.grey, second.grey)
    drawn = {}  # number of images by move
    for move, moved in every_move(data.train, mirror=1, shift=2):
        drawn[move] = (moved.grey == augmented.grey).flatten(1).all(1).sum()
    assert sum(drawn.values()) == 40
    assert (10 < sum(drawn[move] for move in drawn if move[0]) < 30) == ("mirror" in keys)
    assert (sum(count > 0 for count in drawn.values()) > 10) == ("shift" in keys)


def test_images_stay_as_they_are_without_augmentation(data, config):
    assert Colorization(config()).augment(data.train) is data.train


def test_wandb_shows_test_images_beside_their_colourings(data, config):
    task, model = config(model="unet").build(data, 0)
    figure = task.figures({}, model, data)["colorized"]
    labels = [text.get_text().replace("\n", " ") for text in figure.axes[0].get_yticklabels()]
    assert labels == ["grey", "truth", "truth in palette", "most likely", "annealed mean"]
    pictures = figure.axes[0].images[0].get_array()
    assert np.array_equal(pictures[35:67, 1:33], data.test.images[0].permute(1, 2, 0))
