import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from smai_lib.colorization.config import ColorizationConfig
from smai_lib.colorization.objective import ColorizationObjective
from smai_lib.colorization.palette import PaletteError
from smai_lib.core import checksums, weights
from smai_lib.core.config import ConfigError


def test_weights_come_back_with_palette_and_prior(data, config, tmp_path):
    choice = config(model="unet")
    _, model = choice.build(data, 0)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.network.classifier.weight)
    file = tmp_path / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    again = choice.load(file)
    inputs = ColorizationObjective.inputs(data.test, slice(None))
    assert torch.equal(again(inputs), model.eval()(inputs))
    assert torch.equal(again.palette, data.palette)
    with pytest.raises(weights.WeightsError, match=r"palette: found \(8, 3\), expected \(9, 3\)"):
        dataclasses.replace(choice, num_colors=9).load(file)
    with pytest.raises(
        weights.WeightsError,
        match=r"does not fit.*classifier.weight: found \(8, 4, 1, 1\), expected \(8, 5, 1, 1\)",
    ):
        dataclasses.replace(choice, num_filters=5).load(file)
    save_file({"classifier.bias": torch.zeros(3)}, file)
    with pytest.raises(
        weights.WeightsError,
        match=r"palette: found nothing|classifier.bias: found \(3,\), expected nothing",
    ):
        choice.load(file)
    checksums.record(file)
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(weights.WeightsError, match="truncated or altered.*expected"):
        choice.load(file)
    with pytest.raises(weights.WeightsError, match="missing"):
        choice.load(tmp_path / "none.safetensors")


def test_build_checks_data_and_kernel(data, config):
    with pytest.raises(PaletteError, match="has 8 colours, expected the config's 9"):
        dataclasses.replace(config(), num_colors=9).build(data, 0)
    with pytest.raises(ValueError, match="kernel_size': found 33, expected at most 32"):
        dataclasses.replace(config(), kernel_size=33).build(data, 0)


@pytest.mark.parametrize(
    "key, value",
    [
        ("model", "resnet"),
        ("kernel_size", 4),
        ("kernel_size", -1),
        ("num_colors", 257),
        ("num_filters", 0),
        ("dropout_rate", 1.0),
        ("schedule", "step"),
        ("mirror", 1),
    ],
)
def test_config_refuses(key, value):
    with pytest.raises(ConfigError, match=f"{key}.*found {value!r}"):
        ColorizationConfig(**{"model": "unet"} | {key: value})
    with pytest.raises(ConfigError, match="has no dropout"):
        ColorizationConfig(model="cnn", dropout_rate=0.1)
