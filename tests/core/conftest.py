"""A toy task, so that the core is tested without a topic: classify random points by one of them."""

import os
import threading
from http.server import ThreadingHTTPServer
from typing import ClassVar, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from smai_lib.core import paths
from smai_lib.core.config import Config
from smai_lib.core.data import Dataset
from smai_lib.core.runs import Run
from smai_lib.core.training import evaluate, seeded


class Split(NamedTuple):
    images: torch.Tensor  # (N, 1, 4, 4)
    labels: torch.Tensor  # (N,) whether the first pixel is positive


class ToyTask:
    def augment(self, train):
        return train._replace(images=train.images + 0.1 * torch.randn_like(train.images))

    def inputs(self, split, index):
        return split.images[index]

    def loss(self, output, split, index):
        labels = split.labels[index]
        losses = F.cross_entropy(output.float(), labels, reduction="none")
        hits = output.argmax(1) == labels
        return losses.mean(), torch.stack([losses.detach(), hits, torch.ones_like(hits)], 1).sum(0)

    def metrics(self, sums):
        loss, hits, images = sums.tolist()
        return {"loss": loss / images, "accuracy": hits / images}

    def epoch_diagnostics(self, model, train):
        return {}

    def final_metrics(self, model, data):
        metrics = evaluate(model, self, data.test)
        with torch.inference_mode():
            logits = model(data.test.images).tolist()
        return {
            "metrics": {f"test_{key}": value for key, value in metrics.items()},
            "nested": {"logits": logits},
        }

    def figures(self, final, model, data):
        return {}


class ToyConfig(Config):
    kind: ClassVar[str] = "ToyConfig"
    task: ClassVar[str] = "toy"

    width: int = Field(4, ge=1, le=64)
    bias: bool = True

    def build(self, data, seed):
        with seeded(seed, "model"):
            return ToyTask(), self.build_network()

    def build_network(self):
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(16, self.width, bias=self.bias),
            nn.BatchNorm1d(self.width),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(self.width, 2),
        )


@pytest.fixture(scope="session")
def config():
    """Two epochs of three batches."""
    return ToyConfig(epochs=2, batch_size=32)


@pytest.fixture(scope="session")
def data():
    images = torch.randn(200, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = (images[:, 0, 0, 0] > 0).long()
    parts = zip(images.split([80, 60, 60]), labels.split([80, 60, 60]), strict=True)
    splits = [Split(*part) for part in parts]
    return Dataset(*splits, "toy", None, "f" * 64)


@pytest.fixture
def make_run(config, data, tmp_path):
    def make(root="runs", seed=0, data=data, **keys):
        return Run(config.replace(**keys), seed, data.fingerprint, tmp_path / root, "run", "toys")

    return make


@pytest.fixture
def report(tmp_path, monkeypatch):
    """An empty folder in place of the repository's `report`."""
    for name in ("results", "weights"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(paths, name.upper(), tmp_path / name)
    return tmp_path


class Hostile:
    """It makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("was run",)


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """An object whose code must not run when a file is read."""
    monkeypatch.chdir(tmp_path)
    yield Hostile()
    assert not (tmp_path / "was run").exists()


@pytest.fixture
def serve():
    """Start a local web server, and return its URL: `serve(class of request handlers)`."""
    servers = []

    def start(handler):
        handler.log_message = lambda *_: None
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
