import sys

import numpy as np
import pytest
import torch
from PIL import Image

from smai_lib import __main__ as command_line
from smai_lib import own
from smai_lib.core.config import ConfigError


@pytest.fixture
def few(tiny, monkeypatch):
    monkeypatch.setitem(own.DATA, "q1", lambda config: tiny)


def test_a_run_of_ones_own_is_recorded_drawn_and_told_in_three_lines(
    few, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "smai_lib",
            "train",
            "q1",
            "--lambda1",
            "2",
            "--lambda2",
            "0.5",
            "--epochs",
            "1",
            "--base_filters",
            "4",
            "--images",
            "120",
            "--mirror",
            "--seed",
            "3",
        ],
    )
    command_line.main()
    found, standing, record = capsys.readouterr().out.splitlines()
    (folder,) = (tmp_path / "runs" / "own" / "q1_own").iterdir()
    assert record == f"record: {folder}" and "images 120" in found and "test_rmse" in found
    assert (folder / "among.png").is_file() and str(folder / "among.png") in standing
    spec = own.train(
        "q1", seed=3, n_images=120, lambda1=2.0, lambda2=0.5, epochs=1, base_filters=4, mirror=True
    )
    assert (
        spec.folder.path == folder
        and spec.name == "epochs 1, lambda1 2.0, base_filters 4, mirror True"
    )
    lines = own.among(spec)[0, 0].get_lines()
    assert len(lines) == 11  # five seeds of ratio 0.1, five of ratio 1, and the run
    assert lines[-1].get_ydata() == pytest.approx(spec.folder.history()["val_accuracy"])
    assert len(own.among(spec)[0, 0].get_legend().get_texts()) == 3


def test_a_recorded_configuration_is_placed_too(few):
    placed = own.summary(own.train("q1", n_images=120, lambda1=2.0, lambda2=2.0, epochs=1))[1]
    assert "It was trained on 120 images, the recorded runs on 54,000." in placed


def test_an_unknown_key_lists_the_known_ones(few):
    with pytest.raises(ConfigError, match="'lambda3'; the keys are .*lambda1"):
        own.train("q1", lambda3=1.0)


def test_a_picture_is_coloured_into_files_that_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.linspace(0, 255, 90 * 120 * 3).astype(np.uint8).reshape(90, 120, 3)
    Image.fromarray(pixels).save("mine.png")
    figure, file, compared = own.color("mine.png")
    assert str(file) == "mine_colored.png"
    with Image.open(file) as image:
        colored = torch.from_numpy(np.array(image)).float()
    assert colored.shape == (90, 120, 3)
    assert (colored.mean(2) - torch.from_numpy(pixels).float().mean(2)).abs().max() <= 1.5
    assert [axes.get_title() for axes in figure.axes] == ["original", "grey", "coloured"]
    with Image.open(compared) as image:
        assert compared.name == "mine_colored_compared.png" and image.width > 2000
