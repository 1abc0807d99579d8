import math

import numpy as np
import pytest
import torch

from smai_lib.colorization.task import Colorization, mirror_and_shift
from smai_lib.core.training import fit


def test_loss_and_metrics_agree_with_a_loop_over_pixels(data, config):
    task = Colorization(config())
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(10, 8, 32, 32, generator=generator)
    total = 0
    for part in (slice(0, 7), slice(7, 10)):  # batches of unequal size
        loss, sums = task.loss(logits[part], data.validation, part)
        total = total + sums
    metrics = task.metrics(total)
    truth = data.validation.colors.numpy()
    probs = logits.softmax(1).numpy()
    right, nll, recall = [], [], {color: [] for color in range(8)}
    for i, y, x in np.ndindex(truth.shape):
        p, color = probs[i, :, y, x], truth[i, y, x]
        right.append(p.argmax() == color)
        nll.append(-math.log(p[color]))
        recall[int(color)].append(right[-1])
    assert metrics["accuracy"] == pytest.approx(np.mean(right))
    assert metrics["nll"] == metrics["loss"] == pytest.approx(np.mean(nll), rel=1e-5)
    expected = np.mean([np.mean(values) for values in recall.values()])
    assert metrics["balanced_accuracy"] == pytest.approx(expected)
    assert loss.item() == pytest.approx(np.mean(nll[7 * 1024 :]), rel=1e-5)


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
def test_loss_falls_on_one_batch_and_every_weight_learns(data, config, keys):
    task, network = config(**keys).build(data, 0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    few, losses = slice(0, 8), []
    for _ in range(30):
        loss, _ = task.loss(network(task.inputs(data.train, few)), data.train, few)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in network.parameters())


def test_fit_beats_the_table_where_the_place_tells(data, config, tables, metrics_of):
    choice = config(model="unet", batch_size=4, learning_rate=1e-2)
    task, network = choice.build(data, 0)
    fitted = fit(network, task, data.train, data.validation, choice, seed=0, device="cpu")
    table = metrics_of(tables["luminance table"], data.validation)
    assert fitted.rows[-1]["val_nll"] < table["nll"]


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
    drawn = torch.zeros(2, 5, 5)  # images that were mirrored or not, moved down and to the right
    for mirrored, down, right in np.ndindex(drawn.shape):
        steps = torch.tensor([mirrored, down - 2, right - 2]).expand(40, 3).T
        same = mirror_and_shift(data.train, steps[0] == 1, *steps[1:]).grey == augmented.grey
        drawn[mirrored, down, right] = same.flatten(1).all(1).sum()
    assert drawn.sum() == 40
    assert (10 < drawn[1].sum() < 30) == ("mirror" in keys)
    assert ((drawn > 0).sum() > 10) == ("shift" in keys)


def test_images_stay_as_they_are_without_augmentation(data, config):
    assert Colorization(config()).augment(data.train) is data.train


def test_wandb_shows_test_images_beside_their_colourings(data, config):
    task, model = config(model="unet").build(data, 0)
    figure = task.figures({}, model, data)["colorized"]
    labels = [text.get_text().replace("\n", " ") for text in figure.axes[0].get_yticklabels()]
    assert labels == ["grey", "truth", "truth in palette", "most likely", "annealed mean"]
    pictures = figure.axes[0].images[0].get_array()
    assert np.array_equal(pictures[35:67, 1:33], data.test.images[0].permute(1, 2, 0))
