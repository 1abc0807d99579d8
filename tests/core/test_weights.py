import shutil
import subprocess
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from smai_lib.core import checksums, paths, weights
from smai_lib.multitask.config import MultiTaskConfig

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
        checksums.record(file)
    assert checksums.verify(file) is recorded
    images, model = torch.rand(4, 1, 28, 28), build(SMALL, 1)
    loaded = SMALL.load(file)
    assert not loaded.training
    for found, expected in zip(loaded(images), model(images), strict=True):
        torch.testing.assert_close(found, expected)


def test_one_flipped_bit_is_found_and_the_way_out_is_named(file):
    expected = checksums.record(file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        weights.WeightsError, match=rf"(?s)truncated or altered.*expected {expected}.*git checkout"
    ):
        SMALL.load(file)


@pytest.mark.parametrize("content", [b"", b"not weights", None])
def test_what_is_no_weights_file_is_refused(file, content):
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(weights.WeightsError, match="cannot be read as safetensors"):
        SMALL.load(file)


def test_a_missing_file_is_answered_with_those_that_exist(file):
    with pytest.raises(
        weights.WeightsError, match=r"other.safetensors is missing; .* has small.safetensors"
    ):
        SMALL.load(file.with_name("other.safetensors"))


@pytest.mark.parametrize(
    "keys, named",
    [
        ({"base_filters": 4}, r"block1.conv.bias: found \(3,\), expected \(4,\)"),
        ({"num_layers": 3}, r"block3.conv.bias: found nothing, expected \(12,\)"),
    ],
)
def test_weights_of_another_config_are_refused_by_tensor(file, keys, named):
    with pytest.raises(weights.WeightsError, match=named):
        replace(SMALL, **keys).load(file)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="the command sha256sum is not here")
def test_recording_keeps_the_other_files_and_sha256sum_agrees(file):
    other = file.with_name("another.safetensors")
    save_file({"x": torch.zeros(2)}, other)
    checksums.record(file)
    checksums.record(other)
    save_file({"x": torch.ones(2)}, other)
    checksums.record(other)
    assert checksums.verify(file) and checksums.verify(other)
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", checksums.SUMS],
        cwd=file.parent,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.count(": OK") == 2


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_weights_have_a_recorded_checksum(file):
    assert checksums.verify(file)
