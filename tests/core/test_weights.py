import shutil
import subprocess
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from smai_lib import studies
from smai_lib.core import paths, runs, weights
from smai_lib.multitask.config import MultiTaskConfig
from smai_lib.multitask.studies import LambdaStudy

SMALL = MultiTaskConfig(num_layers=2, base_filters=3)
SHIPPED = sorted(paths.WEIGHTS.glob("*.safetensors"))


def build(config, seed):
    torch.manual_seed(seed)
    return config.network().eval()


@pytest.fixture
def file(tmp_path):
    target = tmp_path / "small.safetensors"
    save_file(build(SMALL, 1).state_dict(), target)
    return target


@pytest.mark.parametrize("recorded", [False, True])
def test_loaded_weights_give_the_same_logits(file, recorded):
    if recorded:
        weights.record(file)
    assert weights.verify(file) is recorded
    images, model = torch.rand(4, 1, 28, 28), build(SMALL, 1)
    loaded = SMALL.load(file)
    assert not loaded.training
    for found, expected in zip(loaded(images), model(images), strict=True):
        torch.testing.assert_close(found, expected)


def test_weights_of_a_recipe_bring_the_scale_of_their_ink(tmp_path, tiny):
    config = MultiTaskConfig(num_layers=2, base_filters=3, ink_scaling="z_score", hidden=7, ceil_mode=True)
    model = config.build(tiny, 0)[1].eval()
    save_file(model.state_dict(), tmp_path / "recipe.safetensors")
    images = torch.rand(4, 1, 28, 28)
    loaded = config.load(tmp_path / "recipe.safetensors")
    for found, expected in zip(loaded(images)[:2], model(images)[:2], strict=True):
        torch.testing.assert_close(found, expected)
    with pytest.raises(weights.WeightsError, match=r"ink_scale: found \(2,\), expected nothing"):
        replace(config, ink_scaling="raw").load(tmp_path / "recipe.safetensors")


def test_one_flipped_bit_is_found_and_the_way_out_is_named(file):
    expected = weights.record(file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(weights.WeightsError, match=rf"(?s)truncated or altered.*expected {expected}.*git checkout"):
        SMALL.load(file)


@pytest.mark.parametrize("content", [b"", b"not weights", None])
def test_what_is_no_weights_file_is_refused(file, content):
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(weights.WeightsError, match="cannot be read as safetensors"):
        SMALL.load(file)


def test_a_missing_file_is_answered_with_those_that_exist(file):
    with pytest.raises(weights.WeightsError, match=r"other.safetensors is missing; .* has small.safetensors"):
        SMALL.load(file.with_name("other.safetensors"))


@pytest.mark.parametrize("keys, named", [
    ({"base_filters": 4}, r"block1.conv.bias: found \(3,\), expected \(4,\)"),
    ({"num_layers": 3}, r"block3.conv.bias: found nothing, expected \(12,\)"),
])
def test_weights_of_another_config_are_refused_by_tensor(file, keys, named):
    with pytest.raises(weights.WeightsError, match=named):
        replace(SMALL, **keys).load(file)


NAMES = [("z_score 1", 0), ("z_score 1", 1), ("z_score 10", 0)]


@pytest.fixture
def backbones(tmp_path, monkeypatch):
    """Three backbones in one file, as the lambda study ships them."""
    tensors = {f"{name}/{seed}/{key}": tensor for number, (name, seed) in enumerate(NAMES)
               for key, tensor in build(SMALL, number).state_dict().items() if key.startswith("backbone.")}
    target = tmp_path / "small_backbones.safetensors"
    save_file(tensors, target)
    monkeypatch.setattr(paths, "WEIGHTS", tmp_path)
    return target


def lambda_study(config=SMALL):
    specs = [runs.RunSpec(name, "small", config, seed, "", paths.WEIGHTS) for name, seed in NAMES]
    return LambdaStudy("small", "recorded", specs, lambda: None)


def test_a_backbone_of_many_gives_its_own_maps_and_no_predictions(backbones):
    weights.record(backbones)
    images = torch.rand(4, 1, 28, 28)
    for number, (name, seed) in enumerate(NAMES):
        loaded = lambda_study().backbone(name, seed)
        assert not loaded.training
        torch.testing.assert_close(loaded.backbone(images), build(SMALL, number).backbone(images))
        with pytest.raises(AttributeError, match="regressor|classifier"):
            loaded(images)


@pytest.mark.parametrize("name, seed", [("z_score 2", 0), ("z_score", 1), ("z_score 1", 7), ("", 0)])
def test_an_unknown_backbone_is_answered_with_those_that_exist(backbones, name, seed):
    with pytest.raises(weights.WeightsError, match=rf"found no backbone '{name}/{seed}', expected one of "
                                                   r"z_score 1/0, z_score 1/1, z_score 10/0$"):
        lambda_study().backbone(name, seed)


def test_a_backbone_of_another_config_is_refused_by_tensor(backbones):
    with pytest.raises(weights.WeightsError, match=r"block1.conv.bias: found \(3,\), expected \(4,\)"):
        lambda_study(replace(SMALL, base_filters=4)).backbone("z_score 1", 1)


def test_backbones_that_are_missing_or_altered_are_refused(backbones):
    weights.record(backbones)
    backbones.write_bytes(backbones.read_bytes()[:-1] + b"x")
    with pytest.raises(weights.WeightsError, match="truncated or altered"):
        lambda_study().backbone("z_score 1", 0)
    backbones.unlink()
    with pytest.raises(weights.WeightsError, match="backbones.safetensors is missing"):
        lambda_study().backbone("z_score 1", 0)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="the command sha256sum is not here")
def test_recording_keeps_the_other_files_and_sha256sum_agrees(file):
    other = file.with_name("another.safetensors")
    save_file({"x": torch.zeros(2)}, other)
    weights.record(file)
    weights.record(other)
    save_file({"x": torch.ones(2)}, other)
    weights.record(other)
    assert weights.verify(file) and weights.verify(other)
    done = subprocess.run(["sha256sum", "--check", "--strict", weights.SUMS], cwd=file.parent, check=True,
                          capture_output=True, text=True)
    assert done.stdout.count(": OK") == 2


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_weights_have_a_recorded_checksum(file):
    assert weights.verify(file)


@pytest.mark.parametrize("make", [studies.ten_configs, studies.best_recipe], ids=lambda make: make.__name__)
def test_the_shipped_best_run_is_as_accurate_as_its_rows_say(sample, make):
    """The sample's test images are a tenth of the test set: 1,000, so within four standard errors."""
    study = make("recorded", data=sample)
    results = study.results()
    row = results[results["name"] == study.best()].mean(numeric_only=True)  # over the seeds, where there are some
    model = study.best_network()
    assert sum(parameter.numel() for parameter in model.parameters()) == row["parameters"]
    with torch.inference_mode():
        output = model(sample.test.images.float() / 255)
    accuracy = (output.logits.argmax(1) == sample.test.labels).float().mean().item()
    assert abs(accuracy - row["test_accuracy"]) < 4 * (0.92 * 0.08 / 1000) ** 0.5
    assert (output.ink - sample.test.ink).square().mean().sqrt().item() == pytest.approx(row["test_rmse"], rel=0.15)
