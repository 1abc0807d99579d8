import pytest

from smai_lib.core.config import ConfigError
from smai_lib.multitask.config import MultiTaskConfig
from smai_lib.studies import TEN_CONFIGS


@pytest.mark.parametrize("values, named", [
    ({"lambda3": 1.0}, "lambda3"),
    ({"learning_rate": "fast"}, "learning_rate"),
    ({"learning_rate": 0.0}, "learning_rate"),
    ({"batch_size": 64.0}, "batch_size"),
    ({"batch_size": True}, "batch_size"),
    ({"epochs": 0}, "epochs"),
    ({"lambda1": -1.0}, "lambda1"),
    ({"lambda2": float("nan")}, "lambda2"),
    ({"lambda1": 0.0, "lambda2": 0.0}, "both 0"),
    ({"num_layers": 4}, "num_layers"),
    ({"optimizer": "SGDD"}, "SGDD"),
    ({"dropout_rate": 1.0}, "dropout_rate"),
])
def test_bad_values_are_refused_by_name(values, named):
    with pytest.raises(ConfigError, match=named):
        MultiTaskConfig.from_dict(values)


@pytest.mark.parametrize("values, named", [
    ({"hidden": 0}, "hidden"),
    ({"ceil_mode": 1}, "ceil_mode"),
    ({"ink_scaling": "unit"}, "raw, z_score"),
    ({"schedule": "cosine"}, "constant, one_cycle"),
])
def test_bad_values_of_a_recipe_are_refused_by_name(values, named):
    with pytest.raises(ConfigError, match=named):
        MultiTaskConfig.from_dict(values)


def test_an_unknown_key_lists_the_known_ones():
    with pytest.raises(ConfigError, match="lambda1.*base_filters"):
        MultiTaskConfig.from_dict({"lamda1": 1.0})


def test_whole_numbers_are_the_same_floats():
    whole, real = MultiTaskConfig(lambda1=1), MultiTaskConfig(lambda1=1.0)
    assert repr(whole) == repr(real)


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
    keys = ("lambda1", "lambda2", "learning_rate", "dropout_rate", "optimizer", "batch_size", "epochs",
            "num_layers", "base_filters")
    assert [tuple(getattr(config, key) for key in keys) for config in TEN_CONFIGS.values()] == expected
    assert list(TEN_CONFIGS) == [f"config {n}" for n in range(1, 11)]
