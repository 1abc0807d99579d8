import pytest
import torch

from smai_lib.multitask import fashion_mnist

torch.set_num_threads(1)  # small tensors: on a busy machine threads wait for each other


@pytest.fixture(autouse=True)
def private_folders(tmp_path, monkeypatch):
    """Runs and wandb files of a test go to its own folder; wandb is off unless a test turns it on."""
    monkeypatch.setenv("SMAI_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.delenv("WANDB_DIR", raising=False)


@pytest.fixture(scope="session")
def sample():
    return fashion_mnist.fashion_mnist("sample", verbose=False)


@pytest.fixture(scope="session")
def tiny(sample):
    return sample.subset(300, 100, 100)
