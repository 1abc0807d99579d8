"""A run is bit-identical however often it is stopped, and never uses a damaged file in silence."""

import itertools
import json
import os
import shutil
from functools import partial
from unittest.mock import Mock

import pandas as pd
import pytest
import torch

from smai_lib.core import runs
from smai_lib.core.errors import ConfigError, RunError
from smai_lib.core.files import exclusive


class Killed(BaseException):
    """In place of SIGKILL."""


def execute_until(moment, run, data):
    """Execute `run`, killed at a moment: after a batch, or before or after a file is replaced."""
    moments = itertools.count()
    replace = os.replace

    def next_moment(*_):
        if next(moments) == moment:
            raise Killed

    def replace_file(source, target):
        next_moment()
        replace(source, target)
        next_moment()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace_file)
        runs.execute(run, data, next_moment)


def interrupt(run, data, batch=5, **settings):
    """Interrupt `run` at a batch: the fifth is in the second epoch of `config`."""
    on_batch = Mock(side_effect=[None] * (batch - 1) + [KeyboardInterrupt])
    with pytest.raises(KeyboardInterrupt):
        runs.execute(run, data, on_batch, **settings)


def damage(file):
    """Yield once for each way in which a file is damaged, then restore it."""
    content = file.read_bytes()
    versions = [b"", b"{}", b"[]", content[:-2]]
    for position in range(0, len(content), len(content) // 30):
        flipped = bytearray(content)
        flipped[position] ^= 16  # no digit becomes another: the last of a float may not count
        versions.append(flipped)
    for version in versions:
        file.write_bytes(version)
        yield
    file.write_bytes(content)


def bits(run):
    """Return all that must be bit-identical in two runs of the same config and seed."""
    files = (run.history_file, *run.weights_files.values())
    return [file.read_bytes() for file in files], run.metrics, run.result()["nested"]


@pytest.fixture
def finished(make_run, data):
    run = make_run()
    runs.execute(run, data)
    return run


def test_a_run_that_is_killed_at_any_moment_continues_bit_identically(make_run, data):
    keys = {"optimizer": "AdamW", "schedule": "one_cycle", "average_decay": 0.9, "keep": "best"}
    straight = make_run("straight", **keys)
    runs.execute(straight, data)
    for moment in itertools.count():
        run = make_run(f"killed {moment}", **keys)
        try:
            execute_until(moment, run, data)
        except Killed:
            runs.execute(run, data)
            assert bits(run) == bits(straight), moment
        else:
            break
    assert moment > 20  # 6 batches, twice 9 files


def test_a_seed_gives_the_same_bits_again_and_another_seed_others(make_run, data):
    first, again, other = make_run("a"), make_run("b"), make_run("c", seed=1)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for run in (first, again, other):
        runs.execute(run, data)
    assert torch.equal(torch.rand(3), expected)  # the caller's generator is left alone
    assert bits(first) == bits(again) != bits(other)


def test_a_finished_run_leaves_its_record(finished, data):
    config = json.loads((finished.folder / "config.json").read_text("utf-8"))
    assert config.items() >= {**finished.config.to_dict(), "seed": 0, "device": "cpu"}.items()
    assert finished.history["epoch"].tolist() == [1, 2]
    assert finished.history["val_accuracy"].max() == finished.metrics["best_val_accuracy"]
    row = runs.results_table([finished.result()]).iloc[0]
    expected = {"name": "run", "width": 4, "seed": 0, "train_images": 80, "data_source": "toy"}
    assert row[list(expected)].to_dict() == expected
    assert row[["precision", "threads", "torch", "smai_lib", "test_loss"]].notna().all()
    logits = finished.load_model()(data.test.images)
    assert logits.tolist() == finished.result()["nested"]["logits"]
    assert not finished.checkpoint_file.exists()


def test_a_finished_run_is_looked_up_also_in_a_folder_that_cannot_be_written(config, data):
    first = runs.train(config, data)
    first.folder.joinpath(".lock").unlink(missing_ok=True)
    first.folder.chmod(0o555)
    before = {path: path.stat().st_mtime_ns for path in (first.folder, *first.folder.iterdir())}
    again = runs.train(config, data)
    assert again == first and again.load_model()
    assert runs.execute(again, data) == first.result()
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_integers_of_numpy_and_pandas_give_the_same_run_id(make_run):
    numbers = pd.Series([1, 3, 8])
    run = make_run(seed=numbers[1], width=numbers[2], learning_rate=numbers[0])
    assert run.run_id == make_run(seed=3, width=8, learning_rate=1.0).run_id


@pytest.mark.parametrize("seed", [1.0, True, -1, 2**32])
def test_a_seed_is_a_whole_number(make_run, seed):
    with pytest.raises(ConfigError, match="^seed: found .*, expected"):
        make_run(seed=seed)


def test_other_data_are_refused(make_run, data):
    with pytest.raises(RunError, match="fingerprint"):
        runs.execute(make_run(), data.take(40))


def test_a_folder_is_used_by_one_process(make_run, data):
    run = make_run()
    with exclusive(run.folder), pytest.raises(RunError, match="in use by another process"):
        runs.execute(run, data)


def test_a_folder_that_cannot_be_made_is_named(make_run, data):
    run = make_run()
    run.root.touch()
    with pytest.raises(RunError, match="cannot write.*SMAI_RUNS"):
        runs.execute(run, data)


@pytest.mark.parametrize("target", ["file", "missing"])
def test_what_is_in_the_place_of_a_folder_is_to_be_deleted(make_run, data, target):
    run = make_run()
    run.root.mkdir(parents=True)
    (run.root / "file").touch()
    run.folder.symlink_to(target)
    with pytest.raises(RunError, match=f"{run.folder} is no folder; delete it"):
        runs.execute(run, data)


FILES = ("config.json", "history.csv", "last.safetensors", "best.safetensors", "result.json")


@pytest.mark.parametrize("name", FILES)
def test_any_damage_to_a_finished_run_is_refused_with_the_files_name(finished, name):
    for _ in damage(finished.folder / name):
        with pytest.raises(RunError, match=f"{name} is damaged.*delete {finished.folder} "):
            finished.load_model()
    assert finished.load_model()


def test_the_files_of_another_run_are_refused(finished, make_run, data):
    other, stopped, started = make_run(seed=1), make_run(seed=2), make_run(seed=3)
    shutil.copytree(finished.folder, other.folder)
    with pytest.raises(RunError, match="result.json is damaged, missing or of another run"):
        runs.execute(other, data)
    interrupt(stopped, data)
    shutil.copytree(stopped.folder, started.folder)
    with pytest.raises(RunError, match=f"of run '{stopped.run_id}', expected {started.run_id}"):
        runs.execute(started, data)


def test_a_damaged_run_does_not_stop_the_runs_before_it(make_run, data):
    good, damaged = make_run(seed=0), make_run(seed=1)
    damaged.folder.mkdir(parents=True)
    damaged.result_file.write_text("{}", "utf-8")
    with pytest.raises(RunError, match="result.json is damaged"):
        runs.run_all([good, damaged], data, engine="serial")
    assert good.finished


def test_any_damage_to_a_checkpoint_is_refused(make_run, data):
    run = make_run()
    interrupt(run, data)
    for _ in damage(run.checkpoint_file):
        with pytest.raises(RunError, match="checkpoint.pt cannot be read.*delete it"):
            runs.execute(run, data)
    assert len(run.load_checkpoint()["rows"]) == 1


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(make_run, data, hostile):
    """Its checksum is right, as that of an attacker would be."""
    run = make_run()
    run.folder.mkdir(parents=True)
    run.save_checkpoint({"rows": [], "best": hostile})
    with pytest.raises(RunError, match="checkpoint.pt cannot be read"):
        runs.execute(run, data)


@pytest.mark.parametrize("name", ["checkpoint.pt", *FILES])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_named_and_loses_nothing(make_run, data, name):
    """Writing to /dev/full fails as on a full disk."""
    run, straight = make_run(), make_run("straight")
    runs.execute(straight, data)
    interrupt(run, data)
    file = run.folder / name
    file.with_name(f"{name}.part").symlink_to("/dev/full")
    with pytest.raises(RunError, match=f"cannot write {file} .No space left on device.*Make room"):
        runs.execute(run, data)
    assert not list(run.folder.glob("*.part")) and not run.finished
    runs.execute(run, data)
    assert bits(run) == bits(straight)


def test_a_run_continues_with_the_precision_and_threads_of_its_start(make_run, data, monkeypatch):
    run, straight = make_run(), make_run("straight")
    runs.execute(straight, data, precision="float32")
    interrupt(run, data, precision="float32")
    monkeypatch.setattr(runs, "choose_precision", lambda precision, device: "bfloat16")
    torch.set_num_threads(2)  # as on another machine
    try:
        runs.execute(run, data)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert bits(run) == bits(straight) and run.result()["threads"] == 1


@pytest.mark.parametrize("start", [interrupt, runs.execute])
def test_another_device_or_precision_than_at_the_start_is_refused(make_run, data, start):
    run = make_run()
    start(run, data, device="cpu", precision="float32")
    for continue_run in (runs.execute, partial(runs.run_all, engine="serial")):
        one = run if continue_run is runs.execute else [run]
        with pytest.raises(RunError, match="device: found 'cuda', but .* started with 'cpu'"):
            continue_run(one, data, device="cuda")
        with pytest.raises(RunError, match="precision: found 'bfloat16', but .* with 'float32'"):
            continue_run(one, data, precision="bfloat16")


def test_a_run_cannot_continue_where_its_device_is_missing(make_run, data, monkeypatch):
    run = make_run()
    interrupt(run, data)
    run.save_checkpoint(run.load_checkpoint() | {"device": "cuda"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RunError, match="started on 'cuda', which this machine lacks; continue"):
        runs.execute(run, data)


@pytest.mark.parametrize("asked, cores, expected", [(0, 16, 4), (0, 2, 2), (6, 16, 6)])
def test_few_runs_share_a_gpu(asked, cores, expected, make_run, data, monkeypatch):
    run_tasks = Mock()
    monkeypatch.setattr(runs, "choose_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(runs.pool, "cores", lambda: cores)
    monkeypatch.setattr(runs.pool, "run_tasks", run_tasks)
    monkeypatch.setattr(runs.Run, "result", Mock())
    monkeypatch.setattr(runs, "_check_settings", Mock())
    runs.run_all([make_run()], data, workers=asked)
    assert run_tasks.call_args.kwargs["workers"] == expected
