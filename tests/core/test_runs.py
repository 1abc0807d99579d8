import hashlib
import json
import subprocess
import sys
import textwrap
from dataclasses import make_dataclass, replace

import pytest
import torch
from safetensors.torch import load_file

from smai_lib.core import runs
from smai_lib.core.training import NonFiniteLossError
from smai_lib.multitask import objective as multitask
from smai_lib.multitask.config import MultiTaskConfig


def in_another_process(spec, kill_after=None):
    """Execute `spec` in a fresh interpreter that kills itself after so many images."""
    script = f"""
        import os, signal, pathlib, torch
        from smai_lib.core import runs
        from smai_lib.multitask.config import MultiTaskConfig
        from smai_lib.multitask.fashion_mnist import fashion_mnist
        torch.set_num_threads(1)
        tiny = fashion_mnist("sample", verbose=False).subset(300, 100, 100)
        config = MultiTaskConfig.from_dict({spec.config.to_dict()!r})
        spec = runs.RunSpec("run", "test", config, 0, tiny.fingerprint, pathlib.Path({str(spec.root)!r}))
        done = 0
        def on_batch(images):
            global done
            done += images
            if {kill_after!r} and done > {kill_after!r}:
                os.kill(os.getpid(), signal.SIGKILL)
        runs.execute(spec, tiny, on_batch=on_batch)
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )


def test_killed_and_resumed_ends_in_the_same_bits(make_spec, tmp_path):
    straight, broken = make_spec(root=tmp_path / "straight"), make_spec(root=tmp_path / "broken")
    done = in_another_process(straight)
    assert done.returncode == 0, done.stderr
    folder, whole = broken.folder, straight.folder
    assert in_another_process(broken, kill_after=400).returncode == -9  # in the middle of epoch 2
    assert len(folder.history()) == 1 and folder.result() is None
    # as if the kill had fallen between the history and the checkpoint of epoch 2
    with open(folder.history_file, "a") as file:
        file.write("2,0.1,this row has no checkpoint\n")
    done = in_another_process(broken)
    assert done.returncode == 0, done.stderr
    assert folder.history_file.read_bytes() == whole.history_file.read_bytes()
    assert folder.result()["metrics"] == whole.result()["metrics"]
    assert folder.weights_files["last"].read_bytes() == whole.weights_files["last"].read_bytes()


def test_a_seed_gives_the_same_bits_and_another_seed_others(make_spec, tiny, tmp_path):
    first, again, other = (
        runs.execute(make_spec(root=tmp_path / name, seed=seed), tiny)["metrics"]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert first["val_loss"] != other["val_loss"]


def test_training_leaves_the_callers_randomness_alone(make_spec, tiny):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    runs.execute(make_spec(), tiny)
    assert torch.equal(torch.rand(3), expected)


def test_the_record_of_a_finished_run(make_spec, tiny):
    spec = make_spec()
    result = runs.execute(spec, tiny)
    folder, config = spec.folder, json.loads((spec.folder.path / "config.json").read_text())
    history = folder.history()
    assert config["lambda1"] == spec.config.lambda1 and config["seed"] == 0
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history["val_accuracy"].iloc[-1] == result["metrics"]["val_accuracy"]
    assert history["val_accuracy"].max() == result["metrics"]["best_val_accuracy"]
    assert not folder.checkpoint_file.exists()
    for key in (
        "data_source",
        "data_fingerprint",
        "device",
        "precision",
        "threads",
        "torch",
        "smai_lib",
    ):
        assert result[key], key
    assert result["train_images"] == 300


def test_reloaded_weights_give_identical_logits(make_spec, tiny):
    spec = make_spec()
    result = runs.execute(spec, tiny)
    _, model = spec.config.build(tiny, seed=99)
    model.load_state_dict(load_file(spec.weights_file))
    assert multitask.confusion(model, tiny.test).tolist() == result["nested"]["confusion"]


def test_a_finished_run_is_not_trained_again(make_spec, tiny):
    spec = make_spec()
    first = runs.execute(spec, tiny)
    written = spec.folder.result_file.stat().st_mtime_ns
    assert runs.execute(spec, tiny) == first
    assert spec.folder.result_file.stat().st_mtime_ns == written


def test_the_run_id_depends_on_config_seed_and_data_only(make_spec, tmp_path):
    same = make_spec(name="other name", root=tmp_path / "elsewhere")
    assert same.run_id == make_spec().run_id
    assert len({make_spec().run_id, make_spec(seed=1).run_id, make_spec(lambda2=2.0).run_id}) == 3


def test_the_run_id_is_a_hash_of_the_keys_that_are_not_at_their_default(make_spec, tiny):
    differs = {"num_layers": 2, "base_filters": 4, "batch_size": 32, "epochs": 3, "lambda2": 2.0}
    identity = ["MultiTaskConfig", differs, 5, tiny.fingerprint]
    expected = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    spec = make_spec(seed=5, lambda2=2.0)
    assert spec.run_id == expected
    defaults = {
        key: value for key, value in MultiTaskConfig().to_dict().items() if key not in differs
    }
    assert make_spec(seed=5, lambda2=2.0, **defaults).run_id == expected  # said or not
    later = make_dataclass(
        "MultiTaskConfig", [("later", int, 1)], bases=(MultiTaskConfig,), frozen=True, kw_only=True
    )
    with_later = [replace(spec, config=later(**differs, later=value)) for value in (1, 2)]
    assert with_later[0].run_id == expected != with_later[1].run_id


@pytest.mark.parametrize(
    "key, value",
    [("lambda1", 2.0), ("mirror", True), ("optimizer", "SGD"), ("hidden", 64), ("epochs", 4)],
)
def test_one_other_key_is_another_run(make_spec, key, value):
    assert make_spec(**{key: value}).run_id != make_spec().run_id


def test_other_data_than_asked_for_is_refused(make_spec, sample):
    with pytest.raises(runs.RunError, match="fingerprint"):
        runs.execute(make_spec(), sample)


def test_a_folder_in_use_is_refused(make_spec, tiny):
    spec = make_spec()
    with (
        runs.exclusive(spec.folder.path, runs.RunError),
        pytest.raises(runs.RunError, match="in use by another process"),
    ):
        runs.execute(spec, tiny)


def test_an_unwritable_folder_is_refused(make_spec, tiny, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(runs.RunError, match="cannot write.*SMAI_RUNS"):
        runs.execute(make_spec(root=tmp_path / "file"), tiny)


def test_a_damaged_checkpoint_is_named(make_spec, tiny):
    spec = make_spec()
    spec.folder.path.mkdir(parents=True)
    spec.folder.checkpoint_file.write_bytes(b"damaged")
    with pytest.raises(runs.RunError, match="checkpoint.pt cannot be read.*delete it"):
        runs.execute(spec, tiny)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_record(make_spec, tiny, monkeypatch):
    spec = make_spec()
    objective, model = spec.config.build(tiny, spec.seed)
    batches = 0

    class Poisoned(type(objective)):
        def loss(self, output, split, index):
            nonlocal batches
            loss, sums = super().loss(output, split, index)
            if split is not tiny.validation and torch.is_grad_enabled():
                batches += 1
            return (loss * float("nan") if batches == 13 else loss), sums

    monkeypatch.setattr(
        MultiTaskConfig, "build", lambda config, data, seed: (Poisoned(config, 1.0), model)
    )
    # 300 images in batches of 32 are 10 batches: the 13th is the third of epoch 2
    with pytest.raises(NonFiniteLossError, match="epoch 2, batch 3 of 10"):
        runs.execute(spec, tiny)
    assert len(spec.folder.history()) == 1
    assert spec.folder.result() is None
