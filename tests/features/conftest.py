import pytest
import torch
from torch import nn

from smai_lib.multitask.config import MultiTaskConfig


@pytest.fixture(scope="session")
def network():
    """Return a function that builds a small network whose BatchNorms are not the identity."""

    def build(**keys):
        torch.manual_seed(0)
        keys = {"num_layers": 2, "base_filters": 4, "dropout_rate": 0.5} | keys
        model = MultiTaskConfig(**keys).build_network((0.3, 2.0))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.normal_(module.bias, std=0.3)
        return model.eval()

    return build


@pytest.fixture(scope="session")
def split(tiny):
    return tiny.train._make(column[:60] for column in tiny.train)
