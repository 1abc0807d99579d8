import dataclasses
import math

import numpy as np
import pytest
import torch

from smai_lib.colorization import metrics as color_metrics
from smai_lib.colorization import objective as colorization
from smai_lib.colorization.objective import ColorizationObjective
from smai_lib.core import runs
from smai_lib.core.config import ConfigError
from smai_lib.core.training import choose_precision, evaluate, fit


def test_objective_against_a_loop(data, config):
    objective = ColorizationObjective(config())
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(10, 8, 32, 32, generator=generator)
    total = 0
    for part in (slice(0, 7), slice(7, 10)):  # batches of unequal size
        loss, sums = objective.loss(logits[part], data.validation, part)
        total = total + sums
    found = objective.metrics(total)
    truth = data.validation.colors.numpy()
    probs = logits.softmax(1).numpy()
    right, nll, recall = [], [], {color: [] for color in range(8)}
    for i, y, x in np.ndindex(truth.shape):
        p, color = probs[i, :, y, x], truth[i, y, x]
        right.append(p.argmax() == color)
        nll.append(-math.log(p[color]))
        recall[int(color)].append(right[-1])
    assert found["accuracy"] == pytest.approx(np.mean(right))
    assert found["nll"] == found["loss"] == pytest.approx(np.mean(nll), rel=1e-5)
    expected = np.mean([np.mean(values) for values in recall.values()])
    assert found["balanced_accuracy"] == pytest.approx(expected)
    assert loss.item() == pytest.approx(np.mean(nll[7 * 1024 :]), rel=1e-5)


def test_mirroring_moves_grey_and_colours_together(data, config):
    objective = ColorizationObjective(config(mirror=True))
    torch.manual_seed(1)
    augmented = objective.augment(data.train)
    mirrored = (augmented.images == data.train.images.flip(-1)).flatten(1).all(1)
    assert 5 < mirrored.sum() < 35
    assert torch.equal(augmented.labels, data.train.labels)
    for before, after in zip(data.train[:3], augmented[:3], strict=True):
        assert torch.equal(after[mirrored], before[mirrored].flip(-1))
        assert torch.equal(after[~mirrored], before[~mirrored])
    assert ColorizationObjective(config()).augment(data.train) is data.train


@pytest.mark.parametrize("model", ["cnn", "cnn_prior", "unet"])
def test_loss_falls_on_one_batch_and_every_weight_learns(data, config, model):
    objective, network = config(model=model).build(data, 0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    few, losses = slice(0, 8), []
    for _ in range(30):
        loss = objective.loss(network(objective.inputs(data.train, few)), data.train, few)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in network.parameters())


def test_fit_beats_the_table_where_the_place_tells(data, config, tables, metrics_of):
    choice = config(model="unet", batch_size=4, learning_rate=1e-2)
    objective, network = choice.build(data, 0)
    fitted = fit(network, objective, data.train, data.validation, choice, seed=0, device="cpu")
    table = metrics_of(tables["luminance table"], data.validation)
    assert fitted.rows[-1]["val_nll"] < table["nll"]
    again = evaluate(
        network, objective, data.validation, precision=choose_precision("auto", torch.device("cpu"))
    )
    assert fitted.rows[-1]["val_accuracy"] == again["accuracy"]


@pytest.mark.parametrize("model", ["cnn", "unet"])
def test_a_colorization_run_is_recorded_like_any_other(data, config, model, tmp_path):
    choice = dataclasses.replace(
        config(model=model, mirror=True, schedule="one_cycle"), epochs=2, batch_size=8
    )
    spec = runs.RunSpec("run", "test", choice, 0, data.fingerprint, tmp_path)
    metrics = runs.execute(spec, data)["metrics"]
    rates = spec.folder.history()["learning_rate"]
    # 40 images in batches of 8: the last of 5 steps an epoch is half of all steps, then all of them
    assert rates.tolist() == pytest.approx(
        [choice.learning_rate_at(0.5), choice.learning_rate_at(1.0)]
    )
    reloaded = choice.load(spec.weights_file)
    again = color_metrics.score(reloaded, data.test, data.palette).metrics().iloc[0]
    assert metrics["test_accuracy"] == pytest.approx(again["accuracy"], rel=1e-5)
    assert metrics["test_nll"] == pytest.approx(again["nll"], rel=1e-5)


def test_a_mirrored_epoch_is_drawn_anew(data, config):
    objective = ColorizationObjective(config(mirror=True))
    torch.manual_seed(0)
    first, second = objective.augment(data.train), objective.augment(data.train)
    assert not torch.equal(first.images, second.images)
    flipped = (first.images != data.train.images).flatten(1).any(1)
    assert 0 < flipped.sum() < len(flipped)
    assert torch.equal(first.colors[flipped], data.train.colors[flipped].flip(-1))
    assert torch.equal(first.grey[flipped], data.train.grey[flipped].flip(-1))


def test_shift_moves_all_three_alike_and_reflects(data):
    split = data.validation
    down, right = torch.full((10,), 3), torch.full((10,), -2)
    moved = colorization.moved(split, down, right)
    assert torch.equal(moved.labels, split.labels)
    for before, after in zip(split[:3], moved[:3], strict=True):
        assert torch.equal(after[..., 3:, :-2], before[..., :-3, 2:])  # what stays in the picture
        assert torch.equal(
            after[..., 0, :-2], before[..., 3, 2:]
        )  # reflected: the border is not doubled
        assert torch.equal(after[..., 3:, -1], before[..., :-3, -3])
    still = colorization.moved(split, torch.zeros_like(down), torch.zeros_like(down))
    assert all(torch.equal(a, b) for a, b in zip(still, split, strict=True))


def test_shift_is_drawn_per_image_and_within_range(data, config):
    objective = ColorizationObjective(config(shift=2))
    torch.manual_seed(0)
    augmented = objective.augment(data.train)
    options = {}
    for down, right in np.ndindex(5, 5):
        moves = (torch.full((40,), down - 2), torch.full((40,), right - 2))
        same = (colorization.moved(data.train, *moves).grey == augmented.grey).flatten(1).all(1)
        options[down - 2, right - 2] = same
    assert torch.stack(list(options.values())).any(0).all()
    assert sum(same.any() for same in options.values()) > 10
    with pytest.raises(ConfigError, match="shift"):
        config(shift=17)
