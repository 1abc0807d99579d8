import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks import training as bench
from smai_lib.colorization.studies import REPORT_CNN, UNET
from smai_lib.core import paths
from smai_lib.multitask.studies import TEN_CONFIGS


@pytest.fixture(scope="module")
def colors(made_up_colors):
    return made_up_colors((8, 2, 2))


@pytest.fixture
def tasks(colors, tiny):
    return [
        bench.Task(
            "config 1", TEN_CONFIGS["config 1"], tiny, bench.GarmentOneByOne, bench.garment_loss
        ),
        *(
            bench.Task(config.model, config, colors, bench.ColorOneByOne, bench.color_loss)
            for config in (REPORT_CNN, UNET)
        ),
    ]


def test_the_textbook_network_is_the_same_network(tasks):
    for task in tasks:
        objective, ours = task.config.build(task.data, 0)
        textbook = task.textbook_model()
        inputs = objective.inputs(task.data.train, slice(0, 4))
        ours, textbook = ours.train(), textbook.train()
        with torch.random.fork_rng():
            torch.manual_seed(0)  # both drop the same
            expected = ours(inputs)
            torch.manual_seed(0)
            found = textbook(inputs)
        for a, b in zip(
            *((x if isinstance(x, tuple) else (x,)) for x in (expected, found)), strict=True
        ):
            assert (a is b is None) or torch.allclose(a, b, atol=1e-4)


def test_the_textbook_network_keeps_torchs_own_memory_format(tasks):
    """A network that asks for channels_last would make the textbook faster than a textbook is."""

    def formats(model, images):
        """Of every convolution's output: whether it is laid out as torch does by itself."""
        found, convolutions = [], (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
        hooks = [
            module.register_forward_hook(
                lambda module, inputs, output: found.append(output.is_contiguous())
            )
            for module in model.modules()
            if isinstance(module, convolutions)
        ]
        model.eval()(images)
        for hook in hooks:
            hook.remove()
        return found

    for task in tasks:
        images = torch.rand(2, 1, *task.data.train.images.shape[-2:])
        textbook = formats(task.textbook_model(), images)
        assert len(textbook) > 2 and all(textbook), task.name
    assert not any(formats(UNET.build(tasks[2].data, 0)[1], images))  # so the test can tell


def test_the_textbook_pictures_move_as_the_configuration_says(colors):
    still = bench.ColorOneByOne(colors, replace(UNET, mirror=False, shift=0))
    assert all(torch.equal(still[i][1], colors.train.colors[i].long()) for i in range(len(still)))
    grey, found = colors.train.grey.float().div(255), colors.train.colors.long()
    shifted = bench.ColorOneByOne(colors, replace(UNET, mirror=False, shift=4))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        moved = [shifted[index] for index in range(len(shifted))]
    padded = torch.nn.functional.pad(
        torch.cat([grey, found[:, None].float()], 1), (4,) * 4, mode="reflect"
    )
    for (shown, wanted), whole in zip(moved, padded, strict=True):
        windows = (
            whole.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
        )  # (81, 2, 32, 32)
        same = (windows[:, 1] == wanted).flatten(1).all(1)
        assert ((windows[same, 0] - shown[0]).abs() <= 0.5 / 255 + 1e-6).flatten(1).all(1).any()
    assert (
        sum(not torch.equal(wanted, there) for (_, wanted), there in zip(moved, found, strict=True))
        > 1
    )


def test_the_textbook_pictures_are_the_same_images_half_of_them_mirrored(colors):
    pictures = bench.ColorOneByOne(colors, replace(UNET, shift=0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mirrored = 0
        for index in range(len(pictures)):
            grey, found = pictures[index]
            truth, wanted = (
                colors.train.inputs(slice(index, index + 1))[0],
                colors.train.colors[index].long(),
            )
            if not torch.equal(found, wanted):
                truth, wanted, mirrored = truth.flip(-1), wanted.flip(-1), mirrored + 1
            assert torch.equal(found, wanted)
            assert (grey - truth).abs().max() <= 0.5 / 255 + 1e-6  # ours is rounded to whole levels
    assert 0 < mirrored < len(pictures)


def test_every_network_is_measured_in_one_table(tasks, monkeypatch):
    monkeypatch.setattr(bench, "tasks", lambda: [replace(tasks[2], config=UNET)])
    monkeypatch.setattr(bench.engines, "work", lambda task, items, shared, workers: [7.0] * workers)
    table = bench.bench(rounds=1)
    assert list(table.index.get_level_values("network").unique()) == ["unet"]
    assert (table["images a second"] > 0).all() and table["ratio to (a)"].iloc[0] == 1


def test_work_is_counted_for_every_kind_of_output(tasks):
    side = {"config 1": 28, "cnn": 32, "unet": 32}
    flops = {
        task.name: bench.training_flops(
            task.textbook_model(), (1, side[task.name], side[task.name])
        )
        for task in tasks
    }
    # the first block of the report's CNN alone: forward and weights' gradient, 2 FLOP a MAC
    assert flops["cnn"] > 2 * 2 * 32 * 25 * 32 * 32 and min(flops.values()) > 0


def test_it_runs_as_a_script_and_refuses_no_rounds():
    done = subprocess.run(
        [sys.executable, paths.ROOT / "benchmarks/training.py", "--rounds", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        done.returncode == 2
        and "found 0, expected at least 1" in done.stderr
        and "Traceback" not in done.stderr
    )
