"""Runs on a GPU: bit-identical where they share it, and after an interrupt. Skipped without one."""

import pytest
import torch

from smai_lib import multitask
from smai_lib.colorization.studies import CNN_PRIOR, REPORT_CNN, UNET
from smai_lib.core import runs
from smai_lib.core.runs import Run
from smai_lib.core.training import evaluate
from smai_lib.multitask.recipe import BEST, RESIDUAL
from smai_lib.multitask.studies import TEN_CONFIGS
from tests.core.test_runs import bits, interrupt

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here"),
]

ROTATED = multitask.Config(rotation=10, shift=2, block_dropout=0.25, weighting="uncertainty")
MULTITASK = [TEN_CONFIGS["config 1"], BEST, RESIDUAL, ROTATED]
COLORIZATION = [REPORT_CNN, CNN_PRIOR, UNET, UNET.replace(dropout_rate=0.1)]


@pytest.fixture(params=["multitask", "colorization"])
def task(request, sample, made_up_colors):
    """Configs, and data of several batches and a shorter one."""
    configs, data = MULTITASK, sample.take(600, 100, 100)
    if request.param == "colorization":
        configs = [config.replace(num_filters=8) for config in COLORIZATION]
        data = made_up_colors((600, 100, 100))
    return [config.replace(epochs=2, batch_size=64) for config in configs], data


def test_runs_that_share_a_gpu_equal_those_alone_and_those_resumed(task, tmp_path):
    configs, data = task
    alone, together, resumed = (
        [Run(config, 0, data.fingerprint, tmp_path / name) for config in configs]
        for name in ("alone", "together", "resumed")
    )
    runs.run_all(alone, data, device="cuda", engine="serial")
    runs.run_all(together, data, device="cuda", engine="processes", workers=4)
    for run in resumed:
        interrupt(run, data, batch=13, device="cuda")  # an epoch has 10
        assert len(run.history) == 1
        runs.execute(run, data)
    table = runs.results_table([run.result() for run in [*alone, *together, *resumed]])
    assert set(table["device"]) == {"cuda"} and set(table["precision"]) == {"bfloat16"}
    for first, second, third in zip(alone, together, resumed, strict=True):
        assert bits(first) == bits(second) == bits(third), first.config


def test_a_network_has_the_same_metrics_on_a_gpu(task):
    configs, data = task
    split = type(data.test)(*(column.to("cuda") for column in data.test))
    for config in configs:
        objective, model = config.build(data, 0)
        on_cpu = evaluate(model, objective, data.test)
        on_gpu = evaluate(model.to("cuda"), objective, split)
        assert on_gpu == pytest.approx(on_cpu, rel=1e-3), config
