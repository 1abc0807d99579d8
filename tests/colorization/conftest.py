import pytest
import torch

from smai_lib.colorization.config import ColorizationConfig
from smai_lib.colorization.data import prepare
from smai_lib.colorization.objective import ColorizationObjective
from smai_lib.colorization.tables import baselines


@pytest.fixture(scope="session")
def tinted(made_up_images):
    """Blue above green, each of every brightness: the row tells them apart, luminance cannot."""
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
    """A small network's configuration, with further keys."""

    def make(**keys):
        return ColorizationConfig(num_colors=8, num_filters=4, kernel_size=3, epochs=1, **keys)

    return make


@pytest.fixture(scope="session")
def metrics_of(config):
    """What `training.evaluate` makes of a module that has no parameters to tell its device."""

    def measure(model, split):
        objective = ColorizationObjective(config())
        logits = model(objective.inputs(split, slice(None)))
        return objective.metrics(objective.loss(logits, split, slice(None))[1])

    return measure
