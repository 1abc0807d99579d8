import pytest
import torch
import torch.nn.functional as F
from torch import nn

from smai_lib.core.layers import conv_block
from smai_lib.core.training import build_optimizer, evaluate, fit
from smai_lib.multitask import objective as multitask
from smai_lib.multitask.config import MultiTaskConfig
from smai_lib.multitask.fashion_mnist import Split, ink_of
from smai_lib.multitask.model import MultiTaskCNN, MultiTaskOutput

SMALL = MultiTaskConfig(num_layers=2, base_filters=4, batch_size=50, epochs=2)


@pytest.mark.parametrize("num_layers, features", [(2, 8 * 7 * 7), (3, 16 * 3 * 3)])
def test_shapes_of_both_heads(num_layers, features):
    model = MultiTaskCNN(num_layers=num_layers, base_filters=4, dropout_rate=0.3)
    output = model(torch.rand(5, 1, 28, 28))
    assert output.logits.shape == (5, 10) and output.ink.shape == (5,)
    assert model.classifier[0].in_features == features == model.regressor[0].in_features


def test_pooling_before_relu_is_conv_norm_relu_pool():
    block = conv_block(3, 5)
    images = torch.randn(2, 3, 8, 8)
    textbook = F.max_pool2d(F.relu(block.norm(block.conv(images))), 2)
    assert torch.equal(block(images), textbook)


def test_ceil_mode_pools_what_is_left_at_the_border():
    images = torch.randn(2, 1, 7, 7)
    floor, ceil = conv_block(1, 5), conv_block(1, 5, ceil_mode=True)
    ceil.load_state_dict(floor.state_dict())
    maps = F.relu(floor.norm(floor.conv(images)))
    assert torch.equal(floor(images), F.max_pool2d(maps[:, :, :6, :6], 2))
    assert torch.equal(ceil(images), F.max_pool2d(F.pad(maps, (0, 1, 0, 1)), 2))  # maps are at least 0
    for num_layers, side in ((2, 7), (3, 4)):
        model = MultiTaskCNN(num_layers=num_layers, base_filters=4, dropout_rate=0.0, hidden=6, ceil_mode=True)
        assert model.backbone(torch.rand(5, 1, 28, 28)).shape[-2:] == (side, side)
        assert model(torch.rand(5, 1, 28, 28)).logits.shape == (5, 10) and model.regressor[0].out_features == 6


def test_heads_compute_in_float32_under_autocast():
    model = MultiTaskCNN(num_layers=2, base_filters=4, dropout_rate=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.rand(4, 1, 28, 28))
    assert output.logits.dtype == output.ink.dtype == torch.float32


@pytest.mark.parametrize("lambda1, lambda2, learns", [(1.0, 0.0, "classifier"), (0.0, 1.0, "regressor")])
def test_lambda_zero_silences_one_head_and_not_the_backbone(tiny, lambda1, lambda2, learns):
    objective, model = MultiTaskConfig(lambda1=lambda1, lambda2=lambda2, base_filters=4).build(tiny, 0)
    batch = slice(0, 20)
    objective.loss(model(objective.inputs(tiny.train, batch)), tiny.train, batch)[0].backward()
    for name in ("classifier", "regressor", "backbone"):
        moved = any(p.grad is not None and p.grad.abs().sum() > 0 for p in getattr(model, name).parameters())
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
    output = MultiTaskOutput(torch.log(torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1]])),
                             torch.tensor([0.0, 0.5, 0.4]))
    total = 0
    for index in (slice(0, 2), slice(2, 3)):
        part = MultiTaskOutput(output.logits[index], output.ink[index])
        total = total + objective.loss(part, split, index)[1]
    metrics = objective.metrics(total)
    cross_entropy = -torch.log(torch.tensor([0.8, 0.6, 0.1])).mean().item()
    expected = {"cross_entropy": cross_entropy, "accuracy": 2 / 3, "mse": 0.12, "mae": 0.2,
                "rmse": 0.12**0.5, "r2": 1 - 0.12 / (0.5 / 3),
                "loss": 2 * cross_entropy + 0.5 * 0.12}
    assert metrics == pytest.approx(expected, rel=1e-6)


def test_the_training_loss_is_the_joint_loss(tiny):
    config = MultiTaskConfig(lambda1=3.0, lambda2=7.0, base_filters=4)
    objective, model = config.build(tiny, 0)
    model.eval()
    batch = slice(0, 50)
    output = model(objective.inputs(tiny.train, batch))
    expected = 3 * F.cross_entropy(output.logits, tiny.train.labels[batch]) + 7 * F.mse_loss(
        output.ink, tiny.train.ink[batch])
    assert objective.loss(output, tiny.train, batch)[0].item() == pytest.approx(expected.item(), rel=1e-6)


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


def test_training_improves_on_chance_and_on_the_constant(sample):
    data = sample.subset(2000, 500, 10)
    objective, model = SMALL.build(data, 0)
    last = fit(model, objective, data.train, data.validation, SMALL, seed=0).rows[-1]
    assert last["val_accuracy"] > 0.4 and last["train_loss"] < 2


def test_evaluation_does_not_depend_on_the_batch(tiny, monkeypatch):
    objective, model = SMALL.build(tiny, 0)
    whole = evaluate(model, objective, tiny.test)
    monkeypatch.setattr("smai_lib.core.training.EVALUATION_BATCH", 7)
    assert evaluate(model, objective, tiny.test) == pytest.approx(whole, rel=1e-5)


def test_confusion_counts_every_image_once(tiny):
    _, model = SMALL.build(tiny, 0)
    counts = multitask.confusion(model, tiny.test)
    assert counts.sum(1).tolist() == torch.bincount(tiny.test.labels, minlength=10).tolist()
