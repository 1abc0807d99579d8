import inspect
from dataclasses import fields, replace

import pytest
import torch
from safetensors.torch import save_file

from smai_lib.core.config import ConfigError
from smai_lib.core.weights import WeightsError
from smai_lib.multitask.config import OF_THE_NETWORK, MultiTaskConfig
from smai_lib.multitask.model import MultiTaskCNN
from smai_lib.multitask.studies import lambda_config


@pytest.mark.parametrize(
    "values, named",
    [
        ({"lambda1": -1.0}, "lambda1"),
        ({"lambda2": float("nan")}, "lambda2"),
        ({"lambda1": 0.0, "lambda2": 0.0}, "both 0"),
        ({"num_layers": 4}, "num_layers"),
        ({"dropout_rate": 1.0}, "dropout_rate"),
    ],
)
def test_bad_values_are_refused_by_name(values, named):
    with pytest.raises(ConfigError, match=named):
        MultiTaskConfig.from_dict(values)


@pytest.mark.parametrize(
    "values, named",
    [
        ({"hidden": 0}, "hidden"),
        ({"ceil_mode": 1}, "ceil_mode"),
        ({"ink_scaling": "unit"}, "raw, z_score"),
        ({"backbone": "vgg"}, "backbone.*'vgg'.*plain, residual"),
        ({"pooling": "max"}, "pooling.*'max'.*flatten, average"),
        ({"ink_target": "stale"}, "ink_target.*augmented, original"),
        ({"pairs": 2}, "pairs.*found 2, expected 1, since backbone 'plain' has none"),
        ({"ink_hidden": -1}, "ink_hidden"),
        ({"block_dropout": 1.0}, "block_dropout"),
        ({"ink_dropout": -0.1}, "ink_dropout"),
        ({"rotation": 181.0}, "rotation.*0 to 180 degrees"),
        ({"shift": 28}, "shift.*found 28"),
        ({"momentum": 0.9}, "momentum.*'Adam' takes none"),
    ],
)
def test_bad_values_of_a_recipe_are_refused_by_name(values, named):
    with pytest.raises(ConfigError, match=named):
        MultiTaskConfig.from_dict(values)


@pytest.mark.parametrize(
    "key, value",
    [("ink_scaling", "log"), ("weighting", "best"), ("shift", 9), ("label_smoothing", 1.0)],
)
def test_a_value_out_of_range_is_named(key, value):
    with pytest.raises(ConfigError, match=f"{key}.*{value}.*expected"):
        MultiTaskConfig(**{key: value})


@pytest.mark.parametrize("moves", [{"shift": 2}, {"rotation": 10.0}])
def test_a_stale_ink_target_is_warned_of_and_a_fresh_one_is_not(tiny, moves, recwarn):
    MultiTaskConfig(base_filters=4, **moves).build(tiny, 0)
    MultiTaskConfig(base_filters=4, ink_target="original", mirror=True).build(tiny, 0)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="'ink_target': found 'original' .* the target is stale"):
        MultiTaskConfig(base_filters=4, ink_target="original", **moves).build(tiny, 0)


def test_without_ingredients_a_recipe_is_the_plain_run(tiny):
    few = slice(0, 40)
    recipe = lambda_config(1.0)
    plain = recipe.build(tiny, 0)
    config = MultiTaskConfig(
        **{field.name: getattr(recipe, field.name) for field in fields(MultiTaskConfig)}
    )
    objective, model = config.build(tiny, 0)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), plain[1].state_dict().values(), strict=True)
    )
    output = model.eval()(objective.inputs(tiny.train, few))
    assert torch.equal(
        objective.loss(output, tiny.train, few)[0], plain[0].loss(output, tiny.train, few)[0]
    )


def test_weights_of_a_recipe_bring_the_scale_of_their_ink(tmp_path, tiny):
    config = MultiTaskConfig(
        num_layers=2, base_filters=3, ink_scaling="z_score", hidden=7, ceil_mode=True
    )
    model = config.build(tiny, 0)[1].eval()
    save_file(model.state_dict(), tmp_path / "recipe.safetensors")
    images = torch.rand(4, 1, 28, 28)
    loaded = config.load(tmp_path / "recipe.safetensors")
    for found, expected in zip(loaded(images)[:2], model(images)[:2], strict=True):
        torch.testing.assert_close(found, expected)
    with pytest.raises(WeightsError, match=r"ink_scale: found \(2,\), expected nothing"):
        replace(config, ink_scaling="raw").load(tmp_path / "recipe.safetensors")


def test_the_network_gets_every_key_that_it_knows():
    keys = {field.name for field in fields(MultiTaskConfig)} & {
        *inspect.signature(MultiTaskCNN).parameters
    }
    assert set(OF_THE_NETWORK) == keys
