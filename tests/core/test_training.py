from dataclasses import replace

import pytest
import torch

from smai_lib.core import runs
from smai_lib.core.training import build_optimizer, evaluate, fit
from smai_lib.multitask.config import MultiTaskConfig

SMALL = MultiTaskConfig(num_layers=2, base_filters=4, batch_size=50, epochs=2)


def test_training_improves_on_chance_and_on_the_constant(sample):
    data = sample.subset(2000, 500, 10)
    objective, model = SMALL.build(data, 0)
    last = fit(model, objective, data.train, data.validation, SMALL, seed=0).rows[-1]
    assert last["val_accuracy"] > 0.4 and last["train_loss"] < 2


def test_evaluation_does_not_depend_on_the_batch(tiny, monkeypatch):
    objective, model = SMALL.build(tiny, 0)
    whole = evaluate(model, objective, tiny.test)
    monkeypatch.setattr("smai_lib.core.training.EVALUATION_BATCH", 7)
    assert evaluate(model, objective, tiny.test) == pytest.approx(whole, rel=1e-5)


def test_the_moving_average_by_hand(tiny):
    """Two steps by SGD-like bookkeeping: average of the weights after steps 1 and 2, decay 0.5."""
    config = replace(SMALL, dropout_rate=0.0, average_decay=0.5, epochs=1)
    two = tiny.subset(100, 50, 50)
    weights = []
    objective, model = config.build(two, 0)
    first = model.backbone.block1.conv.weight
    fit(
        model,
        objective,
        two.train,
        two.validation,
        config,
        seed=0,
        precision="float32",
        on_batch=lambda images: weights.append(first.detach().clone()),
    )
    assert len(weights) == 2  # the first update copies, the second averages
    assert torch.allclose(
        model.backbone.block1.conv.weight, (weights[0] + weights[1]) / 2, atol=1e-7
    )


def test_an_interrupted_recipe_ends_in_the_same_bits(tiny, tmp_path):
    """With every ingredient at once, stopped after the first of three epochs."""
    config = replace(
        SMALL,
        dropout_rate=0.0,
        mirror=True,
        shift=2,
        average_decay=0.9,
        label_smoothing=0.1,
        schedule="one_cycle",
        optimizer="AdamW",
        ink_scaling="z_score",
        epochs=3,
    )

    class Stop(Exception):
        pass

    def stop(row):
        raise Stop

    def run(folder, on_epoch=lambda row: None):
        objective, model = config.build(tiny, 0)
        fitted = fit(
            model,
            objective,
            tiny.train,
            tiny.validation,
            config,
            seed=0,
            on_epoch=on_epoch,
            checkpoint=folder.load_checkpoint(),
            save=folder.save_epoch,
        )
        return model.state_dict() | {f"best {key}": value for key, value in fitted.best.items()}

    whole = run(made(tmp_path / "whole"))
    with pytest.raises(Stop):
        run(made(tmp_path / "parts"), stop)
    resumed = run(made(tmp_path / "parts"))
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)
    assert (tmp_path / "parts/history.csv").read_bytes() == (
        tmp_path / "whole/history.csv"
    ).read_bytes()


def made(path):
    path.mkdir(exist_ok=True)
    return runs.RunFolder(path)


def test_the_best_epochs_weights_are_kept_beside_the_last(tiny, tmp_path):
    """Overfitting a few images: validation is best early, and that epoch's tensors measure as its row says."""
    config = MultiTaskConfig(
        num_layers=2, base_filters=4, batch_size=20, epochs=15, learning_rate=3e-2, dropout_rate=0.0
    )
    data = tiny.subset(40, 100, 50)
    results = {}
    for keep in ("last", "best"):
        spec = runs.RunSpec(
            "run", "test", replace(config, keep=keep), 0, data.fingerprint, tmp_path / keep
        )
        results[keep] = runs.execute(spec, data, device="cpu"), spec
    losses = spec.folder.history()["val_loss"]
    best = int(losses.idxmin()) + 1
    assert best < config.epochs  # else the two could not be told apart
    for keep, (result, spec) in results.items():
        assert result["metrics"]["best_epoch"] == best
        assert result["metrics"]["tested_epoch"] == {"last": config.epochs, "best": best}[keep]
        objective, _ = config.build(data, 0)
        for epoch, row in (("last", config.epochs), ("best", best)):
            model = config.load(spec.folder.weights_files[epoch])
            assert evaluate(model, objective, data.validation)["loss"] == pytest.approx(
                losses[row - 1], rel=1e-2
            )
        model = config.load(spec.weights_file)
        assert evaluate(model, objective, data.test)["loss"] == pytest.approx(
            result["metrics"]["test_loss"], rel=1e-4
        )
    assert results["last"][0]["metrics"]["test_loss"] != results["best"][0]["metrics"]["test_loss"]


def test_the_optimizer_gets_the_keys_that_are_its_own():
    def group(**keys):
        optimizer = build_optimizer(
            torch.nn.Linear(2, 1), replace(SMALL, learning_rate=0.02, **keys)
        )
        assert type(optimizer) is getattr(torch.optim, keys["optimizer"])
        return optimizer.param_groups[0]

    assert group(optimizer="SGD", momentum=0.9)["momentum"] == 0.9
    assert group(optimizer="SGD")["momentum"] == 0
    assert group(optimizer="AdamW", weight_decay=0.05)["weight_decay"] == 0.05
    assert group(optimizer="SGD")["weight_decay"] == group(optimizer="Adam")["weight_decay"] == 0
    assert group(optimizer="Adam")["lr"] == 0.02
