import argparse
import re
import subprocess
import sys

import pytest

from smai_lib import __main__ as command_line
from smai_lib import own, studies
from smai_lib.core import runs


@pytest.mark.parametrize(
    "arguments, mode, message",
    [
        (["run", "--workers", "-1"], "offline", "found -1, expected at least 0"),
        (["run", "--workers", "4096"], "offline", "--oversubscribe allows more"),
        (
            ["train", "q1", "--epochs", "0"],
            "disabled",
            "config key 'epochs': found 0, expected at least 1",
        ),
        (["train", "q2", "--mirror", "--momentum", "x"], "disabled", "invalid float value: 'x'"),
        (["color", "no_such_file.png"], "disabled", "no_such_file.png cannot be read"),
        (["color", __file__], "disabled", "cannot be read as PNG, JPEG"),
        (["run", "--seed", "abc"], "offline", "invalid number value: 'abc'"),
        (["run", "q9"], "offline", "unknown q9; there are q1_best, "),
        (
            ["notebooks", "q1_multitask", "q9_none"],
            "offline",
            "unknown q9_none; there are q1_best, ",
        ),
        (
            ["run", "q1_configs"],
            "bogus",
            "WANDB_MODE: found 'bogus', expected one of offline, online, disabled",
        ),
        ([], "offline", "required: command"),
    ],
)
def test_bad_arguments_end_in_one_line_and_exit_code_2(
    monkeypatch, capsys, arguments, mode, message
):
    monkeypatch.setattr(sys, "argv", ["smai_lib", *arguments])
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("command", [["run", "q1_configs"], ["report"]])
def test_a_full_study_on_stand_in_data_ends_in_one_line(monkeypatch, capsys, command):
    monkeypatch.setattr(sys, "argv", ["smai_lib", *command, "--profile", "full"])
    monkeypatch.setenv("SMAI_FASHION_MNIST", "sample")
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    assert (
        "the full profile reports on the study's own data, and only"
        in capsys.readouterr().err.splitlines()[-1]
    )


def test_a_failing_run_ends_with_its_way_out(monkeypatch, capsys):
    def fail(*_):
        error = runs.RunError("no room")
        error.add_note("finished runs are kept")
        raise error

    monkeypatch.setattr(sys, "argv", ["smai_lib", "run", "q1_configs"])
    monkeypatch.setitem(studies.STUDIES, "q1_configs", fail)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2 and capsys.readouterr().err.endswith(
        "error: no room\nfinished runs are kept\n"
    )


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "smai_lib", "run", "--workers", "-1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", [["train", "q1"], ["train", "q2"], ["color"], ["run"], ["report"], ["notebooks"]]
)
def test_every_option_is_described(monkeypatch, capsys, command):
    monkeypatch.setattr(sys, "argv", ["smai_lib", *command, "--help"])
    monkeypatch.setenv("COLUMNS", "300")
    described = []
    real = argparse.ArgumentParser.format_help
    monkeypatch.setattr(
        argparse.ArgumentParser,
        "format_help",
        lambda parser: described.extend(parser._actions) or real(parser),
    )
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 0 and len(described) > 1
    assert [
        action.dest for action in described if not re.match(r"[a-z0-9\"]", action.help or "")
    ] == []
    if command[0] == "train":
        base = own.BASES[command[1]]
        assert set(base.to_dict()) <= {action.dest for action in described}
        assert f"(default: {base.learning_rate})" in capsys.readouterr().out
