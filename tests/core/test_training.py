"""Training learns, measures what it says, and leaves the caller's process as it was."""

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
    """Train a network, built from the config unless it is given."""

    def train(config, model=None, data=data, **options):
        task, built = config.build(data, 0)
        return fit(model or built, task, data.train, data.validation, config, seed=0, **options)

    return train


def test_training_learns_the_task(train, config):
    fitted = train(config.replace(epochs=30, learning_rate=0.03, width=32))
    assert fitted.rows[-1]["val_accuracy"] > 0.8


def test_evaluation_does_not_depend_on_the_batch_size(config, data, monkeypatch):
    task, model = config.build(data, 0)
    expected = evaluate(model, task, data.test)
    monkeypatch.setattr(training, "EVALUATION_BATCH", 7)
    assert evaluate(model, task, data.test) == pytest.approx(expected, rel=1e-5)


def test_the_moving_average_equals_that_by_hand(train, config, data):
    config = config.replace(average_decay=0.5, epochs=1, batch_size=40)
    _, model = config.build(data, 0)
    weight, steps = model[1].weight, []
    train(config, model, on_batch=lambda images: steps.append(weight.detach().clone()))
    assert len(steps) == 2  # the first update copies, the second averages
    torch.testing.assert_close(weight.detach(), (steps[0] + steps[1]) / 2)


def test_a_last_batch_of_one_image_is_left_out(train, config, data):
    sizes = []
    train(config.replace(epochs=1), data=data.take(65, 60, 60), on_batch=sizes.append)
    assert sizes == [32, 32]


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_kept_epochs_weights_are_tested(make_run, data, keep):
    """A few images are overfitted, so validation is best early."""
    data = data.take(20, 60, 60)
    keys = {"epochs": 15, "batch_size": 10, "learning_rate": 0.1, "width": 64}
    run = make_run(data=data, keep=keep, **keys)
    metrics = runs.execute(run, data, precision="float32")["metrics"]
    losses = run.history["val_loss"]
    epochs = {"last": 15, "best": losses.argmin() + 1}
    assert epochs["best"] == metrics["best_epoch"] < 15
    assert epochs[keep] == metrics["tested_epoch"]
    task, _ = run.config.build(data, 0)
    for name, epoch in epochs.items():
        model = run.config.load_model(run.weights_files[name])
        loss = evaluate(model, task, data.validation)["loss"]
        assert loss == pytest.approx(losses[epoch - 1], rel=1e-5)
    test_loss = evaluate(run.load_model(), task, data.test)["loss"]
    assert test_loss == pytest.approx(metrics["test_loss"], rel=1e-5)


@pytest.mark.parametrize(
    "keys, expected",
    [
        ({"optimizer": "SGD", "momentum": 0.9}, {"momentum": 0.9, "weight_decay": 0}),
        ({"optimizer": "AdamW", "weight_decay": 0.05}, {"weight_decay": 0.05}),
        ({"optimizer": "Adam", "learning_rate": 0.02}, {"weight_decay": 0, "lr": 0.02}),
    ],
)
def test_the_optimizer_gets_its_keys(config, keys, expected):
    optimizer = build_optimizer(torch.nn.Linear(2, 1), config.replace(**keys))
    assert type(optimizer).__name__ == keys["optimizer"]
    assert optimizer.param_groups[0].items() >= expected.items()


def test_a_loss_that_is_not_finite_names_epoch_and_batch_and_keeps_earlier_epochs(
    train, config, data
):
    _, model = config.build(data, 0)
    sizes, checkpoints = [], []

    def on_batch(images):
        sizes.append(images)
        if len(sizes) == 4:  # the first batch of the second epoch
            model[1].weight.data.fill_(float("nan"))

    with pytest.raises(NonFiniteLossError, match="nan at epoch 2, batch 2 of 3"):
        train(config, model, on_batch=on_batch, save=checkpoints.append)
    assert len(sizes) == 6  # found at the end of the epoch
    assert [len(checkpoint["rows"]) for checkpoint in checkpoints] == [1]


@pytest.mark.parametrize("device", ["mps", "gpu", "cuda:7", "meta", ""])
def test_a_device_that_is_not_there_is_refused(train, config, device, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(
        ConfigError, match=f"^device: found '{device}', but .* has cpu; use 'auto'$"
    ):
        train(config, device=device)


def test_an_unknown_precision_is_refused(train, config):
    with pytest.raises(ConfigError, match="precision: found 'half', expected auto"):
        train(config, precision="half")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_large_buffers_return_to_the_system_once_training_has_ended(train, config):
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p

    def is_mapped(size):
        buffer = libc.malloc(ctypes.c_size_t(size))
        header = ctypes.c_size_t.from_address(buffer - ctypes.sizeof(ctypes.c_size_t))
        mapped = header.value & 2  # IS_MMAPPED: a buffer that `free` gives back
        libc.free(ctypes.c_void_p(buffer))
        return mapped

    during = []
    train(config, on_batch=lambda images: during.append(is_mapped(1 << 26)))
    assert not any(during) and is_mapped(1 << 28)


@pytest.mark.parametrize("workspace, deterministic", [(None, False), (":16:8", True)])
def test_cuda_settings_of_the_caller_are_restored(workspace, deterministic, monkeypatch):
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
