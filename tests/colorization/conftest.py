import pytest
import torch

from smai_lib.colorization.baselines import baselines
from smai_lib.colorization.config import ColorizationConfig
from smai_lib.colorization.data import prepare
from smai_lib.colorization.task import Colorization


@pytest.fixture(scope="session")
def tinted(made_up_images):
    """Images that are blue above and green below, in all luminances: only the row tells."""
    generator = torch.Generator().manual_seed(0)
    light = torch.randint(40, 250, (60, 1, 32, 32), generator=generator)
    tint = torch.zeros(60, 3, 32, 32, dtype=torch.long)
    tint[:, 2, :16] = tint[:, 1, 16:] = 30
    return made_up_images((40, 10, 10), pixels=(light + tint - 10).clamp(0, 255).byte())


@pytest.fixture(scope="session")
def data(tinted):
    return prepare(tinted, 8)


@pytest.fixture(scope="session")
def tables(data):
    return baselines(data)


@pytest.fixture(scope="session")
def config():
    """A function that returns the config of a small network, with further keys."""

    def make(**keys):
        return ColorizationConfig(num_colors=8, num_filters=4, kernel_size=3, epochs=1, **keys)

    return make


@pytest.fixture(scope="session")
def metrics_of(config):
    """A function that evaluates a module without parameters, which has no device."""

    def measure(model, split):
        task = Colorization(config())
        logits = model(task.inputs(split, slice(None)))
        return task.metrics(task.loss(logits, split, slice(None))[1])

    return measure
