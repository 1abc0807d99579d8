import itertools
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from smai_lib.colorization import search as search_module
from smai_lib.colorization.config import ColorizationConfig
from smai_lib.colorization.search import DONE, SEARCHED, UNPRUNED_TRIALS, ColorSearch, Space
from smai_lib.core.errors import NonFiniteLossError, RunError
from smai_lib.core.files import exclusive
from smai_lib.core.training import Fitted, fit
from tests.conftest import make_colors

BASE = ColorizationConfig(num_colors=4, num_filters=2, kernel_size=3, epochs=2, batch_size=10)
SPACE = Space(
    base=BASE,
    learning_rate=(1e-3, 1e-1),
    batch_size=(5, 10),
    num_filters=(2, 3),
    kernel_size=(1, 3),
)


def make_search(root, trials=4, seed=0, **spaces):
    """Return a search on a few small images."""
    data = make_colors((20, 5, 5), 4, side=16)
    spaces = spaces or {"cnn": SPACE}
    return ColorSearch("s", "quick", lambda: data, spaces, trials, seed, root)


def points(search):
    return search.results[[*SEARCHED, "val_nll"]].to_dict("records")


@pytest.fixture
def finished(tmp_path):
    """A search of four trials, and its database."""
    search = make_search(tmp_path)
    search.run(workers=1)
    return search, tmp_path / "search.db"


def test_trials_are_trained_like_any_run_and_the_first_has_the_base_config(finished):
    search, _ = finished
    results = search.results
    base = BASE.to_dict()
    assert results.loc[0, list(SEARCHED)].to_dict() == {key: base[key] for key in SEARCHED}
    assert results["learning_rate"].between(1e-3, 1e-1).all()
    assert results["learning_rate"].nunique() == 4
    row = results.iloc[2]
    keys = {key: getattr(row[key], "item", lambda: row["optimizer"])() for key in SEARCHED}
    config = BASE.replace(**keys)
    task, model = config.build(search.data, 0)
    epochs = fit(model, task, search.data.train, search.data.validation, config, seed=0).rows
    history = search.history.query("trial == 2")["val_nll"]
    assert history.tolist() == [epoch["val_nll"] for epoch in epochs]
    assert (row["val_nll"], row["val_accuracy"]) == (
        epochs[-1]["val_nll"],
        epochs[-1]["val_accuracy"],
    )


def test_a_finished_search_is_looked_up_and_more_trials_are_added(finished, tmp_path):
    search, database = finished
    before, content = points(search), database.read_bytes()
    search.run(workers=1)
    assert database.read_bytes() == content
    more = make_search(tmp_path, trials=6)
    more.run(workers=1)
    assert points(more)[:4] == before and len(more.results) == 6


def test_other_data_or_another_seed_are_another_search_in_the_same_database(finished, tmp_path):
    search, _ = finished
    other, reseeded = make_search(tmp_path, trials=1), make_search(tmp_path, trials=2, seed=1)
    other.data = replace(search.data, fingerprint="other")
    for further in (other, reseeded):
        further.run(workers=1)
    assert [len(found.results) for found in (search, other, reseeded)] == [4, 1, 2]
    assert points(reseeded)[1] != points(search)[1]


@pytest.mark.slow
def test_two_workers_share_the_trials_of_both_searches(tmp_path):
    unet = replace(SPACE, base=BASE.replace(model="unet"))
    search = make_search(tmp_path, 3, cnn=SPACE, unet=unet)
    search.run(workers=2)
    assert search.results["model"].value_counts().to_dict() == {"cnn": 3, "unet": 3}


def test_a_search_stopped_again_and_again_tries_the_points_of_one_that_was_not(
    tmp_path, monkeypatch
):
    trials = 11  # more than the sampler's random ones
    whole, stopped = (make_search(tmp_path / name, trials) for name in ("whole", "stopped"))
    whole.run(workers=1)
    calls = itertools.count()

    def interrupted(*arguments, **keys):
        if next(calls) % 3 == 0:
            raise KeyboardInterrupt
        return fit(*arguments, **keys)

    monkeypatch.setattr(search_module, "fit", interrupted)
    while len(stopped.optuna_study("cnn").get_trials(states=DONE)) < trials:
        with suppress(KeyboardInterrupt):
            stopped.run(workers=1)
    assert points(stopped) == points(whole)
    assert stopped.results["learning_rate"].nunique() == trials


@pytest.mark.slow
def test_a_killed_search_tries_the_cut_off_trial_again(tmp_path):
    code = (
        "import pathlib, tests.colorization.test_search as t;"
        f"t.make_search(pathlib.Path({str(tmp_path)!r}), 10**6).run(workers=1)"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root)
    deadline = time.time() + 300
    search = make_search(tmp_path, 10**6)
    done = 0
    while done < 2:
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.1)
        if (tmp_path / ".lock").exists():  # the other process has made the folder
            done = len(search.optuna_study("cnn").get_trials(states=DONE))
    process.kill()
    process.wait()
    done = len(search.optuna_study("cnn").get_trials(states=DONE))
    resumed, whole = make_search(tmp_path, done + 2), make_search(tmp_path / "whole", done + 2)
    for each in (resumed, whole):
        each.run(workers=1)
    assert points(resumed) == points(whole)


@pytest.fixture
def fake_losses(tmp_path, monkeypatch):
    """A function that runs a search whose trials have given losses by epoch, None: infinite."""

    def run(losses):
        search = make_search(tmp_path, len(losses))
        trials = iter(losses)

        def fake_fit(*_, on_epoch, **__):
            for epoch, loss in enumerate(next(trials), 1):
                if loss is None:
                    raise NonFiniteLossError("made up")
                row = {"epoch": epoch, "val_nll": loss, "val_accuracy": 0.5}
                on_epoch(row)
            return Fitted([row], 1.0, {})

        monkeypatch.setattr(search_module, "fit", fake_fit)
        search.run(workers=1)
        return search.results

    return run


def test_a_trial_above_the_median_is_pruned_between_epochs(fake_losses):
    good = [[1.0 + trial / 100] * 3 for trial in range(UNPRUNED_TRIALS)]
    results = fake_losses([*good, [9.0] * 3])
    assert results["state"].tolist() == ["complete"] * UNPRUNED_TRIALS + ["pruned"]
    assert results.iloc[-1][["epochs", "val_nll"]].tolist() == [2, 9.0]


def test_a_loss_that_is_not_finite_ends_the_trial_not_the_search(fake_losses):
    assert fake_losses([[1.0], [1.0, None], [1.0]])["state"].tolist() == [
        "complete",
        "pruned",
        "complete",
    ]


@pytest.mark.parametrize("damage", ["no database", "cut off", "overwritten"])
def test_a_damaged_database_is_named_and_left_alone(finished, tmp_path, damage):
    _, database = finished
    content = database.read_bytes()
    middle = len(content) // 2
    damaged = {
        "no database": b"{broken\n" * 999,
        "cut off": content[:middle],
        "overwritten": content[:100] + bytes(middle) + content[100 + middle :],
    }[damage]
    database.write_bytes(damaged)
    with pytest.raises(RunError, match=r"search\.db cannot be used.*move it away"):
        make_search(tmp_path, trials=5).run(workers=1)
    assert database.read_bytes() == damaged


@pytest.mark.parametrize("url", ["mysql+nodriver://host/db", "nodatabase://host/db", "no-url"])
def test_a_database_without_driver_is_refused_with_the_fix(tmp_path, monkeypatch, url):
    monkeypatch.setenv("SMAI_OPTUNA", url)
    with pytest.raises(RunError, match=f"{re.escape(url)} cannot be used.*install its driver"):
        make_search(tmp_path).run(workers=1)


def test_a_full_disk_is_named_and_the_search_continues(tmp_path):
    """A limit on a file's size fails like a full disk."""
    resource = pytest.importorskip("resource")
    whole, full = (make_search(tmp_path / name) for name in ("whole", "full"))
    whole.run(workers=1)
    full.optuna_study("cnn")
    size = (full.root / "search.db").stat().st_size // 2
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(RunError, match=r"search\.db cannot be used.*Make room"):
            full.run(workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    full.run(workers=1)
    assert points(full) == points(whole)


def test_a_search_that_another_process_runs_is_refused(tmp_path):
    search = make_search(tmp_path)
    with exclusive(tmp_path), pytest.raises(RunError, match="in use"):
        search.run(workers=1)


def test_results_of_a_search_that_has_not_run_are_refused(tmp_path):
    with pytest.raises(RunError, match="no finished trial.*run it first"):
        make_search(tmp_path / "new").table("history")


def test_complete_trials_are_a_study_of_optunas():
    numbers = range(8)
    table = pd.DataFrame(
        {
            "state": "complete",
            "learning_rate": [0.001 * (1 + number) for number in numbers],
            "batch_size": [(5, 10)[number % 2] for number in numbers],
            "num_filters": [(2, 3)[number // 2 % 2] for number in numbers],
            "kernel_size": [(1, 3)[number // 4 % 2] for number in numbers],
            "optimizer": "AdamW",
            "val_nll": [1.0 + number for number in numbers],
        }
    )
    table.loc[0, "state"] = "pruned"
    study = SPACE.to_optuna(table)
    assert len(study.trials) == 7 and study.best_value == 2.0
    assert study.trials[4].params == table.loc[5, list(SEARCHED)].to_dict()
