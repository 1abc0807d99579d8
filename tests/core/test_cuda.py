"""The same on a GPU: several runs share it, and a run is the same bits again, also when interrupted. Skipped without one."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from smai_lib.colorization.studies import CNN_PRIOR, REPORT_CNN, UNET
from smai_lib.core import paths, runs
from smai_lib.core.training import evaluate
from smai_lib.multitask.config import MultiTaskConfig
from smai_lib.multitask.recipe import BEST, RESIDUAL
from smai_lib.multitask.studies import TEN_CONFIGS

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
SMALL = {"epochs": 2, "batch_size": 64}
Q1 = {
    name: replace(config, **SMALL)
    for name, config in {
        "as reported": TEN_CONFIGS["config 1"],
        "recipe": BEST,
        "residual": RESIDUAL,
        "turned": MultiTaskConfig(
            rotation=10, shift=2, block_dropout=0.25, weighting="uncertainty"
        ),
    }.items()
}
Q2 = {
    name: replace(config, num_filters=8, **SMALL)
    for name, config in {
        "as reported": REPORT_CNN,
        "prior": CNN_PRIOR,
        "U-Net": UNET,
        "U-Net, dropout": replace(UNET, dropout_rate=0.1),
    }.items()
}


def specs_of(configs, data, root, seed=0):
    return [
        runs.RunSpec(name, "test", config, seed, data.fingerprint, root)
        for name, config in configs.items()
    ]


def bits(spec):
    result = spec.folder.result()
    return [
        spec.folder.history_file.read_bytes(),
        *(file.read_bytes() for file in spec.folder.weights_files.values()),
        result["metrics"],
        result["device"],
        result["precision"],
    ]


@pytest.fixture(params=["Q1", "Q2"])
def task(request, sample, made_up_colors):
    """Configurations, and data of several batches and a rest."""
    return (
        (Q1, sample.subset(600, 100, 100))
        if request.param == "Q1"
        else (Q2, made_up_colors((600, 100, 100)))
    )


@gpu
def test_runs_that_share_a_gpu_equal_those_alone_and_those_interrupted_and_continued(
    task, tmp_path
):
    configs, data = task
    alone, together, broken = (
        specs_of(configs, data, tmp_path / name) for name in ("alone", "together", "broken")
    )
    runs.run_all(alone, data, device="cuda", engine="serial")
    runs.run_all(together, data, device="cuda", engine="processes", workers=4)
    for spec in broken:

        def stop(images, shown=[]):  # noqa: B006  each run has its own
            shown.append(images)
            if sum(shown) > len(data.train[0]) + 100:  # in the second epoch
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            runs.execute(spec, data, stop, device="cuda")
        assert len(spec.folder.history()) == 1
        runs.execute(spec, data)
    for first, second, third in zip(alone, together, broken, strict=True):
        assert bits(first)[-2:] == ["cuda", "bfloat16"]
        assert bits(first) == bits(second) == bits(third), first.name


@gpu
def test_a_network_measures_the_same_on_a_gpu(task):
    configs, data = task
    for name, config in configs.items():
        objective, model = config.build(data, 0)
        here = evaluate(model, objective, data.test)
        there = evaluate(
            model.to("cuda"), objective, type(data.test)(*(x.to("cuda") for x in data.test))
        )
        assert there == pytest.approx(here, rel=1e-3), name


@gpu
def test_a_run_that_began_on_a_gpu_is_not_continued_on_a_cpu(tiny, tmp_path):
    spec = specs_of({"run": Q1["recipe"]}, tiny, tmp_path)[0]
    runs.execute(spec, tiny, device="cuda")
    with pytest.raises(runs.RunError, match="device: found 'cpu', expected 'cuda'"):
        runs.execute(spec, tiny, device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_in_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "smai_lib", "run", "q1_lambda", "--device", "cuda"],
        check=False,
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "found 'cuda', expected 'cpu' or 'auto', since torch sees no GPU here"
    )
