import subprocess
import sys

import pytest

from smai_lib import __main__ as command_line


@pytest.mark.parametrize("arguments, mode, message", [
    (["run", "--workers", "-1"], "offline", "found -1, expected at least 0"),
    (["run", "--seed", "abc"], "offline", "invalid number value: 'abc'"),
    (["run", "q9"], "offline", "unknown q9; there are q1_best, "),
    (["notebooks", "q1_multitask", "q9_none"], "offline", "unknown q9_none; there are q1_feature_maps, "),
    (["bench", "--rounds", "0"], "offline", "found 0, expected at least 1"),
    (["run", "q1_configs"], "bogus", "WANDB_MODE: found 'bogus', expected one of offline, online, disabled"),
    ([], "offline", "required: command"),
])
def test_bad_arguments_end_in_one_line_and_exit_code_2(monkeypatch, capsys, arguments, mode, message):
    monkeypatch.setattr(sys, "argv", ["smai_lib", *arguments])
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_it_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "smai_lib", "run", "--workers", "-1"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
