import pytest

from smai_lib.core.errors import ConfigError


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("learning_rate", "fast", "a valid number"),
        ("batch_size", 64.0, "a valid integer"),
        ("batch_size", 10**70, "less than or equal to 65536"),
        ("schedule", "cosine", "'constant' or 'one_cycle'"),
    ],
)
def test_a_bad_value_is_refused_with_its_key_and_what_was_expected(config, key, value, expected):
    with pytest.raises(ConfigError) as error:
        config.replace(**{key: value})
    assert str(error.value) == f"config key {key!r}: found {value!r:.60}, expected {expected}"


def test_every_problem_has_its_line_and_an_unknown_key_is_answered_with_the_known(config):
    with pytest.raises(ConfigError) as error:
        config.replace(widht=1, epochs=0)
    bad_value, unknown = sorted(str(error.value).splitlines())
    assert "'epochs': found 0" in bad_value
    assert unknown.startswith("unknown config key 'widht'; the keys are learning_rate")


@pytest.mark.parametrize(
    "key, value, owner, others",
    [("momentum", 0.9, "SGD", ("Adam", "Muon")), ("weight_decay", 0.1, "Muon", ("Adam", "SGD"))],
)
def test_a_key_that_the_optimizer_ignores_keeps_its_default(config, key, value, owner, others):
    assert config.replace(optimizer=owner, **{key: value}).changed()[key] == value
    for other in others:
        with pytest.raises(ConfigError, match=f"'{key}': found {value}, expected its default"):
            config.replace(optimizer=other, **{key: value})


def test_one_cycle_rises_then_falls(config):
    cycle = config.replace(schedule="one_cycle", learning_rate=0.01)
    rates = [cycle.learning_rate_at(eighths / 8) for eighths in range(9)]
    assert rates[:3] == pytest.approx([0.0004, 0.0052, 0.01])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[5] == pytest.approx(0.005) and rates[8] == pytest.approx(1e-7)


def test_a_constant_schedule_keeps_the_learning_rate(config):
    assert config.learning_rate_at(0.7) == config.learning_rate
