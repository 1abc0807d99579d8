"""A batch needs no value of a tensor on the host, which would wait for a GPU to compute it."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from smai_lib.colorization.studies import CLASS_HEAD, MODELS, REPORT_CNN
from smai_lib.core.training import fit
from smai_lib.multitask.recipe import BEST, RESIDUAL
from smai_lib.multitask.studies import TEN_CONFIGS

MULTITASK = [TEN_CONFIGS["config 1"].replace(weighting="uncertainty"), BEST, RESIDUAL]
COLORIZATION = [REPORT_CNN, MODELS[CLASS_HEAD].replace(average_decay=0.9)]
WAITING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class CountReads(TorchDispatchMode):
    """Counts operations whose result, or its size, the host must know."""

    reads = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        waits = WAITING & set(function.tags)
        if function is torch.ops.aten.index.Tensor:  # only masks have a size to find out
            waits = any(index is not None and index.dtype == torch.bool for index in args[1])
        self.reads += bool(waits)
        return function(*args, **(kwargs or {}))


@pytest.fixture(params=["multitask", "colorization"])
def task(request, sample, made_up_colors):
    """Configs, and data of four batches."""
    if request.param == "multitask":
        return [config.replace(base_filters=4) for config in MULTITASK], sample.take(256, 64, 64)
    configs = [config.replace(num_filters=4) for config in COLORIZATION]
    return configs, made_up_colors((256, 64, 64))


def test_more_batches_are_no_more_reasons_to_wait(task):
    configs, data = task
    for config in configs:
        reads = []
        for images in (128, 256):
            part = data.take(images)
            objective, model = config.build(part, 0)
            short = config.replace(epochs=1, batch_size=64)
            with CountReads() as counter:
                fit(model, objective, part.train, part.validation, short, seed=0)
            reads.append(counter.reads)
        assert reads[0] == reads[1] > 0, config
