import ctypes
import os
import platform

import pytest
import torch

from smai_lib.core import runs, training
from smai_lib.core.errors import ConfigError, NonFiniteLossError
from smai_lib.core.training import build_optimizer, evaluate, fit


@pytest.fixture
def train(data):
    """Train a network for a config; return it with what `fit` returns."""

    def train(config, data=data, **options):
        task, model = config.build(data, 0)
        return model, fit(model, task, data.train, data.validation, config, seed=0, **options)

    return train


def test_training_learns_the_task(train, config):
    _, fitted = train(config.replace(epochs=30, learning_rate=0.03, width=32))
    assert fitted.rows[-1]["val_accuracy"] > 0.8


def test_evaluation_does_not_depend_on_the_batch_size(config, data, monkeypatch):
    task, model = config.build(data, 0)
    expected = evaluate(model, task, data.test)
    monkeypatch.setattr(training, "EVALUATION_BATCH", 7)
    assert evaluate(model, task, data.test) == pytest.approx(expected, rel=1e-5)


def test_the_moving_average_equals_that_by_hand(config, data):
    config = config.replace(average_decay=0.5, epochs=1, batch_size=40)  # two steps
    task, model = config.build(data, 0)
    weight, steps = model[1].weight, []

    def on_batch(images):
        steps.append(weight.detach().clone())

    options = {"seed": 0, "precision": "float32", "on_batch": on_batch}
    fit(model, task, data.train, data.validation, config, **options)
    assert len(steps) == 2  # the first update copies, the second averages
    torch.testing.assert_close(weight.detach(), (steps[0] + steps[1]) / 2)


def test_a_last_batch_of_one_image_is_left_out(train, config, data):
    sizes = []
    train(config.replace(epochs=1), data.take(65, 60, 60), on_batch=sizes.append)
    assert sizes == [32, 32]


def test_the_best_epochs_weights_are_kept_beside_the_last_ones(make_run, data):
    """A few images are overfitted, so validation is best early."""
    data = data.take(20, 60, 60)
    keys = {"epochs": 15, "batch_size": 10, "learning_rate": 0.1, "width": 64}
    for keep in ("last", "best"):
        run = make_run(keep, data=data, keep=keep, **keys)
        result = runs.execute(run, data, precision="float32")
        losses = run.history["val_loss"]
        best = int(losses.idxmin()) + 1
        assert best < run.config.epochs and result["metrics"]["best_epoch"] == best
        assert result["metrics"]["tested_epoch"] == {"last": 15, "best": best}[keep]
        task, _ = run.config.build(data, 0)
        for epoch, row in (("last", 15), ("best", best)):
            model = run.config.load_model(run.weights_files[epoch])
            loss = evaluate(model, task, data.validation)["loss"]
            assert loss == pytest.approx(losses[row - 1], rel=1e-5)
        test_loss = evaluate(run.load_model(), task, data.test)["loss"]
        assert test_loss == pytest.approx(result["metrics"]["test_loss"], rel=1e-5)


@pytest.mark.parametrize(
    "keys, expected",
    [
        ({"optimizer": "SGD", "momentum": 0.9}, {"momentum": 0.9, "weight_decay": 0}),
        ({"optimizer": "AdamW", "weight_decay": 0.05}, {"weight_decay": 0.05}),
        ({"optimizer": "Adam"}, {"weight_decay": 0, "betas": (0.9, 0.999)}),
    ],
)
def test_the_optimizer_gets_its_keys(config, keys, expected):
    config = config.replace(learning_rate=0.02, **keys)
    optimizer = build_optimizer(torch.nn.Linear(2, 1), config)
    assert type(optimizer) is getattr(torch.optim, config.optimizer)
    assert optimizer.param_groups[0].items() >= {"lr": 0.02, **expected}.items()


def test_a_loss_that_is_not_finite_names_epoch_and_batch_and_keeps_earlier_epochs(config, data):
    task, model = config.build(data, 0)
    sizes, checkpoints = [], []

    def on_batch(images):
        sizes.append(images)
        if len(sizes) == 4:  # the first of the second epoch
            model[1].weight.data.fill_(float("nan"))

    options = {"seed": 0, "on_batch": on_batch, "save": checkpoints.append}
    with pytest.raises(NonFiniteLossError, match="nan at epoch 2, batch 2 of 3"):
        fit(model, task, data.train, data.validation, config, **options)
    assert len(sizes) == 6  # found at the end of the epoch
    assert [len(checkpoint["rows"]) for checkpoint in checkpoints] == [1]


@pytest.mark.parametrize("device", ["mps", "gpu", "cuda:7", "meta", ""])
def test_a_device_that_is_not_there_is_refused(train, config, device, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    message = f"^device: found '{device}', but this machine has cpu; use 'auto'$"
    with pytest.raises(ConfigError, match=message):
        train(config, device=device)


def test_an_unknown_precision_is_refused(train, config):
    with pytest.raises(ConfigError, match="precision: found 'half', expected auto"):
        train(config, precision="half")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_training_leaves_the_callers_memory_allocator_as_it_was(train, config):
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p

    def returned_when_freed(size):
        """Return whether a buffer is mapped on its own, and so returned to the system."""
        buffer = libc.malloc(ctypes.c_size_t(size))
        header = ctypes.cast(
            buffer - ctypes.sizeof(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)
        )
        mapped = bool(header[0] & 2)  # IS_MMAPPED in malloc.c
        libc.free(ctypes.c_void_p(buffer))
        return mapped

    within = []
    train(config, on_batch=lambda images: within.append(returned_when_freed(1 << 26)))
    assert not any(within) and returned_when_freed(1 << 28)


@pytest.mark.parametrize("workspace", [None, ":16:8"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_training_on_cuda_leaves_the_callers_settings_as_they_were(
    workspace, deterministic, monkeypatch
):
    variable = "CUBLAS_WORKSPACE_CONFIG"
    monkeypatch.delenv(variable, raising=False)
    if workspace:
        monkeypatch.setenv(variable, workspace)
    torch.use_deterministic_algorithms(deterministic)
    try:
        with pytest.raises(KeyboardInterrupt), training._deterministic(torch.device("cuda")):
            assert torch.is_deterministic_algorithms_warn_only_enabled()
            assert os.environ[variable] == ":4096:8"
            raise KeyboardInterrupt
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ.get(variable) == workspace
    finally:
        torch.use_deterministic_algorithms(False)
