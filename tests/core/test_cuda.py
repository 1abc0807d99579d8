"""Runs on a GPU: bit-identical where they share it, and after an interrupt. Skipped without one."""

from itertools import count

import pytest
import torch

from smai_lib import multitask
from smai_lib.colorization.studies import CNN_PRIOR, REPORT_CNN, UNET
from smai_lib.core import runs
from smai_lib.core.runs import Run
from smai_lib.core.training import evaluate
from smai_lib.multitask.recipe import BEST, RESIDUAL
from smai_lib.multitask.studies import TEN_CONFIGS

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


def interrupt_in_second_epoch(run, data):
    batches = count(1)

    def on_batch(images):
        if next(batches) == 13:  # an epoch has 10
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.execute(run, data, on_batch, device="cuda")
    assert len(run.history) == 1


def outcome_of(run):
    result = run.result()
    files = [file.read_bytes() for file in (run.history_file, *run.weights_files.values())]
    return [result["device"], result["precision"], result["metrics"], *files]


def test_runs_that_share_a_gpu_equal_those_alone_and_those_resumed(task, tmp_path):
    configs, data = task
    alone, together, resumed = (
        [Run(config, 0, data.fingerprint, tmp_path / name) for config in configs]
        for name in ("alone", "together", "resumed")
    )
    runs.run_all(alone, data, device="cuda", engine="serial")
    runs.run_all(together, data, device="cuda", engine="processes", workers=4)
    for run in resumed:
        interrupt_in_second_epoch(run, data)
        runs.execute(run, data)
    for first, second, third in zip(alone, together, resumed, strict=True):
        outcome = outcome_of(first)
        assert outcome[:2] == ["cuda", "bfloat16"]
        assert outcome == outcome_of(second) == outcome_of(third), first.config


def test_a_network_has_the_same_metrics_on_a_gpu(task):
    configs, data = task
    split = type(data.test)(*(column.to("cuda") for column in data.test))
    for config in configs:
        objective, model = config.build(data, 0)
        on_cpu = evaluate(model, objective, data.test)
        on_gpu = evaluate(model.to("cuda"), objective, split)
        assert on_gpu == pytest.approx(on_cpu, rel=1e-3), config
