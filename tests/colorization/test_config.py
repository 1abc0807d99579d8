import pytest
import torch
from safetensors.torch import save_file

from smai_lib.colorization.config import ColorizationConfig
from smai_lib.core.errors import ConfigError, IntegrityError


@pytest.fixture
def saved(data, config, tmp_path):
    """The config of a U-Net with class head, the network, and a file of its weights."""
    choice = config(model="unet", class_weight=0.1)
    _, model = choice.build(data, 0)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.network.classifier.weight)
    file = tmp_path / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, file)
    return choice, model.eval(), file


def test_weights_come_back_with_palette_and_prior_but_without_class_head(saved, data):
    choice, model, file = saved
    loaded = choice.load_model(file)
    inputs = data.test.inputs(slice(None))
    assert torch.equal(loaded(inputs), model(inputs))
    assert torch.equal(loaded.palette, data.palette)


@pytest.mark.parametrize(
    "keys, problem",
    [
        ({"num_colors": 9}, r"palette: .*\[8, 3\].*\[9, 3\]"),
        ({"model": "unet_no_prior"}, r"Unexpected key.*prior.log_probs"),
    ],
)
def test_weights_of_another_network_are_refused(saved, keys, problem):
    choice, _, file = saved
    with pytest.raises(IntegrityError, match=f"does not fit.*{problem}"):
        choice.replace(**keys).load_model(file)


def test_build_checks_data_and_kernel(data, config):
    with pytest.raises(ConfigError, match="found 9, but the palette of the data has 8 colours"):
        config().replace(num_colors=9).build(data, 0)
    with pytest.raises(ConfigError, match="kernel_size': found 33, expected at most 32"):
        config().replace(kernel_size=33).build(data, 0)


@pytest.mark.parametrize(
    "key, value",
    [
        ("model", "resnet"),
        ("kernel_size", 4),
        ("num_colors", 257),
        ("dropout_rate", 1.0),
        ("shift", 17),
    ],
)
def test_a_bad_value_is_refused(key, value):
    with pytest.raises(ConfigError, match=f"{key}.*found {value!r}"):
        ColorizationConfig(**{"model": "unet"} | {key: value})


@pytest.mark.parametrize("key", ["dropout_rate", "class_weight"])
def test_a_key_of_the_unet_is_refused_for_the_cnn(key):
    with pytest.raises(ConfigError, match=f"{key}.*0.1.*'cnn_prior' does not use it"):
        ColorizationConfig(model="cnn_prior", **{key: 0.1})
