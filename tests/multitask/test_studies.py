import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from smai_lib import studies
from smai_lib.core import checksums, paths, runs, weights
from smai_lib.multitask.config import MultiTaskConfig
from smai_lib.multitask.studies import (
    LAMBDA_RATIOS,
    TEN_CONFIGS,
    LambdaStudy,
    lambda_config,
    lambda_study,
)

SMALL = MultiTaskConfig(num_layers=2, base_filters=3)
NAMES = [("z_score 1", 0), ("z_score 1", 1), ("z_score 10", 0)]


def test_the_ten_configurations_are_the_reference_reports():
    # lambda1, lambda2, learning rate, dropout, optimizer, batch, epochs, layers, filters
    expected = [
        (1.0, 1.0, 0.001, 0.3, "Adam", 128, 20, 3, 32),
        (2.0, 0.5, 0.001, 0.3, "Adam", 128, 20, 3, 32),
        (0.5, 2.0, 0.001, 0.3, "Adam", 128, 20, 3, 32),
        (1.0, 1.0, 0.0008, 0.3, "Adam", 64, 20, 2, 16),
        (1.0, 1.0, 0.0008, 0.3, "Adam", 64, 20, 2, 32),
        (1.0, 1.0, 0.0005, 0.3, "Adam", 64, 20, 3, 16),
        (1.0, 1.0, 0.001, 0.3, "Adam", 128, 20, 2, 32),
        (1.0, 2.0, 0.0008, 0.3, "AdamW", 64, 20, 2, 32),
        (0.5, 1.0, 0.0005, 0.25, "AdamW", 64, 20, 3, 16),
        (1.0, 0.5, 0.002, 0.35, "Adam", 64, 20, 3, 16),
    ]
    keys = (
        "lambda1",
        "lambda2",
        "learning_rate",
        "dropout_rate",
        "optimizer",
        "batch_size",
        "epochs",
        "num_layers",
        "base_filters",
    )
    assert [
        tuple(getattr(config, key) for key in keys) for config in TEN_CONFIGS.values()
    ] == expected
    assert list(TEN_CONFIGS) == [f"config {n}" for n in range(1, 11)]


def test_the_lambda_study_covers_both_ends_and_four_decades(tiny):
    study = lambda_study("full", data=replace(tiny, source="these tests"))
    assert len(study.specs) == 5 * (2 * len(LAMBDA_RATIOS) + 1)
    assert len({spec.run_id for spec in study.specs}) == len(study.specs)
    inner = [ratio for ratio in LAMBDA_RATIOS if 0 < ratio < math.inf]
    assert (
        min(LAMBDA_RATIOS) == 0
        and max(LAMBDA_RATIOS) == math.inf
        and max(inner) / min(inner) >= 1e4
    )
    for ratio in LAMBDA_RATIOS:
        config = lambda_config(ratio)
        assert config.lambda1 + config.lambda2 == pytest.approx(1)
        assert config.lambda2 == pytest.approx(ratio * config.lambda1) or (
            ratio == math.inf and config.lambda1 == 0
        )


def network(number):
    torch.manual_seed(number)
    return SMALL.network().eval()


@pytest.fixture
def backbones(tmp_path, monkeypatch):
    """Three backbones in one file, as the lambda study ships them."""
    tensors = {
        f"{name}/{seed}/{key}": tensor
        for number, (name, seed) in enumerate(NAMES)
        for key, tensor in network(number).state_dict().items()
        if key.startswith("backbone.")
    }
    target = tmp_path / "small_backbones.safetensors"
    save_file(tensors, target)
    checksums.record(target)
    monkeypatch.setattr(paths, "WEIGHTS", tmp_path)
    return target


def small_study(config=SMALL):
    specs = [runs.RunSpec(name, "small", config, seed, "", paths.WEIGHTS) for name, seed in NAMES]
    return LambdaStudy("small", "recorded", specs, lambda: None)


def test_a_backbone_of_many_gives_its_own_maps_and_no_predictions(backbones):
    images = torch.rand(4, 1, 28, 28)
    for number, (name, seed) in enumerate(NAMES):
        loaded = small_study().backbone(name, seed)
        assert not loaded.training
        torch.testing.assert_close(loaded.backbone(images), network(number).backbone(images))
        with pytest.raises(AttributeError, match="regressor|classifier"):
            loaded(images)


@pytest.mark.parametrize(
    "name, seed", [("z_score 2", 0), ("z_score", 1), ("z_score 1", 7), ("", 0)]
)
def test_an_unknown_backbone_is_answered_with_those_that_exist(backbones, name, seed):
    with pytest.raises(
        weights.WeightsError,
        match=rf"found no backbone '{name}/{seed}', expected one of "
        r"z_score 1/0, z_score 1/1, z_score 10/0$",
    ):
        small_study().backbone(name, seed)


def test_a_backbone_of_another_config_is_refused_by_tensor(backbones):
    with pytest.raises(
        weights.WeightsError, match=r"block1.conv.bias: found \(3,\), expected \(4,\)"
    ):
        small_study(replace(SMALL, base_filters=4)).backbone("z_score 1", 1)


def test_backbones_that_are_missing_or_altered_are_refused(backbones):
    backbones.write_bytes(backbones.read_bytes()[:-1] + b"x")
    with pytest.raises(weights.WeightsError, match="truncated or altered"):
        small_study().backbone("z_score 1", 0)
    backbones.unlink()
    with pytest.raises(weights.WeightsError, match="backbones.safetensors is missing"):
        small_study().backbone("z_score 1", 0)


@pytest.mark.parametrize(
    "make", [studies.ten_configs, studies.best_recipe], ids=lambda make: make.__name__
)
def test_the_shipped_best_run_is_as_accurate_as_its_rows_say(sample, make):
    """The sample's test images are a tenth of the test set: 1,000, so within four standard errors."""
    study = make("recorded", data=sample)
    results = study.results()
    row = results[results["name"] == study.best()].mean(
        numeric_only=True
    )  # over the seeds, where there are some
    model = study.best_network()
    assert sum(parameter.numel() for parameter in model.parameters()) == row["parameters"]
    with torch.inference_mode():
        output = model(sample.test.images.float() / 255)
    accuracy = (output.logits.argmax(1) == sample.test.labels).float().mean().item()
    assert abs(accuracy - row["test_accuracy"]) < 4 * (0.92 * 0.08 / 1000) ** 0.5
    assert (output.ink - sample.test.ink).square().mean().sqrt().item() == pytest.approx(
        row["test_rmse"], rel=0.15
    )
