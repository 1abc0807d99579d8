"""The speed comparison: both arms train the same network on the same images."""

import shutil

import pandas as pd
import pytest
import torch

from benchmarks import training as bench
from smai_lib.colorization.studies import REPORT_CNN, UNET
from smai_lib.core import paths
from smai_lib.core.study import read_table
from smai_lib.multitask.studies import TEN_CONFIGS
from tests.conftest import every_move


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


@pytest.mark.parametrize(("mirror", "shift"), [(False, 0), (True, 0), (False, 4)])
def test_textbook_images_are_augmented_as_the_config_says(colors, mirror, shift):
    single = bench.SingleColorImages(colors, UNET.replace(mirror=mirror, shift=shift))
    ours = [moved for _, moved in every_move(colors.train, mirror=mirror, shift=shift)]
    chosen = set()
    torch.manual_seed(0)
    for number, (grey, found) in enumerate(single):
        [move] = [move for move, split in enumerate(ours) if split.colors[number].equal(found)]
        chosen.add(move)
        assert (255 * grey - ours[move].grey[number]).abs().max() < 0.501  # ours is rounded
    assert (len(chosen) > 1) == (mirror or shift > 0)


def test_every_arm_has_a_speed_a_ratio_and_the_share_of_its_products(cases, monkeypatch):
    monkeypatch.setattr(bench, "run_processes", lambda case, count: 7.0)
    monkeypatch.setattr(bench, "product_share", lambda run, case, threads: 0.4)
    table = bench.compare(cases[2], rounds=1)
    assert [name[:3] for name in table.index] == ["(a)", "(b)", "(c)"]
    assert (table["images a second"] > 0).all() and table["ratio to (a)"].iloc[0] == 1
    assert (table["share of its matmul peak"] > 0).all()


def test_products_take_a_share_of_the_time_of_an_arm(cases):
    assert 0.01 < bench.product_share(bench.run_ours, cases[2], 1) < 1


@pytest.mark.slow
def test_processes_start_together_and_all_are_measured(cases):
    assert bench.run_processes(cases[2], 2) > 0


def test_work_is_counted_for_every_kind_of_output(cases):
    config_1, cnn, unet = map(bench.training_flops, cases)
    # the first block of the report's CNN alone: forward and weights' gradient, 2 FLOP a MAC
    assert cnn > 2 * 2 * 32 * 25 * 32 * 32
    assert config_1 > 0 and unet > 0


def test_it_refuses_no_rounds(capsys):
    with pytest.raises(SystemExit, match="2"):
        bench.main(["--rounds", "0"])
    assert "found 0, expected at least 1" in capsys.readouterr().err


def test_recording_replaces_the_rows_of_this_processor_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", shutil.copytree(paths.RESULTS, tmp_path / "results"))
    before = read_table("speed.csv")
    row = {"network": "config 1", "arm": "(a)", "cpu": "abacus", "rounds": 1}
    for speed in (1.0, 2.0):
        bench.record(pd.DataFrame([row | {"images a second": speed}]))
    after = read_table("speed.csv")
    pd.testing.assert_frame_equal(after[: len(before)], before, check_dtype=False)
    assert after.loc[after["cpu"] == "abacus", "images a second"].tolist() == [2.0]
