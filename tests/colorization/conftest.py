import pytest
import torch

from smai_lib.colorization.baselines import baselines
from smai_lib.colorization.config import ColorizationConfig
from smai_lib.colorization.data import prepare
from smai_lib.colorization.task import Colorization
from smai_lib.core.errors import DataError


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


@pytest.fixture
def web(tmp_path, monkeypatch):
    """An empty data folder, and the files that can be downloaded, by URL; without npm."""
    files = {}

    def download(urls, file, checksum):
        for url in urls:
            if url in files:
                file.write_bytes(files[url])
                return
        raise DataError(f"{urls[0]}: no network")

    monkeypatch.setenv("SMAI_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("SMAI_COLOR_IMAGES", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("smai_lib.colorization.cifar10.download", download)
    return files
