import subprocess
import sys
import textwrap
import time

import pytest

from smai_lib.core import runs


def test_processes_and_serial_give_the_same_numbers(make_spec, tiny, tmp_path):
    """Within float tolerance: a worker has one thread, this process may have more."""
    results = {}
    for engine in ("processes", "serial"):  # Ray is in test_cluster
        specs = [
            make_spec(name=str(seed), root=tmp_path / engine, seed=seed, epochs=1)
            for seed in (0, 1)
        ]
        runs.run_all(specs, tiny, engine=engine)
        results[engine] = [spec.folder.result()["metrics"]["val_loss"] for spec in specs]
    assert results["processes"] == pytest.approx(results["serial"], rel=1e-3)


def test_one_failing_run_does_not_stop_the_others(make_spec, tiny, tmp_path):
    good, bad = make_spec(epochs=1), make_spec(name="bad", root=tmp_path / "file", epochs=1)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(runs.RunError, match="cannot write") as caught:
        runs.run_all([bad, good], tiny)
    assert "in run 'bad'" in caught.value.__notes__[0]
    assert good.folder.result() is not None


def test_workers_of_a_killed_study_let_go_of_their_runs(make_spec, tiny, tmp_path):
    spec = make_spec(root=tmp_path, epochs=10_000)
    folder = spec.folder
    script = f"""
        import pathlib
        from smai_lib.core import engines, runs
        from smai_lib.multitask.config import MultiTaskConfig
        from smai_lib.multitask.fashion_mnist import fashion_mnist
        if __name__ == "__main__":
            tiny = fashion_mnist("sample", verbose=False).subset(300, 100, 100)
            config = MultiTaskConfig.from_dict({spec.config.to_dict()!r})
            spec = runs.RunSpec("run", "test", config, 0, tiny.fingerprint, pathlib.Path({str(tmp_path)!r}))
            runs.run_all([spec], tiny)
    """
    file = tmp_path / "study.py"
    file.write_text(textwrap.dedent(script))
    study = subprocess.Popen([sys.executable, file], stderr=subprocess.DEVNULL)
    wait_until(lambda: folder.history_file.exists() and folder.history_file.stat().st_size)
    study.kill()
    study.wait()

    def free():
        try:
            with runs.exclusive(folder.path, runs.RunError):
                return True
        except runs.RunError:
            return False

    wait_until(free)
    assert folder.result() is None and len(folder.history()) >= 1


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.2)


def test_an_unknown_engine_lists_the_known(make_spec, tiny):
    with pytest.raises(ValueError, match="processes, serial"):
        runs.run_all([make_spec()], tiny, engine="warp")
