"""Training measures what it says, and leaves the caller's process as it was."""

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


def test_the_learning_rate_follows_its_schedule(train, config):
    config = config.replace(schedule="one_cycle", epochs=4)
    rates = [row["learning_rate"] for row in train(config).rows]
    assert rates == [config.learning_rate_at(share) for share in (0.25, 0.5, 0.75, 1.0)]


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
        ({"optimizer": "Muon", "weight_decay": 0.05}, {"weight_decay": 0.05}),
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


def test_a_device_or_precision_that_is_not_there_is_refused(train, config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="^device: found 'cuda', but .* has cpu; use 'auto'$"):
        train(config, device="cuda")
    with pytest.raises(ConfigError, match="^precision: found 'half', expected auto"):
        train(config, precision="half")


@pytest.mark.parametrize(
    "able, faster",
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, "bfloat16"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, "float32"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False, "amx_bf16": False}, "float32"),
        ({"cpu_name": "Apple M2"}, "float32"),
    ],
)
def test_a_processor_trains_in_the_precision_that_is_faster_there(able, faster, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert training.choose_precision("auto", torch.device("cpu")) == faster
    assert training.choose_precision("bfloat16", torch.device("cpu")) == "bfloat16"


def test_cuda_is_deterministic_until_training_ends():
    before = torch.get_deterministic_debug_mode()
    with pytest.raises(KeyboardInterrupt), training._deterministic(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
        raise KeyboardInterrupt
    assert torch.get_deterministic_debug_mode() == before


def test_float32_is_not_rounded_by_cudnn_while_training():
    assert torch.backends.cudnn.allow_tf32
    with training._deterministic(torch.device("cuda")):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("native, chosen", [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_that_emulates_bfloat16_trains_in_float32(native, chosen, monkeypatch):
    def is_supported(including_emulation=True):
        return including_emulation or native

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert training.choose_precision("auto", torch.device("cuda")) == chosen


def test_seeding_for_the_cpu_leaves_gpus_alone(monkeypatch):
    def touched(*_):
        raise AssertionError("a GPU was touched")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("get_rng_state", "set_rng_state", "manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, touched)
    before = torch.get_rng_state()
    with training.seeded(0, "model"):
        first = torch.rand(2)
    assert torch.equal(torch.get_rng_state(), before)
    with training.seeded(0, "model"):
        assert torch.equal(torch.rand(2), first)
