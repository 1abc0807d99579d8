import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import functional as torchvision

from smai_lib.core.layers import scale_pixels
from smai_lib.core.training import evaluate, fit
from smai_lib.multitask import task as task_module
from smai_lib.multitask.config import MultiTaskConfig
from smai_lib.multitask.data import Split, ink_of
from smai_lib.multitask.model import MultiTaskOutput
from smai_lib.multitask.task import MirrorAverage, MultiTask, ink_baselines

FEW, ALL = slice(0, 40), slice(None)


def loss_of(config, data, output=None):
    """Return the joint loss of 40 training images and its output, by default an untrained one."""
    task, model = config.build(data, 0)
    if output is None:
        output = model.eval()(task.inputs(data.train, FEW))
    return task.loss(output, data.train, FEW)[0], output


def losses_by_hand(output, data):
    cross_entropy = F.cross_entropy(output.logits, data.train.labels[FEW])
    return cross_entropy, F.mse_loss(output.ink, data.train.ink[FEW])


def augmented(config, data):
    torch.manual_seed(0)
    return config.build(data, 0)[0].augment(data.train)


def test_the_network_can_overfit_one_batch(tiny, small):
    config, few = small(base_filters=8, learning_rate=3e-3, epochs=40), tiny.take(40)
    task, model = config.build(few, 0)
    rows = fit(model, task, few.train, few.validation, config, seed=0).rows
    assert rows[-1]["train_loss"] < 0.1


def test_metrics_are_over_images_not_over_batches():
    task = MultiTask(MultiTaskConfig(lambda1=2.0, lambda2=0.5))
    images = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
    split = Split(images, torch.tensor([0, 1, 1]), torch.tensor([0.0, 0.5, 1.0]))
    logits = torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1]]).log()
    ink = torch.tensor([0.0, 0.5, 0.4])
    sums = 0
    for index in (slice(0, 2), slice(2, 3)):
        output = MultiTaskOutput(logits[index], ink[index])
        sums = sums + task.loss(output, split, index)[1]
    cross_entropy = -(math.log(0.8) + math.log(0.6) + math.log(0.1)) / 3
    expected = {
        "cross_entropy": cross_entropy,
        "accuracy": 2 / 3,
        "mse": 0.12,
        "mae": 0.2,
        "rmse": 0.12**0.5,
        "r2": 1 - 0.12 / (0.5 / 3),
        "loss": 2 * cross_entropy + 0.5 * 0.12,
    }
    assert task.metrics(sums) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_r2_is_undefined_where_all_images_have_the_same_ink(count, sample, small):
    image = sample.train._make(column[:1].repeat_interleave(count, 0) for column in sample.train)
    task, model = small().build(sample, 0)
    metrics = evaluate(model, task, image)
    assert math.isnan(metrics.pop("r2")) and all(map(math.isfinite, metrics.values()))
    assert ink_baselines(replace(sample, test=image))["r2"].isna().all()


@pytest.mark.parametrize("keys", [{}, {"weighting": "uncertainty"}, {"normalize": True}])
def test_a_few_images_can_be_trained(keys, sample, small):
    data, config = sample.take(1), small(epochs=1, **keys)
    task, model = config.build(data, 0)
    row = fit(model, task, data.train, data.validation, config, seed=0).rows[0]
    assert math.isfinite(row["train_loss"]) and math.isfinite(row["val_rmse"])


def test_the_loss_weighs_both_tasks_by_the_lambdas(tiny, small):
    loss, output = loss_of(small(lambda1=3.0, lambda2=7.0), tiny)
    cross_entropy, mse = losses_by_hand(output, tiny)
    assert loss.item() == pytest.approx((3 * cross_entropy + 7 * mse).item(), rel=1e-6)


def test_z_scored_ink_starts_at_a_loss_of_one_and_keeps_the_units_of_metrics(tiny, small):
    task, model = small(ink_scaling="z_score", lambda1=0.0).build(tiny, 0)
    ink = tiny.train.ink
    constant = MultiTaskOutput(torch.zeros(len(ink), 10), ink.mean().expand(len(ink)))
    loss, sums = task.loss(constant, tiny.train, ALL)
    assert loss.item() == pytest.approx(1.0, rel=1e-4)
    variance = ink.double().var(correction=0).item()
    assert task.metrics(sums)["mse"] == pytest.approx(variance, rel=1e-4)
    for weights in model.regressor[-1].parameters():
        torch.nn.init.zeros_(weights)
    predicted = model.eval()(task.inputs(tiny.train, FEW)).ink
    assert torch.allclose(predicted, ink.mean().expand(40))  # a head of zeros predicts the mean


def test_uncertainty_weighting_follows_its_formula(tiny, small):
    config = small(weighting="uncertainty", learning_rate=0.01, epochs=1)
    loss, output = loss_of(config, tiny)
    assert output.log_variances.tolist() == [-0.5, -0.5]
    expected = sum(losses_by_hand(output, tiny)) / (2 * math.exp(-0.5)) - 0.5
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    task, model = config.build(tiny, 0)
    row = fit(model, task, tiny.train, tiny.validation, config, seed=0, device="cpu").rows[-1]
    # the CE is the larger loss, so its variance grows larger
    assert row["log_variance_class"] > row["log_variance_ink"]


def test_label_smoothing_changes_the_loss_and_not_the_metric(tiny, small):
    plain, output = loss_of(small(lambda2=0.0), tiny)
    config = small(lambda2=0.0, label_smoothing=0.1)
    smooth, _ = loss_of(config, tiny, output)
    expected = 0.9 * plain - 0.1 * output.logits.log_softmax(1).mean()
    assert smooth.item() == pytest.approx(expected.item(), rel=1e-5)
    task, _ = config.build(tiny, 0)
    sums = task.loss(output, tiny.train, FEW)[1]
    assert task.metrics(sums)["cross_entropy"] == pytest.approx(plain.item(), rel=1e-6)


def test_mirrored_predictions_are_mean_probabilities_and_mean_ink(tiny, small):
    _, model = small().build(tiny, 0)
    images = scale_pixels(tiny.test.images[:4])
    with torch.inference_mode():
        model.classifier[-1].weight.mul_(100)  # far apart, so that a mean of logits is another
        output = MirrorAverage(model.eval())(images)
        pair = [model(images), model(images.flip(-1))]
    probabilities = torch.stack([single.logits.softmax(1) for single in pair]).mean(0)
    torch.testing.assert_close(output.logits.softmax(1), probabilities)
    torch.testing.assert_close(output.ink, (pair[0].ink + pair[1].ink) / 2)


def test_half_of_the_images_are_mirrored_and_keep_their_ink(tiny, small):
    shown = augmented(small(mirror=True), tiny)
    mirrored = (shown.images == tiny.train.images.flip(-1)).flatten(1).all(1)
    kept = (shown.images == tiny.train.images).flatten(1).all(1)
    assert (mirrored | kept).all() and 0.3 < mirrored.float().mean() < 0.7
    assert torch.equal(ink_of(shown.images), shown.ink)


def test_a_shifted_image_is_a_crop_of_the_padded_one(tiny, small):
    shown = augmented(small(shift=3), tiny)
    padded = F.pad(tiny.train.images[:1], (3,) * 4)
    crops = padded.unfold(2, 28, 1).unfold(3, 28, 1)  # (1, 1, 7, 7, 28, 28)
    assert (crops == shown.images[0]).all((-1, -2)).any()
    assert not torch.equal(shown.images, tiny.train.images)


def test_rotated_images_are_torchvisions(tiny, small, monkeypatch):
    monkeypatch.setattr(task_module, "ROTATION_BATCH", 70)  # 300 images: a short last batch
    shown = augmented(small(rotation=25.0), tiny)
    torch.manual_seed(0)
    angles = 25 * (2 * torch.rand(len(shown.images)) - 1)
    pairs = zip(tiny.train.images, angles, strict=True)
    expected = torch.stack([torchvision.rotate(image, angle.item()) for image, angle in pairs])
    assert torch.equal(shown.images, expected) and shown.images.dtype == torch.uint8
    assert angles.min() < -20 and angles.max() > 20


@pytest.mark.parametrize("moves", [{"shift": 2}, {"rotation": 10.0}])
@pytest.mark.filterwarnings("ignore:config key 'ink_target'")
def test_the_target_is_the_ink_of_the_augmented_or_of_the_original_image(tiny, small, moves):
    fresh = augmented(small(**moves), tiny)
    stale = augmented(small(ink_target="original", **moves), tiny)
    assert torch.equal(fresh.images, stale.images)
    assert torch.equal(fresh.ink, ink_of(fresh.images))
    assert torch.equal(stale.ink, tiny.train.ink) and not torch.equal(stale.ink, fresh.ink)


def test_gradient_diagnostics_are_those_of_the_two_losses(tiny, small):
    task, model = small(ink_scaling="z_score").build(tiny, 0)
    train, gradients = tiny.train, []
    for number in range(2):
        model.zero_grad()
        output = model.eval()(task.inputs(train, ALL))
        losses = (
            F.cross_entropy(output.logits, train.labels),
            F.mse_loss(output.ink, train.ink) / train.ink.var(correction=0),
        )
        losses[number].backward()
        gradients.append(torch.cat([x.grad.flatten() for x in model.backbone.parameters()]))
    expected = {
        "class_gradient": gradients[0].norm().item(),
        "ink_gradient": gradients[1].norm().item(),
        "gradient_cosine": F.cosine_similarity(*gradients, dim=0).item(),
    }
    assert task.epoch_diagnostics(model, train) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_final_metrics_by_hand(tiny, small):
    task, model = small(normalize=True).build(tiny, 0)
    final = task.final_metrics(model, tiny)
    test, images = tiny.test, task.inputs(tiny.test, ALL)
    with torch.no_grad():
        plain, mirrored = model(images), model(images.flip(-1))
    right = plain.logits.argmax(1) == test.labels
    assert final["metrics"]["test_accuracy"] == pytest.approx(right.double().mean().item())
    # the reference report's mistaken target: normalized pixels, divided by 255 once more
    normalized = (test.images.double() / 255 - 0.286) / 0.353
    errors = {
        "test_rmse": plain.ink - test.ink,
        "test_mirror_rmse": (plain.ink + mirrored.ink) / 2 - test.ink,
        "test_mistaken_rmse": plain.ink - normalized.mean((1, 2, 3)) / 255,
    }
    for key, error in errors.items():
        rmse = error.square().mean().sqrt().item()
        assert final["metrics"][key] == pytest.approx(rmse, rel=1e-4), key
    counts = torch.tensor(final["nested"]["confusion"])
    assert counts.trace() == right.sum()
    assert counts.sum(1).tolist() == torch.bincount(test.labels, minlength=10).tolist()


def test_ink_baselines_by_hand(tiny):
    table = ink_baselines(tiny).set_index("ink predicted by")
    ink = tiny.test.ink.double()
    constant = (ink - tiny.train.ink.double().mean()).square().mean().sqrt().item()
    assert table.loc["constant (training mean)", "rmse"] == pytest.approx(constant, rel=1e-5)
    assert table.loc["x.mean()", "rmse"] < 1e-7
    assert 0 < table.loc["mean of the true class", "r2"] < 1
