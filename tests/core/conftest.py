import pytest

from smai_lib.core.runs import RunSpec
from smai_lib.multitask.config import MultiTaskConfig


@pytest.fixture
def make_spec(tiny, tmp_path):
    """A short run on a few images, with further keys."""

    def make(name="run", root=None, seed=0, **changes):
        config = MultiTaskConfig(
            **{"num_layers": 2, "base_filters": 4, "batch_size": 32, "epochs": 3} | changes
        )
        return RunSpec(name, "test", config, seed, tiny.fingerprint, root or tmp_path / "runs")

    return make
