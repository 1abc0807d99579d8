"""The command line: what it does, and how it refuses."""

import io
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from smai_lib import cli, studies
from smai_lib.core import paths
from smai_lib.core.errors import RunError


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
    pixels = np.linspace(0, 255, 90 * 120 * 3).astype(np.uint8).reshape(90, 120, 3)
    Image.fromarray(pixels).save(folder / "mine.png")
    return folder / "mine.png"


@pytest.mark.parametrize(
    "command, message",
    [
        ("bogus", 'Unknown command "bogus"'),
        ("run q9", 'Invalid value "q9" for NAMES. Choose from: "q1_published"'),
        ("run --seed abc", "Invalid value for --seed: found 'abc', expected a whole number"),
        ("run --seed 1.5", "Invalid value for --seed: found '1.5', expected a whole number"),
        ("run --workers -1", 'Invalid value "-1" for --workers. Must be >= 0'),
        ("run --workers 4096", "--oversubscribe allows more"),
        ("run --gpus 1 --address auto", "--address, --gpus: only for --engine ray"),
        ("run --cpus 1 --engine serial", "--cpus: only for --engine ray"),
        ("run --device tpu", 'Invalid value "tpu" for --device'),
        ("report --seed 5", "--seed needs --profile"),
        (
            "report --profile quick --seed 5000000000",
            '"5000000000" for --seed. Must be < 4294967296',
        ),
        ("report --profile quick --check", "--check is about the recorded report"),
        ("notebooks q1_multitask q9", "notebook: found 'q9', expected one of q1_multitask"),
        ("train q1 --epochs 0", "config key 'epochs': found 0, expected greater than"),
        ("train q1 --epochs 1.5", "Invalid value for --epochs: found '1.5'"),
        ("train q1 --lambda3 1", "Unknown option: --lambda3"),
        ("train q2 --mirror --momentum x", 'Invalid value for --momentum: unable to convert "x"'),
        ("color no_such_file.png", "no_such_file.png"),
        (f"color {__file__}", "cannot be used: cannot identify image file"),
        ("color x.png --vividness 2", "vividness: found 2.0, expected 0 to 1"),
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
    assert code == 2 and err == [
        "smai: WANDB_MODE: found 'bogus', expected one of offline, online, disabled, dryrun, run, "
        "shared"
    ]


@pytest.mark.parametrize(
    "folder, suffix, command",
    [
        ("WEIGHTS", "q2_models_best.safetensors", "color {picture}"),
        ("RESULTS", "q1_lambda_history.csv", "train q1 --epochs 1"),
    ],
)
def test_a_damaged_recorded_file_is_one_line_before_any_work(
    smai, monkeypatch, tmp_path, picture, folder, suffix, command
):
    copy = shutil.copytree(getattr(paths, folder), tmp_path / "recorded")
    monkeypatch.setattr(paths, folder, copy)
    file = copy / suffix
    file.write_bytes(file.read_bytes()[:-100])
    code, _, err = smai(*[part.format(picture=picture) for part in command.split()])
    assert code == 2 and len(err) == 1 and f"{suffix} is truncated or altered" in err[0]
    assert not paths.runs_dir().exists()


@pytest.mark.parametrize(
    "variable, command", [("SMAI_FASHION_MNIST", "fetch"), ("SMAI_COLOR_IMAGES", "train q2")]
)
def test_a_wrong_data_folder_is_one_line(smai, monkeypatch, tmp_path, variable, command):
    monkeypatch.setenv(variable, str(tmp_path))
    code, _, err = smai(*command.split())
    assert code == 2 and len(err) == 1 and str(tmp_path) in err[0]


@pytest.mark.parametrize("command", ["run q1_lambda", "report"])
def test_the_full_profile_refuses_bundled_data(smai, command):
    code, _, err = smai(*command.split(), "--profile", "full")
    assert code == 2 and "the profile 'full' needs the study's own data" in err[-1]


def no_room():
    error = RunError("no room")
    error.add_note("Traceback\n  of a worker")
    error.add_note("in run 'a'; finished runs are kept")
    return error


@pytest.mark.parametrize(
    "error, line",
    [
        (no_room(), "smai: no room; in run 'a'; finished runs are kept"),
        (
            OSError(28, "No space left on device", "f"),
            "smai: [Errno 28] No space left on device: 'f'",
        ),
    ],
)
def test_an_error_of_a_run_or_a_path_is_one_line_with_what_helps(smai, monkeypatch, error, line):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(studies, "run_studies", fail)
    assert smai("run")[::2] == (2, [line])


def test_an_interrupt_is_one_line_and_exit_code_130(smai, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(studies, "run_studies", interrupt)
    assert smai("run")[::2] == (130, ["smai: interrupted; the same command continues"])


def test_an_unforeseen_error_keeps_its_traceback(smai, monkeypatch):
    monkeypatch.setattr(studies, "run_studies", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        smai("run")


def test_every_command_and_option_is_described():
    commands = [cli.app[name] for name in ("color", "run", "report", "notebooks", "test")]
    commands += [cli.app["train"][task] for task in ("q1", "q2")]
    for command in commands:
        arguments = command.assemble_argument_collection(parse_docstring=True)
        assert command.help and arguments
        assert [argument.name for argument in arguments if not argument.parameter.help] == []


@pytest.mark.parametrize("task", ["q1", "q2"])
def test_every_key_of_a_config_is_an_option_with_its_default(smai, monkeypatch, task):
    from smai_lib import colorization, multitask

    monkeypatch.setenv("COLUMNS", "300")
    code, out, _ = smai("train", task, "--help")
    text = " ".join(out)
    config = {"q1": multitask.Config, "q2": colorization.Config}[task]
    assert code == 0 and "[default: 0.0" in text
    for key in config.model_fields:
        assert f"--{key.replace('_', '-')} " in text


def test_help_answers_at_once_without_importing_torch():
    code = "import sys, smai_lib.cli; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_of_ones_own_is_recorded_and_looked_up_again(smai):
    command = "train q1 --lambda1 2 --lambda2 0.5 --epochs 1 --base_filters 4 --images 120"
    code, out, err = smai(*command.split(), "--mirror", "--seed", "3")
    (folder,) = (paths.runs_dir() / "own" / "multitask").iterdir()
    assert code == 0 and f"record: {folder}" in out
    assert "test_rmse" in out[-4] and "images 120" in out[-4]
    assert (folder / "among_recorded.png").is_file()
    stamp = (folder / "result.json").stat().st_mtime_ns
    assert smai(*command.split(), "--mirror", "--seed", "3")[:2] == (code, out)
    assert (folder / "result.json").stat().st_mtime_ns == stamp


def test_a_picture_in_a_folder_with_any_name_is_coloured(smai, picture, monkeypatch, capsys):
    monkeypatch.chdir(picture.parent)
    code, out, err = smai("color", picture, "--out", picture.parent / "new.png")
    assert (code, err) == (0, [])
    assert [line[-8:] for line in out] == ["/new.png", "ared.png"] and "caf\\udce9" in out[0]
    with Image.open("new.png") as image:
        assert image.size == (120, 90)


def test_names_are_printed_where_stdout_is_not_utf8(monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(cli, "app", lambda *_, **__: print("café \udce9"))
    cli.main([])
    stdout.flush()
    assert stdout.buffer.getvalue().split() == [b"caf\\xe9", b"\\udce9"]
