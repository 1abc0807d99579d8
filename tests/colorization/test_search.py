import json
import pathlib
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from smai_lib.colorization import search as color_search
from smai_lib.colorization.config import ColorizationConfig
from smai_lib.colorization.search import ColorSearch, SearchError
from smai_lib.colorization.space import SEARCHED, Space
from smai_lib.core import runs
from smai_lib.core.study import loader
from smai_lib.core.training import Fitted, NonFiniteLossError, fit

BASE = ColorizationConfig(num_colors=4, num_filters=2, kernel_size=3, epochs=2, batch_size=10)
SPLITS, NUM_COLORS, SIDE = (20, 5, 5), 4, 16


def search_in(root, data, **changes):
    space = Space(
        base=BASE,
        learning_rate=(1e-3, 1e-1),
        batch_size=(5, 10),
        num_filters=(2, 3),
        kernel_size=(1, 3),
    )
    settings = {
        "name": "s",
        "profile": "quick",
        "spaces": {"cnn": space},
        "trials": 4,
        "seed": 0,
        "load": loader("quick", lambda: data),
        "root": root,
    }
    return ColorSearch(**(settings | changes))


@pytest.fixture
def make_search(made_up_colors):
    data = made_up_colors(SPLITS, NUM_COLORS, side=SIDE)
    return lambda root, **changes: search_in(root, data, **changes)


def test_trials_are_what_fit_makes_of_their_config(make_search, tmp_path):
    search = make_search(tmp_path)
    search.run(workers=1)
    results, history = search.results(), search.history()
    assert len(results) == 4 and list(results["trial"]) == [0, 1, 2, 3]
    base = BASE.to_dict()
    assert results.loc[0, list(SEARCHED)].to_dict() == {key: base[key] for key in SEARCHED}
    assert (
        results["learning_rate"].between(1e-3, 1e-1).all()
        and results["learning_rate"].nunique() == 4
    )
    row = results.iloc[2]
    config = replace(
        search.spaces["cnn"].base,
        **{key: getattr(row[key], "item", lambda row=row: None)() or row[key] for key in SEARCHED},
    )
    objective, model = config.build(search.data, 0)
    epochs = fit(model, objective, search.data.train, search.data.validation, config, seed=0).rows
    assert history.loc[history["trial"] == 2, "val_nll"].tolist() == [x["val_nll"] for x in epochs]
    assert (row["val_nll"], row["val_accuracy"]) == (
        epochs[-1]["val_nll"],
        epochs[-1]["val_accuracy"],
    )


def test_a_seed_gives_the_same_trials_and_another_gives_others(make_search, tmp_path):
    found = []
    for number, seed in enumerate((0, 0, 1)):
        search = make_search(tmp_path / str(number), seed=seed)
        search.run(workers=1)
        found.append(search.results().drop(columns=["seconds", "seed"]))
    assert found[0].equals(found[1])
    assert not found[0]["learning_rate"].equals(found[2]["learning_rate"])


def test_a_finished_search_is_looked_up_and_more_trials_are_added(make_search, tmp_path):
    search = make_search(tmp_path)
    search.run(workers=1)
    before = search.journal.read_bytes()
    search.run(workers=1)
    assert len(search.results()) == 4 and search.journal.read_bytes().startswith(before)
    more = replace(search, trials=6)
    more.run(workers=1)
    assert more.results()[:4].equals(search.results()[:4]) and len(more.results()) == 6


def test_other_data_are_another_search_in_the_same_file(make_search, tmp_path):
    search = make_search(tmp_path, trials=1)
    search.run(workers=1)
    other = replace(search, load=lambda: replace(search.data, fingerprint="other"))
    other.run(workers=1)
    assert len(search.results()) == len(other.results()) == 1
    assert search.optuna_study("cnn").study_name != other.optuna_study("cnn").study_name


def test_two_workers_share_the_trials_of_both_searches(make_search, tmp_path):
    base = make_search(tmp_path)
    unet = replace(
        base.spaces["cnn"], base=ColorizationConfig.from_dict(BASE.to_dict() | {"model": "unet"})
    )
    search = replace(base, spaces={"cnn": base.spaces["cnn"], "unet": unet}, trials=3)
    search.run(workers=2)
    counts = search.results()["model"].value_counts()
    assert counts.to_dict() == {"cnn": 3, "unet": 3}


def test_a_killed_search_goes_on_and_tries_the_cut_off_trial_again(make_search, tmp_path):
    here = pathlib.Path(__file__).parent
    code = (
        f"import pathlib, sys; sys.path[:0] = {[str(here.parent), str(here)]!r}; import conftest, test_search as t; "
        "data = conftest.make_colors(t.SPLITS, t.NUM_COLORS, side=t.SIDE); "
        f"t.search_in(pathlib.Path({str(tmp_path)!r}), data, trials=10**6).run(workers=1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    search = make_search(tmp_path, trials=10**6)
    deadline = time.time() + 300
    while not search.journal.exists() or search.journal.read_bytes().count(b"\n") < 60:
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = search.optuna_study("cnn")
    done = len(found.get_trials(states=color_search.DONE))
    cut = found.get_trials(states=(TrialState.RUNNING,))
    resumed = replace(search, trials=done + 2)
    resumed.run(workers=1)
    assert len(resumed.results()) == done + 2
    assert not resumed.optuna_study("cnn").get_trials(states=(TrialState.RUNNING,))
    for trial in cut:
        if len(trial.params) == len(SEARCHED):
            again = [
                x
                for x in resumed.optuna_study("cnn").trials[trial.number + 1 :]
                if x.params == trial.params
            ]
            assert again and again[0].state in color_search.DONE


def test_the_median_pruner_stops_a_trial_between_epochs(make_search, tmp_path, monkeypatch):
    search = make_search(tmp_path, trials=color_search.UNPRUNED_TRIALS + 2)
    epochs = []

    def fake_fit(model, objective, train, validation, config, *, seed, device, on_epoch):
        trial = search.optuna_study("cnn").trials[-1].number
        bad = trial == color_search.UNPRUNED_TRIALS
        rows = [
            {"epoch": epoch, "val_nll": 9.0 if bad else 1.0 + trial / 100, "val_accuracy": 0.5}
            for epoch in (1, 2, 3)
        ]
        for row in rows:
            epochs.append((trial, row["epoch"]))
            on_epoch(row)
        return Fitted(rows, 1.0, {})

    monkeypatch.setattr(color_search, "fit", fake_fit)
    search.run(workers=1)
    states = search.results()["state"].tolist()
    assert states == ["complete"] * color_search.UNPRUNED_TRIALS + ["pruned", "pruned"]
    bad = search.results().iloc[-2]
    assert (bad["epochs"], bad["val_nll"]) == (2, 9.0)
    assert [epoch for trial, epoch in epochs if trial == color_search.UNPRUNED_TRIALS] == [1, 2]


def test_a_loss_that_is_not_finite_ends_the_trial_not_the_search(
    make_search, tmp_path, monkeypatch
):
    search = make_search(tmp_path, trials=3)

    def fake_fit(model, objective, train, validation, config, *, seed, device, on_epoch):
        row = {"epoch": 1, "val_nll": 1.0, "val_accuracy": 0.5}
        on_epoch(row)
        if search.optuna_study("cnn").trials[-1].number == 1:
            raise NonFiniteLossError("made up")
        return Fitted([row], 1.0, {})

    monkeypatch.setattr(color_search, "fit", fake_fit)
    search.run(workers=1)
    assert search.results()["state"].tolist() == ["complete", "pruned", "complete"]


@pytest.mark.parametrize(
    "damage, line",
    [
        (lambda lines: [*lines[:2], b"{broken\n", *lines[3:]], "line 3"),
        (lambda lines: [*lines[:2], b"\0" * 20 + b"\n", *lines[3:]], "line 3"),
        (lambda lines: [*lines[:2], b"7\n", *lines[3:]], "line 3"),
    ],
)
def test_a_damaged_journal_is_named_and_left_alone(make_search, tmp_path, damage, line):
    search = make_search(tmp_path, trials=1)
    search.run(workers=1)
    damaged = b"".join(damage(search.journal.read_bytes().splitlines(keepends=True)))
    search.journal.write_bytes(damaged)
    with pytest.raises(SearchError, match=f"journal.log.*{line}"):
        replace(search, trials=2).run(workers=1)
    assert search.journal.read_bytes() == damaged


def test_every_flipped_bit_of_a_journal_is_seen(make_search, tmp_path):
    """But of the last line's end: then that record is one that was cut off, and is left out."""
    search = make_search(tmp_path, trials=1)
    search.run(workers=1)
    whole = search.journal.read_bytes()
    draw = random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole) - 1)] ^= 1 << draw.randrange(8)
        search.journal.write_bytes(damaged)
        with pytest.raises(SearchError, match="journal.log, line"):
            search.results()
    search.journal.write_bytes(whole)
    assert len(search.results()) == 1


def test_a_journal_of_before_there_were_digests_goes_on(make_search, tmp_path):
    search = make_search(tmp_path, trials=1)
    search.run(workers=1)
    records = [json.loads(line) for line in search.journal.read_text().splitlines()]
    search.journal.write_text(
        "".join(
            json.dumps({key: value for key, value in record.items() if key != "sha256"}) + "\n"
            for record in records
        )
    )
    more = replace(search, trials=2)
    more.run(workers=1)
    assert len(more.results()) == 2


def test_records_of_no_search_are_an_error_too(make_search, tmp_path):
    search = make_search(tmp_path)
    search.journal.write_text(json.dumps({"op_code": 4, "worker_id": "x", "trial_id": 99}) + "\n")
    with pytest.raises(SearchError, match="cannot be replayed"):
        search.run(workers=1)


def points(search):
    return search.results()[[*SEARCHED, "val_nll"]].to_dict("records")


def test_a_search_stopped_after_every_trial_tries_the_points_of_one_that_was_not(
    make_search, tmp_path
):
    whole = make_search(tmp_path / "whole", trials=11)  # more than the sampler's random ones
    whole.run(workers=1)
    for trials in range(1, 12):
        stopped = make_search(tmp_path / "stopped", trials=trials)
        stopped.run(workers=1)
    assert points(stopped) == points(whole)
    assert stopped.results()["learning_rate"].nunique() == 11


@pytest.mark.parametrize("cut", [0, 2])
def test_an_interrupted_trial_is_tried_again_at_its_point(make_search, tmp_path, monkeypatch, cut):
    whole, stopped = (make_search(tmp_path / name, trials=4) for name in ("whole", "stopped"))
    whole.run(workers=1)
    calls = []

    def interrupted(*arguments, **keys):
        calls.append(1)
        if len(calls) == cut + 1:
            raise KeyboardInterrupt
        return fit(*arguments, **keys)

    monkeypatch.setattr(color_search, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stopped.run(workers=1)
    stopped.run(workers=1)
    assert points(stopped) == points(whole)


def test_a_full_disk_leaves_no_torn_record_to_mend_by_hand(make_search, tmp_path, capsys):
    """The limit on a file's size cuts a record off as a full disk does."""
    resource = pytest.importorskip("resource")
    whole, full = (make_search(tmp_path / name, trials=3) for name in ("whole", "full"))
    whole.run(workers=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole.journal.stat().st_size // 2, before[1]))
    try:
        with pytest.raises(
            SearchError,
            match="cannot write .*journal.log .*make room there, and starting again continues",
        ):
            full.run(workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    full.run(workers=1)
    assert points(full) == points(whole)
    assert "journal.log: removed its last line" in capsys.readouterr().out  # so one was cut off


def test_a_search_in_use_is_refused(make_search, tmp_path):
    search = make_search(tmp_path)
    tmp_path.mkdir(exist_ok=True)
    with runs.exclusive(tmp_path, SearchError), pytest.raises(SearchError, match="in use"):
        search.run(workers=1)


def test_optuna_is_the_version_whose_journal_was_tested():
    assert optuna.__version__.startswith("5.")
