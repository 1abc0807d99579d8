from dataclasses import dataclass

import pytest

from smai_lib.core.config import Config, ConfigError, require_number


@dataclass(frozen=True, kw_only=True)
class Tiny(Config):
    """The keys that every run has, and two."""

    width: int = 4
    deep: bool = False


@pytest.mark.parametrize(
    "values, named",
    [
        ({"lambda3": 1.0}, "lambda3"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"batch_size": 64.0}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"epochs": 0}, "epochs"),
        ({"optimizer": "SGDD"}, "SGDD"),
        ({"schedule": "cosine"}, "constant, one_cycle"),
        ({"deep": 1}, "deep"),
    ],
)
def test_bad_values_are_refused_by_name(values, named):
    with pytest.raises(ConfigError, match=named):
        Tiny.from_dict(values)


@pytest.mark.parametrize("key, value", [("average_decay", 1.0), ("schedule", "cosine")])
def test_a_value_out_of_range_is_named(key, value):
    with pytest.raises(ConfigError, match=f"{key}.*{value}.*expected"):
        Tiny(**{key: value})


@pytest.mark.parametrize(
    "values, named",
    [
        ({"learning_rate": 10**400}, "'learning_rate': found 1000.*0000, expected at most 1.79"),
        ({"weight_decay": float("inf")}, "'weight_decay': found inf, expected at most"),
        ({"width": 10**9}, "'width': found 1000000000, expected at most 1,024"),
        ({"batch_size": 10**400}, "'batch_size': found 1000.*0000, expected at most 65,536"),
        ({"epochs": 10**6}, "'epochs': found 1000000, expected at most 100,000"),
    ],
)
def test_numbers_that_no_machine_has_room_or_time_for_are_refused(values, named):
    with pytest.raises(ConfigError, match=named) as refused:
        Tiny(**values)
    assert len(str(refused.value)) < 150


@pytest.mark.parametrize("seed", ["abc", "1", 1.0, None, True, 2**32])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ConfigError, match="'seed': found .*, expected"):
        require_number("seed", seed, int)


def test_an_unknown_key_lists_the_known_ones():
    with pytest.raises(ConfigError, match="learning_rate.*width"):
        Tiny.from_dict({"widht": 1})


def test_whole_numbers_are_the_same_floats():
    whole, real = Tiny(learning_rate=1), Tiny(learning_rate=1.0)
    assert repr(whole) == repr(real)


def test_one_cycle_rises_then_falls():
    choice = Tiny(schedule="one_cycle", learning_rate=0.01)
    rates = [choice.learning_rate_at(progress / 100) for progress in range(101)]
    assert rates[0] == pytest.approx(0.0004) and rates[100] == pytest.approx(1e-7)
    assert choice.learning_rate_at(0.125) == pytest.approx(0.0052)  # half way up
    assert max(rates) == rates[25] == pytest.approx(0.01)
    assert rates[:26] == sorted(rates[:26]) and rates[25:] == sorted(rates[25:], reverse=True)
    assert Tiny().learning_rate_at(0.7) == 1e-3


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, float("nan")])
def test_momentum_is_from_0_to_below_1(value):
    with pytest.raises(ConfigError, match=f"'momentum': found {value}, expected 0 <= value < 1"):
        Tiny(optimizer="SGD", momentum=value)


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW"])
def test_momentum_is_of_sgd_alone(optimizer):
    with pytest.raises(
        ConfigError,
        match=f"'momentum': found 0.9, expected 0, since optimizer '{optimizer}' takes none",
    ):
        Tiny(optimizer=optimizer, momentum=0.9)
    assert (
        Tiny(optimizer=optimizer, momentum=0).momentum == 0
        and Tiny(optimizer="SGD", momentum=0.9).momentum == 0.9
    )
