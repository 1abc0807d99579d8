"""Runs on a GPU: bit-identical where they share it, and after an interrupt. Skipped without one."""

import subprocess
import sys
from itertools import count

import pytest
import torch

from smai_lib import multitask
from smai_lib.colorization.studies import CNN_PRIOR, REPORT_CNN, UNET
from smai_lib.core import paths, runs
from smai_lib.core.errors import RunError
from smai_lib.core.runs import Run
from smai_lib.core.training import evaluate
from smai_lib.multitask.recipe import BEST, RESIDUAL
from smai_lib.multitask.studies import TEN_CONFIGS

without_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")


def gpu(test):
    """Mark a test that needs a GPU."""
    return pytest.mark.gpu(without_gpu(test))


SMALL = {"epochs": 2, "batch_size": 64}
ROTATED = multitask.Config(rotation=10, shift=2, block_dropout=0.25, weighting="uncertainty")
MULTITASK = {
    "as reported": TEN_CONFIGS["config 1"],
    "recipe": BEST,
    "residual": RESIDUAL,
    "rotated": ROTATED,
}
COLORIZATION = {
    "as reported": REPORT_CNN,
    "prior": CNN_PRIOR,
    "U-Net": UNET,
    "U-Net, dropout": UNET.replace(dropout_rate=0.1),
}


@pytest.fixture(params=["multitask", "colorization"])
def task(request, sample, made_up_colors):
    """Configs by name, and data of several batches and a shorter one."""
    if request.param == "multitask":
        configs, data = MULTITASK, sample.take(600, 100, 100)
        return {name: config.replace(**SMALL) for name, config in configs.items()}, data
    configs, data = COLORIZATION, made_up_colors((600, 100, 100))
    return {name: c.replace(num_filters=8, **SMALL) for name, c in configs.items()}, data


def make_runs(task, root):
    configs, data = task
    return [Run(config, 0, data.fingerprint, root, name) for name, config in configs.items()]


def interrupt_in_second_epoch(run, data):
    batches = count(1)

    def on_batch(images):
        if next(batches) > len(data.train[0]) // 64 + 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.execute(run, data, on_batch, device="cuda")
    assert len(run.history) == 1


def outcome_of(run):
    result = run.result()
    files = [file.read_bytes() for file in (run.history_file, *run.weights_files.values())]
    return [result["device"], result["precision"], result["metrics"], *files]


@gpu
def test_runs_that_share_a_gpu_equal_those_alone_and_those_resumed(task, tmp_path):
    _, data = task
    alone = make_runs(task, tmp_path / "alone")
    together = make_runs(task, tmp_path / "together")
    resumed = make_runs(task, tmp_path / "resumed")
    runs.run_all(alone, data, device="cuda", engine="serial")
    runs.run_all(together, data, device="cuda", engine="processes", workers=4)
    for run in resumed:
        interrupt_in_second_epoch(run, data)
        runs.execute(run, data)
    for first, second, third in zip(alone, together, resumed, strict=True):
        outcome = outcome_of(first)
        assert outcome[:2] == ["cuda", "bfloat16"]
        assert outcome == outcome_of(second) == outcome_of(third), first.name


@gpu
def test_a_network_has_the_same_metrics_on_a_gpu(task):
    configs, data = task
    split = type(data.test)(*(column.to("cuda") for column in data.test))
    for name, config in configs.items():
        objective, model = config.build(data, 0)
        on_cpu = evaluate(model, objective, data.test)
        on_gpu = evaluate(model.to("cuda"), objective, split)
        assert on_gpu == pytest.approx(on_cpu, rel=1e-3), name


@gpu
def test_a_run_started_on_a_gpu_is_not_continued_on_a_cpu(tiny, tmp_path):
    run = Run(BEST.replace(**SMALL), 0, tiny.fingerprint, tmp_path)
    runs.execute(run, tiny, device="cuda")
    with pytest.raises(RunError, match="device: found 'cpu', .* started with 'cuda'"):
        runs.execute(run, tiny, device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused_in_one_line():
    command = [sys.executable, "-m", "smai_lib", "run", "q1_lambda", "--device", "cuda"]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "found 'cuda', but this machine has cpu; use 'auto'" in done.stderr.splitlines()[-1]
