"""Damage to the files of one run: named, with the way out, and never used in silence."""

import hashlib
import io
import json
import os
import shutil

import pytest
import torch

from smai_lib.core import runs


class Stop(Exception):
    pass


def stopped(spec, data, after=400):
    """The run of `spec`, interrupted in the middle of its second epoch."""
    done = 0

    def on_batch(images):
        nonlocal done
        done += images
        if done > after:
            raise Stop

    with pytest.raises(Stop):
        runs.execute(spec, data, on_batch)


@pytest.fixture(scope="module")
def two_runs(sample, tmp_path_factory):
    """A finished run and another one, in a folder to copy from."""
    from smai_lib.multitask.config import MultiTaskConfig

    data, root = sample.subset(100, 50, 50), tmp_path_factory.mktemp("two")
    config = MultiTaskConfig(num_layers=2, base_filters=2, batch_size=32, epochs=2)
    specs = [runs.RunSpec("run", "test", config, seed, data.fingerprint, root) for seed in (0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        for spec in specs:
            runs.execute(spec, data)
    return [spec.folder for spec in specs]


@pytest.fixture
def finished(two_runs, tmp_path):
    return runs.RunFolder(shutil.copytree(two_runs[0].path, tmp_path / two_runs[0].path.name))


def flip(file, at=0.5):
    content = bytearray(file.read_bytes())
    content[int(len(content) * at)] ^= 1
    file.write_bytes(content)


FILES = ("config.json", "history.csv", "last.safetensors", "best.safetensors", "result.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage", [flip, lambda file: file.write_bytes(b""), lambda file: os.truncate(file, 40)]
)
def test_a_damaged_file_of_a_finished_run_is_named(finished, name, damage):
    assert finished.result()["run_id"] == finished.path.name
    damage(finished.path / name)
    with pytest.raises(runs.RunError, match=f"{name} is damaged.*delete {finished.path} "):
        finished.result()


@pytest.mark.parametrize(
    "content", ["{}", "null", "[]", "7", '{"files": []}', '{"files": {}, "sha256": ""}']
)
def test_what_is_no_result_is_refused(finished, content):
    finished.result_file.write_text(content)
    with pytest.raises(runs.RunError, match="result.json is damaged"):
        finished.result()


def test_a_changed_digit_a_lost_row_and_another_runs_result_are_refused(finished, two_runs):
    text, history = finished.result_file.read_text(), finished.history_file.read_text()
    finished.result_file.write_text(text.replace('"train_images": 100', '"train_images": 101'))
    with pytest.raises(runs.RunError, match="result.json is damaged"):
        finished.result()
    finished.result_file.write_text(text)
    finished.history_file.write_text("".join(history.splitlines(keepends=True)[:-1]))
    with pytest.raises(runs.RunError, match="history.csv is damaged"):
        finished.result()
    for file in two_runs[1].path.iterdir():
        shutil.copy(file, finished.path)
    with pytest.raises(runs.RunError, match="result.json is damaged, missing or another run's"):
        finished.result()


def test_a_finished_run_of_before_is_finished_again_by_its_result_alone(finished):
    """How a folder whose result named no digests is taken over."""
    before = finished.result()
    old = {key: value for key, value in before.items() if key not in ("files", "sha256")}
    finished.result_file.write_text(json.dumps(old))
    with pytest.raises(runs.RunError, match="result.json"):
        finished.result()
    finished.finish(old, {})
    assert finished.result() == before


def test_a_damaged_result_does_not_stop_the_other_runs(make_spec, tiny):
    damaged, good = (
        make_spec(name=name, seed=seed, epochs=1) for seed, name in enumerate(("damaged", "good"))
    )
    damaged.folder.path.mkdir(parents=True)
    damaged.folder.result_file.write_text("{}")
    with pytest.raises(runs.RunError, match="result.json is damaged") as caught:
        runs.run_all([damaged, good], tiny)
    assert "in run 'damaged'" in caught.value.__notes__[0]
    assert good.folder.result() is not None


def test_every_flipped_bit_of_a_checkpoint_is_seen(make_spec, tiny):
    spec = make_spec()
    stopped(spec, tiny)
    whole = spec.folder.checkpoint_file.read_bytes()
    for place in range(30):
        spec.folder.checkpoint_file.write_bytes(whole)
        flip(spec.folder.checkpoint_file, place / 30)
        with pytest.raises(runs.RunError, match="checkpoint.pt cannot be read.*delete it"):
            spec.folder.load_checkpoint()
    spec.folder.checkpoint_file.write_bytes(whole)
    assert len(spec.folder.load_checkpoint()["rows"]) == 1


def test_another_runs_checkpoint_is_refused(make_spec, tiny):
    one, other = make_spec(seed=0), make_spec(seed=1)
    stopped(one, tiny)
    other.folder.path.mkdir()
    shutil.copy(one.folder.checkpoint_file, other.folder.path)
    with pytest.raises(
        runs.RunError, match=f"it is of run '{one.run_id}', expected {other.run_id}.*delete it"
    ):
        runs.execute(other, tiny)


@pytest.mark.parametrize(
    "name", ["checkpoint.pt", "history.csv", "last.safetensors", "result.json"]
)
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_names_the_file_and_loses_nothing(make_spec, tiny, tmp_path, name):
    """Writing to /dev/full fails as a full disk does."""
    spec, straight = make_spec(), make_spec(root=tmp_path / "straight")
    stopped(spec, tiny)
    file = spec.folder.path / name
    (spec.folder.path / f"{name}.part").symlink_to("/dev/full")
    with pytest.raises(
        runs.RunError, match=f"cannot write {file} .No space left on device.; make room"
    ):
        runs.execute(spec, tiny)
    assert not list(spec.folder.path.glob("*.part")) and spec.folder.result() is None
    spec.folder.history_file.write_text(
        "damaged"
    )  # the checkpoint knows better, also after the last epoch
    metrics = runs.execute(spec, tiny)["metrics"]
    assert metrics == runs.execute(straight, tiny)["metrics"]
    assert spec.folder.history_file.read_bytes() == straight.folder.history_file.read_bytes()


def test_files_reach_the_disk_before_they_have_their_name(tmp_path, monkeypatch):
    seen = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (seen.append("fsync"), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *names: (seen.append("replace"), replace(*names)))
    runs.write(tmp_path / "file", "content")
    assert seen == ["fsync", "replace"] and (tmp_path / "file").read_text() == "content"


def test_a_run_goes_on_in_the_precision_and_threads_that_it_began_with(
    make_spec, tiny, tmp_path, monkeypatch
):
    spec, straight = make_spec(), make_spec(root=tmp_path / "straight")
    monkeypatch.setattr(runs, "choose_device", lambda device: torch.device("cpu"))
    whole = runs.execute(straight, tiny, precision="float32")
    monkeypatch.setattr(
        runs,
        "choose_precision",
        lambda precision, device: {"auto": "float32"}.get(precision, precision),
    )
    stopped(spec, tiny)
    config = json.loads((spec.folder.path / "config.json").read_text())
    assert (config["device"], config["precision"], config["threads"]) == ("cpu", "float32", 1)
    with pytest.raises(
        runs.RunError, match="precision: found 'bfloat16', expected 'float32', as it began.*delete"
    ):
        runs.execute(spec, tiny, precision="bfloat16")
    monkeypatch.setattr(
        runs, "choose_precision", lambda precision, device: "bfloat16"
    )  # as on another machine
    torch.set_num_threads(2)
    try:
        result = runs.execute(spec, tiny)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert (result["precision"], result["threads"]) == ("float32", 1)
    assert result["metrics"] == whole["metrics"]
    with pytest.raises(runs.RunError, match="precision: found 'bfloat16', expected 'float32'"):
        runs.execute(spec, tiny, precision="bfloat16")
    with pytest.raises(runs.RunError, match="device: found 'cuda', expected 'cpu'"):
        runs.execute(spec, tiny, device="cuda")


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(make_spec, tiny, tmp_path):
    """Also where its digest is right, as that of someone who can write it would be."""

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was run"),)

    spec = make_spec()
    stopped(spec, tiny)
    torch.save({"run_id": spec.run_id, "rows": Hostile()}, buffer := io.BytesIO())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest().encode()
    spec.folder.checkpoint_file.write_bytes(digest + b"\n" + buffer.getvalue())
    with pytest.raises(runs.RunError, match="checkpoint.pt cannot be read"):
        runs.execute(spec, tiny)
    assert not (tmp_path / "was run").exists()


def test_no_key_is_in_any_record(make_spec, tiny, tmp_path, monkeypatch):
    key = "5ec2e7" * 6 + "abcd"  # of the form of wandb's
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_MODE", "offline")
    spec = make_spec(epochs=1)
    runs.execute(spec, tiny)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.suffix == ".wandb" for file in files) and spec.folder.result_file in files
    assert [file for file in files if key.encode() in file.read_bytes()] == []
