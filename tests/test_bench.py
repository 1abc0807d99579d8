"""The speed comparison: both arms train the same network on the same images."""

import subprocess
import sys

import pytest
import torch

from benchmarks import training as bench
from smai_lib.colorization.studies import REPORT_CNN, UNET
from smai_lib.core import paths
from smai_lib.multitask.studies import TEN_CONFIGS


@pytest.fixture(scope="module")
def colors(made_up_colors):
    return made_up_colors((8, 2, 2))


@pytest.fixture(scope="module")
def cases(colors, tiny):
    config = TEN_CONFIGS["config 1"]
    color = (colors, bench.SingleColorImages, bench.color_loss)
    return [
        bench.Case("config 1", config, tiny, bench.SingleGarments, bench.garment_loss),
        bench.Case("cnn", REPORT_CNN, *color),
        bench.Case("unet", UNET.replace(batch_size=2), *color),
    ]


def test_the_textbook_network_is_the_same_network(cases):
    for case in cases:
        task, ours = case.config.build(case.data, 0)
        inputs = task.inputs(case.data.train, slice(0, 4))
        outputs = []
        for model in (ours, bench.textbook_model(case)):
            with torch.random.fork_rng():
                torch.manual_seed(0)  # both drop the same units
                output = model.train()(inputs)
            outputs.append(output if isinstance(output, tuple) else (output,))
        for expected, found in zip(*outputs, strict=True):
            assert (expected is found is None) or torch.allclose(expected, found, atol=1e-4)


def test_the_textbook_network_keeps_torchs_own_memory_format(cases):
    """A network in channels last would make the textbook faster than a textbook is."""

    def formats(model):
        found = []
        for module in model.modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
                module.register_forward_hook(lambda _, __, out: found.append(out.is_contiguous()))
        model.eval()(torch.rand(2, 1, *case.data.train.images.shape[-2:]))
        return found

    for case in cases:
        assert all(formats(bench.textbook_model(case))), case.name
    assert not any(formats(case.config.build(case.data, 0)[1]))


def test_textbook_images_are_augmented_as_the_config_says(colors):
    def images(**keys):
        single = bench.SingleColorImages(colors, UNET.replace(**keys))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return [single[index] for index in range(len(single))]

    colors_of = colors.train.colors.long()
    greys = colors.train.inputs(slice(None))
    still = images(mirror=False, shift=0)
    assert all(torch.equal(still[i][1], colors_of[i]) for i in range(len(still)))
    mirrored = 0
    for index, (grey, found) in enumerate(images(mirror=True, shift=0)):
        expected, truth = colors_of[index], greys[index]
        if not torch.equal(found, expected):
            expected, truth = expected.flip(-1), truth.flip(-1)
            mirrored += 1
        assert torch.equal(found, expected)
        assert (grey - truth).abs().max() <= 0.5 / 255 + 1e-6  # ours is rounded to whole levels
    assert 0 < mirrored < len(still)
    padded = torch.nn.functional.pad(colors_of[:, None].float(), (4,) * 4, mode="reflect")
    windows = padded.unfold(2, 32, 1).unfold(3, 32, 1).flatten(0, 1)  # (8, 9, 9, 32, 32)
    shifted = images(mirror=False, shift=4)
    for (_, found), own in zip(shifted, windows, strict=True):
        assert (own == found).flatten(2).all(2).any()
    assert sum(not torch.equal(shifted[i][1], colors_of[i]) for i in range(len(shifted))) > 1


def test_every_arm_has_a_speed_a_ratio_and_the_share_of_its_products(cases, monkeypatch, capsys):
    monkeypatch.setattr(bench, "run_processes", lambda case, count: 7.0)
    table = bench.compare(cases[2], rounds=1)
    assert [name[:3] for name in table.index] == ["(a)", "(b)", "(c)"]
    assert (table["images a second"] > 0).all() and table["ratio to (a)"].iloc[0] == 1
    shares = table["convolution and matrix product"]
    assert shares.between(0.01, 1).all()
    assert (
        bench.product_share(lambda *_: 100 * bench.run_ours(*_), cases[2], 1) < shares.iloc[2] / 10
    )
    assert bench.processor() in capsys.readouterr().out


@pytest.mark.slow
def test_processes_start_together_and_all_are_measured(cases):
    assert bench.run_processes(cases[2], 2) > 0


def test_work_is_counted_for_every_kind_of_output(cases):
    flops = {case.name: bench.training_flops(case) for case in cases}
    # the first block of the report's CNN alone: forward and weights' gradient, 2 FLOP a MAC
    assert flops["cnn"] > 2 * 2 * 32 * 25 * 32 * 32
    assert flops["config 1"] > 0 and flops["unet"] > 0


def test_it_refuses_no_rounds():
    script = [sys.executable, paths.ROOT / "benchmarks/training.py", "--rounds", "0"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "found 0, expected at least 1" in done.stderr
