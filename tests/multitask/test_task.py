import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import functional as torchvision

from smai_lib.core.training import build_optimizer, fit
from smai_lib.multitask import objective as multitask
from smai_lib.multitask.config import MultiTaskConfig
from smai_lib.multitask.fashion_mnist import Split, ink_of
from smai_lib.multitask.model import MultiTaskOutput

FEW = slice(0, 40)


@pytest.mark.parametrize(
    "lambda1, lambda2, learns", [(1.0, 0.0, "classifier"), (0.0, 1.0, "regressor")]
)
def test_lambda_zero_silences_one_head_and_not_the_backbone(tiny, lambda1, lambda2, learns):
    objective, model = MultiTaskConfig(lambda1=lambda1, lambda2=lambda2, base_filters=4).build(
        tiny, 0
    )
    batch = slice(0, 20)
    objective.loss(model(objective.inputs(tiny.train, batch)), tiny.train, batch)[0].backward()
    for name in ("classifier", "regressor", "backbone"):
        moved = any(
            p.grad is not None and p.grad.abs().sum() > 0 for p in getattr(model, name).parameters()
        )
        assert moved == (name in (learns, "backbone")), name


def test_one_batch_can_be_learnt_by_heart(tiny):
    config = MultiTaskConfig(num_layers=2, base_filters=8, dropout_rate=0.0, learning_rate=3e-3)
    objective, model = config.build(tiny, 0)
    optimizer = build_optimizer(model, config)
    batch = slice(0, 32)
    for _ in range(40):
        loss, _ = objective.loss(model(objective.inputs(tiny.train, batch)), tiny.train, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_metrics_by_hand_over_unequal_batches():
    """Three images in batches of two and one: the RMSE is over images, not the mean of batch RMSEs."""
    objective = multitask.MultiTaskObjective(MultiTaskConfig(lambda1=2.0, lambda2=0.5))
    images = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
    split = Split(images, torch.tensor([0, 1, 1]), torch.tensor([0.0, 0.5, 1.0]))
    output = MultiTaskOutput(
        torch.log(torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1]])), torch.tensor([0.0, 0.5, 0.4])
    )
    total = 0
    for index in (slice(0, 2), slice(2, 3)):
        part = MultiTaskOutput(output.logits[index], output.ink[index])
        total = total + objective.loss(part, split, index)[1]
    metrics = objective.metrics(total)
    cross_entropy = -torch.log(torch.tensor([0.8, 0.6, 0.1])).mean().item()
    expected = {
        "cross_entropy": cross_entropy,
        "accuracy": 2 / 3,
        "mse": 0.12,
        "mae": 0.2,
        "rmse": 0.12**0.5,
        "r2": 1 - 0.12 / (0.5 / 3),
        "loss": 2 * cross_entropy + 0.5 * 0.12,
    }
    assert metrics == pytest.approx(expected, rel=1e-6)


def test_the_training_loss_is_the_joint_loss(tiny):
    config = MultiTaskConfig(lambda1=3.0, lambda2=7.0, base_filters=4)
    objective, model = config.build(tiny, 0)
    model.eval()
    batch = slice(0, 50)
    output = model(objective.inputs(tiny.train, batch))
    expected = 3 * F.cross_entropy(output.logits, tiny.train.labels[batch]) + 7 * F.mse_loss(
        output.ink, tiny.train.ink[batch]
    )
    assert objective.loss(output, tiny.train, batch)[0].item() == pytest.approx(
        expected.item(), rel=1e-6
    )


def test_baselines_of_ink_by_hand(tiny):
    table = multitask.ink_baselines(tiny, tiny.test).set_index("ink predicted by")
    ink = tiny.test.ink.double()
    constant = (ink - tiny.train.ink.double().mean()).square().mean().sqrt().item()
    assert table.loc["constant (training mean)", "rmse"] == pytest.approx(constant, rel=1e-5)
    assert table.loc["x.mean()", "rmse"] < 1e-7
    assert 0 < table.loc["mean of the true class", "r2"] < 1


def test_a_linear_layer_of_ones_is_ink(tiny):
    layer = nn.Linear(784, 1, bias=False)
    nn.init.constant_(layer.weight, 1 / (784 * 255))
    predicted = layer(tiny.test.images.flatten(1).float()).squeeze(1)
    assert torch.allclose(predicted, ink_of(tiny.test.images), atol=1e-6)


def test_confusion_counts_every_image_once(tiny):
    _, model = small().build(tiny, 0)
    counts = multitask.confusion(model, tiny.test)
    assert counts.sum(1).tolist() == torch.bincount(tiny.test.labels, minlength=10).tolist()


# --- what a config varies: each ingredient against its definition


def small(**settings):
    return MultiTaskConfig(
        num_layers=2, base_filters=4, batch_size=50, dropout_rate=0.0, **settings
    )


def joint_loss(config, data, output=None):
    objective, model = config.build(data, 0)
    output = output or model.eval()(objective.inputs(data.train, FEW))
    return objective.loss(output, data.train, FEW)[0], output


def test_z_scored_ink_is_still_ink_and_its_constant_answer_has_loss_one(tiny):
    config = small(ink_scaling="z_score", lambda1=0.0)
    mean = tiny.train.ink.mean()
    everywhere = slice(None)
    objective, model = config.build(tiny, 0)
    constant = MultiTaskOutput(
        torch.zeros(len(tiny.train.ink), 10), mean.expand(len(tiny.train.ink))
    )
    assert objective.loss(constant, tiny.train, everywhere)[0].item() == pytest.approx(
        1.0, rel=1e-4
    )
    for parameter in model.regressor[-1].parameters():
        torch.nn.init.zeros_(parameter)
    silent = model.eval()(objective.inputs(tiny.train, FEW)).ink
    assert torch.allclose(silent, mean.expand(40))  # a head that says 0 answers the mean ink
    # metrics stay in units of ink
    sums = objective.loss(constant, tiny.train, everywhere)[1]
    assert objective.metrics(sums)["mse"] == pytest.approx(
        tiny.train.ink.double().var(correction=0).item(), rel=1e-4
    )


def test_uncertainty_weighting_by_its_formula(tiny):
    config = small(weighting="uncertainty")
    loss, output = joint_loss(config, tiny)
    assert output.log_variances.tolist() == [-0.5, -0.5]
    ce = F.cross_entropy(output.logits, tiny.train.labels[FEW])
    mse = F.mse_loss(output.ink, tiny.train.ink[FEW])
    expected = (ce + mse) / (2 * math.exp(-0.5)) - 0.5
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    config = small(weighting="uncertainty", learning_rate=0.01, epochs=1)
    objective, model = config.build(tiny, 0)
    row = fit(model, objective, tiny.train, tiny.validation, config, seed=0, device="cpu").rows[-1]
    assert (
        row["log_variance_class"] > row["log_variance_ink"]
    )  # CE is the larger loss, so it gets the larger variance


def test_label_smoothing_changes_the_loss_and_not_the_metric(tiny):
    plain, output = joint_loss(small(lambda2=0.0), tiny)
    smooth, _ = joint_loss(small(lambda2=0.0, label_smoothing=0.1), tiny, output)
    by_hand = 0.9 * plain - 0.1 * output.logits.log_softmax(1).mean()
    assert smooth.item() == pytest.approx(by_hand.item(), rel=1e-5)
    objective, _ = small(lambda2=0.0, label_smoothing=0.1).build(tiny, 0)
    sums = objective.loss(output, tiny.train, FEW)[1]
    assert objective.metrics(sums)["cross_entropy"] == pytest.approx(plain.item(), rel=1e-6)


def test_mirrored_images_keep_their_ink(tiny):
    objective, _ = small(mirror=True).build(tiny, 0)
    torch.manual_seed(0)
    shown = objective.augment(tiny.train)
    mirrored = (shown.images == tiny.train.images.flip(-1)).flatten(1).all(1)
    kept = (shown.images == tiny.train.images).flatten(1).all(1)
    assert (mirrored | kept).all() and 0.3 < mirrored.float().mean() < 0.7
    assert torch.equal(ink_of(shown.images), tiny.train.ink) and shown.ink is tiny.train.ink


def test_shifted_images_have_their_own_ink(tiny):
    objective, _ = small(shift=3).build(tiny, 0)
    torch.manual_seed(0)
    shown = objective.augment(tiny.train)
    assert torch.equal(shown.ink, ink_of(shown.images)) and (shown.ink < tiny.train.ink).any()
    # every image is a crop of the padded original
    padded = F.pad(tiny.train.images[:1], (3,) * 4)
    crops = [padded[..., y : y + 28, x : x + 28] for y in range(7) for x in range(7)]
    assert any(torch.equal(shown.images[:1], crop) for crop in crops)
    assert not torch.equal(shown.images, tiny.train.images)


def test_gradients_of_the_two_losses_by_hand(tiny):
    config = small(ink_scaling="z_score")
    objective, model = config.build(tiny, 0)
    row = objective.diagnose(model, tiny.train)
    everything = multitask.DIAGNOSED
    flat = []
    for which in ("class", "ink"):
        model.zero_grad()
        output = model.eval()(objective.inputs(tiny.train, everything))
        loss = (
            F.cross_entropy(output.logits, tiny.train.labels[everything])
            if which == "class"
            else F.mse_loss(output.ink, tiny.train.ink[everything])
            / tiny.train.ink.std(correction=0) ** 2
        )
        loss.backward()
        flat.append(torch.cat([p.grad.flatten() for p in model.backbone.parameters()]))
    assert row["class_gradient"] == pytest.approx(flat[0].norm().item(), rel=1e-4)
    assert row["ink_gradient"] == pytest.approx(flat[1].norm().item(), rel=1e-4)
    cosine = (flat[0] @ flat[1] / flat[0].norm() / flat[1].norm()).item()
    assert row["gradient_cosine"] == pytest.approx(cosine, abs=1e-4)


def test_the_mirror_average_is_that_of_the_probabilities(tiny):
    config = small(epochs=1, learning_rate=5e-3)
    objective, model = config.build(tiny, 0)
    fit(model, objective, tiny.train, tiny.validation, config, seed=0, device="cpu")
    examined = objective.examine(model, tiny)["metrics"]
    images = objective.inputs(tiny.test, slice(None))
    with torch.no_grad():
        there, back = model(images), model(images.flip(-1))
    predicted = (there.logits.softmax(1) + back.logits.softmax(1)).argmax(1)
    assert (predicted != there.logits.argmax(1)).any()  # else this test could not fail
    assert examined["test_mirror_accuracy"] == pytest.approx(
        (predicted == tiny.test.labels).double().mean().item()
    )
    error = (there.ink + back.ink) / 2 - tiny.test.ink
    assert examined["test_mirror_rmse"] == pytest.approx(
        error.square().mean().sqrt().item(), rel=1e-4
    )


def test_rotated_images_are_torchvisions(tiny, monkeypatch):
    """Nearest pixel and zeros are the defaults of RandomRotation."""
    monkeypatch.setattr(multitask, "CHUNK", 70)  # 300 images: a short chunk at the end
    objective, _ = small(rotation=25.0).build(tiny, 0)
    torch.manual_seed(0)
    shown = objective.augment(tiny.train)
    torch.manual_seed(0)
    angles = 25 * (2 * torch.rand(len(shown.images)) - 1)
    expected = [
        torchvision.rotate(image, angle.item())
        for image, angle in zip(tiny.train.images, angles, strict=True)
    ]
    assert torch.equal(shown.images, torch.stack(expected)) and shown.images.dtype == torch.uint8
    assert torch.equal(shown.ink, ink_of(shown.images)) and angles.min() < -20 and angles.max() > 20


@pytest.mark.parametrize(
    "moves", [{"shift": 2}, {"rotation": 10.0}, {"shift": 2, "rotation": 10.0}]
)
@pytest.mark.filterwarnings("ignore:config key 'ink_target'")
def test_ink_of_the_original_image_is_stale(tiny, moves):
    objective, _ = small(ink_target="original", **moves).build(tiny, 0)
    torch.manual_seed(0)
    stale = objective.augment(tiny.train)
    assert torch.equal(stale.ink, tiny.train.ink) and not torch.equal(
        stale.ink, ink_of(stale.images)
    )
    torch.manual_seed(0)
    fresh = small(**moves).build(tiny, 0)[0].augment(tiny.train)
    assert torch.equal(fresh.images, stale.images) and torch.equal(fresh.ink, ink_of(fresh.images))


def test_the_reports_mistake_is_repeated_by_its_definition(tiny):
    objective, model = small(normalize=True).build(tiny, 0)
    examined = objective.examine(model, tiny)["metrics"]
    normalized = (tiny.test.images.double() / 255 - 0.286) / 0.353
    with torch.no_grad():
        ink = model(objective.inputs(tiny.test, slice(None))).ink
    expected = (ink - normalized.mean((1, 2, 3)) / 255).square().mean().sqrt().item()
    assert examined["test_mistaken_rmse"] == pytest.approx(expected, rel=1e-5)
    assert examined["test_rmse"] == pytest.approx(
        (ink - tiny.test.ink).square().mean().sqrt().item(), rel=1e-5
    )
