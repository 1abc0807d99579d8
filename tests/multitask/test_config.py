"""What `MultiTaskConfig` varies: each ingredient against its definition."""

import math
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F

from smai_lib.core import runs
from smai_lib.core.config import ConfigError
from smai_lib.core.training import fit
from smai_lib.multitask import objective as multitask
from smai_lib.multitask.config import MultiTaskConfig
from smai_lib.multitask.fashion_mnist import ink_of
from smai_lib.multitask.model import MultiTaskOutput
from smai_lib.multitask.studies import LAMBDA_RATIOS, lambda_config, lambda_study

FEW = slice(0, 40)


def small(**settings):
    return MultiTaskConfig(num_layers=2, base_filters=4, batch_size=50, dropout_rate=0.0, **settings)


def joint_loss(config, data, output=None):
    objective, model = config.build(data, 0)
    output = output or model.eval()(objective.inputs(data.train, FEW))
    return objective.loss(output, data.train, FEW)[0], output


def test_without_ingredients_a_recipe_is_the_plain_run(tiny):
    recipe = lambda_config(1.0)
    plain = recipe.build(tiny, 0)
    config = MultiTaskConfig(**{field.name: getattr(recipe, field.name) for field in fields(MultiTaskConfig)})
    objective, model = config.build(tiny, 0)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), plain[1].state_dict().values(), strict=True))
    output = model.eval()(objective.inputs(tiny.train, FEW))
    assert torch.equal(objective.loss(output, tiny.train, FEW)[0], plain[0].loss(output, tiny.train, FEW)[0])


def test_z_scored_ink_is_still_ink_and_its_constant_answer_has_loss_one(tiny):
    config = small(ink_scaling="z_score", lambda1=0.0)
    mean = tiny.train.ink.mean()
    everywhere = slice(None)
    objective, model = config.build(tiny, 0)
    constant = MultiTaskOutput(torch.zeros(len(tiny.train.ink), 10), mean.expand(len(tiny.train.ink)))
    assert objective.loss(constant, tiny.train, everywhere)[0].item() == pytest.approx(1.0, rel=1e-4)
    for parameter in model.regressor[-1].parameters():
        torch.nn.init.zeros_(parameter)
    silent = model.eval()(objective.inputs(tiny.train, FEW)).ink
    assert torch.allclose(silent, mean.expand(40))  # a head that says 0 answers the mean ink
    # metrics stay in units of ink
    sums = objective.loss(constant, tiny.train, everywhere)[1]
    assert objective.metrics(sums)["mse"] == pytest.approx(tiny.train.ink.double().var(correction=0).item(), rel=1e-4)


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
    row = fit(model, objective, tiny.train, tiny.validation, config, seed=0).rows[-1]
    assert row["log_variance_class"] > row["log_variance_ink"]  # CE is the larger loss, so it gets the larger variance


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
    crops = [padded[..., y:y + 28, x:x + 28] for y in range(7) for x in range(7)]
    assert any(torch.equal(shown.images[:1], crop) for crop in crops)
    assert not torch.equal(shown.images, tiny.train.images)


def test_the_moving_average_by_hand(tiny):
    """Two steps by SGD-like bookkeeping: average of the weights after steps 1 and 2, decay 0.5."""
    config = small(average_decay=0.5, epochs=1)
    two = tiny.subset(100, 50, 50)
    weights = []
    objective, model = config.build(two, 0)
    first = model.backbone.block1.conv.weight
    fit(model, objective, two.train, two.validation, config, seed=0, precision="float32",
        on_batch=lambda images: weights.append(first.detach().clone()))
    assert len(weights) == 2  # the first update copies, the second averages
    assert torch.allclose(model.backbone.block1.conv.weight, (weights[0] + weights[1]) / 2, atol=1e-7)


def test_gradients_of_the_two_losses_by_hand(tiny):
    config = small(ink_scaling="z_score")
    objective, model = config.build(tiny, 0)
    row = objective.diagnose(model, tiny.train)
    everything = multitask.DIAGNOSED
    flat = []
    for which in ("class", "ink"):
        model.zero_grad()
        output = model.eval()(objective.inputs(tiny.train, everything))
        loss = (F.cross_entropy(output.logits, tiny.train.labels[everything]) if which == "class" else
                F.mse_loss(output.ink, tiny.train.ink[everything]) / tiny.train.ink.std(correction=0) ** 2)
        loss.backward()
        flat.append(torch.cat([p.grad.flatten() for p in model.backbone.parameters()]))
    assert row["class_gradient"] == pytest.approx(flat[0].norm().item(), rel=1e-4)
    assert row["ink_gradient"] == pytest.approx(flat[1].norm().item(), rel=1e-4)
    cosine = (flat[0] @ flat[1] / flat[0].norm() / flat[1].norm()).item()
    assert row["gradient_cosine"] == pytest.approx(cosine, abs=1e-4)


def test_the_mirror_average_is_that_of_the_probabilities(tiny):
    config = small(epochs=1, learning_rate=5e-3)
    objective, model = config.build(tiny, 0)
    fit(model, objective, tiny.train, tiny.validation, config, seed=0)
    examined = objective.examine(model, tiny)["metrics"]
    images = objective.inputs(tiny.test, slice(None))
    with torch.no_grad():
        there, back = model(images), model(images.flip(-1))
    predicted = (there.logits.softmax(1) + back.logits.softmax(1)).argmax(1)
    assert (predicted != there.logits.argmax(1)).any()  # else this test could not fail
    assert examined["test_mirror_accuracy"] == pytest.approx((predicted == tiny.test.labels).double().mean().item())
    error = (there.ink + back.ink) / 2 - tiny.test.ink
    assert examined["test_mirror_rmse"] == pytest.approx(error.square().mean().sqrt().item(), rel=1e-4)


def test_the_lambda_study_covers_both_ends_and_four_decades(tiny):
    study = lambda_study("full", data=replace(tiny, source="these tests"))
    assert len(study.specs) == 5 * (2 * len(LAMBDA_RATIOS) + 1)
    assert len({spec.run_id for spec in study.specs}) == len(study.specs)
    inner = [ratio for ratio in LAMBDA_RATIOS if 0 < ratio < math.inf]
    assert min(LAMBDA_RATIOS) == 0 and max(LAMBDA_RATIOS) == math.inf and max(inner) / min(inner) >= 1e4
    for ratio in LAMBDA_RATIOS:
        config = lambda_config(ratio)
        assert config.lambda1 + config.lambda2 == pytest.approx(1)
        assert config.lambda2 == pytest.approx(ratio * config.lambda1) or (ratio == math.inf and config.lambda1 == 0)


@pytest.mark.parametrize("key, value", [("ink_scaling", "log"), ("weighting", "best"), ("shift", 9),
                                        ("label_smoothing", 1.0), ("average_decay", 1.0), ("schedule", "cosine")])
def test_a_value_out_of_range_is_named(key, value):
    with pytest.raises(ConfigError, match=f"{key}.*{value}.*expected"):
        small(**{key: value})


def test_an_interrupted_recipe_ends_in_the_same_bits(tiny, tmp_path):
    """With every ingredient at once, stopped after the first of three epochs."""
    config = small(mirror=True, shift=2, average_decay=0.9, label_smoothing=0.1, schedule="one_cycle", optimizer="AdamW",
                   ink_scaling="z_score", epochs=3)

    class Stop(Exception):
        pass

    def stop(row):
        raise Stop

    def run(folder, on_epoch=lambda row: None):
        objective, model = config.build(tiny, 0)
        fit(model, objective, tiny.train, tiny.validation, config, seed=0, record=folder, on_epoch=on_epoch)
        return model.state_dict()

    whole = run(_folder(tmp_path / "whole"))
    with pytest.raises(Stop):
        run(_folder(tmp_path / "parts"), stop)
    resumed = run(_folder(tmp_path / "parts"))
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)
    assert (tmp_path / "parts/history.csv").read_bytes() == (tmp_path / "whole/history.csv").read_bytes()


def _folder(path):
    path.mkdir(exist_ok=True)
    return runs.RunFolder(path)
