"""The command line: what it does, and how it refuses."""

import io
import os
import shutil
import subprocess
import sys
from unittest.mock import Mock

import matplotlib
import numpy as np
import pytest
from PIL import Image

from smai_lib import cli, colorization, multitask, studies
from smai_lib.core import paths
from smai_lib.core.errors import RunError
from tests.conftest import output_of


@pytest.fixture
def smai(capsys, monkeypatch):
    """Run a command in this process, on bundled data; return exit code, lines of stdout, stderr."""
    monkeypatch.setenv("SMAI_FASHION_MNIST", "sample")
    monkeypatch.setenv("SMAI_COLOR_IMAGES", "sample")

    def run(*arguments):
        capsys.readouterr()
        code = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def picture(tmp_path):
    """A picture of one's own, in a folder whose name is no UTF-8."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    Image.new("RGB", (120, 90), "teal").save(folder / "mine.png")
    return folder / "mine.png"


@pytest.mark.parametrize(
    "command, message",
    [
        ("bogus", 'Unknown command "bogus"'),
        ("run q9", 'Invalid value "q9" for NAMES. Choose from: "q1_published"'),
        ("run --seed 1.5", "Invalid value for --seed: found '1.5', expected a whole number"),
        ("run --workers -1", 'Invalid value "-1" for --workers. Must be >= 0'),
        ("run --workers 4096", "--oversubscribe allows more"),
        ("run --gpus 1 --address auto", "--address, --gpus: only for --engine ray"),
        ("report --seed 5", "--seed needs --profile"),
        ("run --seed 5000000000", '"5000000000" for --seed. Must be < 4294967296'),
        ("report --profile quick --check", "--check is about the recorded report"),
        ("notebooks q1_multitask q9", "notebook: found 'q9', expected one of q1_multitask"),
        ("train q1 --epochs 0", "config key 'epochs': found 0, expected greater than"),
        ("train q1 --epochs 1.5", "Invalid value for --epochs: found '1.5'"),
        ("color no_such_file.png", "no_such_file.png"),
        (f"color {__file__}", "cannot be used: cannot identify image file"),
    ],
)
def test_a_bad_argument_is_one_line_and_exit_code_2(smai, command, message):
    code, out, err = smai(*command.split())
    assert code == 2 and out == [] and len(err) == 1
    assert message in err[0]


@pytest.mark.parametrize("command", ["train q1", "run q1_lambda"])
def test_an_unknown_tracking_mode_is_refused_before_training(smai, monkeypatch, command):
    monkeypatch.setenv("WANDB_MODE", "bogus")
    code, _, err = smai(*command.split())
    assert code == 2 and len(err) == 1
    assert "WANDB_MODE: found 'bogus', expected one of offline, online, disabled" in err[0]


@pytest.mark.parametrize(
    "folder, name, command",
    [
        ("WEIGHTS", "q2_models_best.safetensors", "color {picture}"),
        ("RESULTS", "q1_lambda_history.csv", "train q1 --epochs 1"),
    ],
)
def test_a_damaged_recorded_file_is_one_line_before_any_work(
    smai, monkeypatch, tmp_path, picture, folder, name, command
):
    copy = shutil.copytree(getattr(paths, folder), tmp_path / "recorded")
    monkeypatch.setattr(paths, folder, copy)
    (copy / name).write_bytes(b"")
    code, _, err = smai(*[part.format(picture=picture) for part in command.split()])
    assert code == 2 and len(err) == 1 and f"{name} is truncated or altered" in err[0]
    assert not paths.runs_dir().exists()


@pytest.fixture
def smai_run(smai, monkeypatch):
    """Run `smai run` with an error in place of the studies; return exit code and stderr."""

    def run(error):
        monkeypatch.setattr(studies, "run_studies", Mock(side_effect=error))
        code, _, err = smai("run")
        return code, err

    return run


def test_an_error_of_a_run_or_a_path_is_one_line_with_what_helps(smai_run):
    error = RunError("no room")
    error.add_note("Traceback\n  of a worker")
    error.add_note("in run 'a'; finished runs are kept")
    assert smai_run(error) == (2, ["smai: no room; in run 'a'; finished runs are kept"])
    code, err = smai_run(OSError(28, "No space left on device", "f"))
    assert (code, err) == (2, ["smai: [Errno 28] No space left on device: 'f'"])


def test_an_interrupt_is_one_line_and_exit_code_130(smai_run):
    line = "smai: interrupted; the same command continues"
    assert smai_run(KeyboardInterrupt) == (130, [line])


def test_a_reader_that_has_read_enough_ends_a_command_in_silence():
    """As in `smai … | head`."""
    code = "from smai_lib import cli; cli.app = lambda *_, **__: print('a line'); cli.main([])"
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": buffered}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize("stream, command", [("stdout", "--version"), ("stderr", "color no.png")])
def test_a_closed_stream_changes_no_exit_code(smai, monkeypatch, stream, command):
    """As under `smai … >&-`, where Python has None in place of the stream."""
    code = smai(*command.split())[0]
    monkeypatch.setattr(sys, stream, None)
    assert smai(*command.split()) == (code, [], [])


def test_an_unforeseen_error_keeps_its_traceback(smai_run):
    with pytest.raises(ZeroDivisionError):
        smai_run(ZeroDivisionError)


def test_every_command_and_option_is_described():
    commands = [cli.app[name] for name in ("color", "run", "report", "notebooks", "test")]
    commands += [cli.app["train"][task] for task in ("q1", "q2")]
    for command in commands:
        arguments = command.assemble_argument_collection(parse_docstring=True)
        assert command.help and arguments
        assert [argument.name for argument in arguments if not argument.parameter.help] == []


@pytest.mark.parametrize("task, config", [("q1", multitask.Config), ("q2", colorization.Config)])
def test_every_key_of_a_config_is_an_option(task, config):
    arguments = cli.app["train"][task].assemble_argument_collection()
    options = {argument.name for argument in arguments}
    assert options >= {f"--{key.replace('_', '-')}" for key in config.model_fields}


def test_help_answers_at_once_without_importing_torch():
    code = "import sys, smai_lib.cli; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    output_of(sys.executable, "-c", code)


def test_a_run_of_ones_own_is_recorded_and_looked_up_again(smai):
    keys = "--lambda1 2 --lambda2 0.5 --epochs 1 --base_filters 4 --mirror"
    command = ["train", "q1", *keys.split(), "--images", "120", "--seed", "3"]
    code, out, _ = smai(*command)
    (folder,) = (paths.runs_dir() / "own" / "multitask").iterdir()
    assert code == 0 and f"record: {folder}" in out
    assert (folder / "among_recorded.png").is_file()
    stamp = (folder / "result.json").stat().st_mtime_ns
    assert smai(*command)[:2] == (code, out)
    assert (folder / "result.json").stat().st_mtime_ns == stamp


def test_a_picture_in_a_folder_with_any_name_is_coloured(smai, picture, monkeypatch):
    monkeypatch.chdir(picture.parent)
    code, out, err = smai("color", picture, "--out", picture.parent / "new.png")
    assert (code, err) == (0, [])
    assert [line[-8:] for line in out] == ["/new.png", "ared.png"] and "caf\\udce9" in out[0]
    with Image.open("new.png") as image:
        assert image.size == (120, 90)


@pytest.mark.parametrize(
    "command, name",
    [
        ("color {picture} --out new.png", "new_compared.png"),
        ("train q1 --images 60 --epochs 1 --base-filters 4", "among_recorded.png"),
    ],
)
def test_a_users_matplotlibrc_changes_no_figure(
    smai, monkeypatch, tmp_path, picture, command, name
):
    monkeypatch.chdir(tmp_path)
    odd = {"text.usetex": True, "savefig.facecolor": "red", "image.origin": "lower"}
    figures = []
    for settings in ({}, odd):
        with matplotlib.rc_context(settings):
            code, _, err = smai(*command.format(picture=picture).split())
        assert code == 0, err
        (file,) = tmp_path.rglob(name)
        with Image.open(file) as image:
            figures.append(np.array(image))
    assert np.array_equal(*figures)


def test_a_current_folder_that_was_deleted_is_not_needed(tmp_path):
    code = "import os; os.rmdir(os.getcwd()); from smai_lib.core.paths import ROOT; print(ROOT)"
    folder = tmp_path / "gone"
    folder.mkdir()
    environment = os.environ | {"PYTHONPATH": str(paths.PACKAGE.parent)}
    output = output_of(sys.executable, "-P", "-c", code, cwd=folder, env=environment)
    assert output.strip() == str(paths.ROOT)


def test_names_are_printed_where_stdout_is_not_utf8(monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(cli, "app", lambda *_, **__: print("café \udce9"))
    cli.main([])
    stdout.flush()
    assert stdout.buffer.getvalue().split() == [b"caf\\xe9", b"\\udce9"]
