import pytest

from smai_lib.core import study
from smai_lib.multitask.config import MultiTaskConfig


@pytest.fixture
def record(monkeypatch):
    """A function that lets studies read given tables, by file name, instead of the shipped ones."""

    def use(tables):
        monkeypatch.setattr(study, "read_table", tables.__getitem__)

    return use


@pytest.fixture
def small():
    """A function that returns the config of a small network without dropout, with further keys."""

    def make(**keys):
        defaults = {"num_layers": 2, "base_filters": 4, "batch_size": 50, "dropout_rate": 0.0}
        return MultiTaskConfig(**defaults | keys)

    return make
