import functools
import itertools
import re
import shutil
from contextlib import suppress
from dataclasses import replace

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from smai_lib.colorization import search as search_module
from smai_lib.colorization.config import ColorizationConfig
from smai_lib.colorization.search import DONE, SEARCHED, ColorSearch, Space
from smai_lib.core.errors import NonFiniteLossError, RunError
from smai_lib.core.files import exclusive
from smai_lib.core.training import Fitted, fit
from tests.conftest import make_colors

BASE = ColorizationConfig(num_colors=4, num_filters=2, kernel_size=3, epochs=2, batch_size=10)
RANGES = {
    "learning_rate": FloatDistribution(1e-3, 1e-1, log=True),
    "batch_size": CategoricalDistribution((5, 10)),
    "num_filters": CategoricalDistribution((2, 3)),
    "kernel_size": CategoricalDistribution((1, 3)),
    "optimizer": CategoricalDistribution(("Adam", "AdamW")),
}


def make_search(root, trials=4, seed=0, models=("cnn",)):
    """Return a search on a few small images, with its database under `root`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMAI_RUNS", str(root))
        search = ColorSearch("quick", seed, make_colors((20, 5, 5), 4, side=16))
    search.trials = trials
    search.spaces = {model: Space(BASE.replace(model=model), RANGES) for model in models}
    return search


def points(search):
    return search.results[[*SEARCHED, "val_nll"]].to_dict("records")


@pytest.fixture(scope="module", autouse=True)
def few_trials():
    """Few trials are random, and few complete ones are needed to prune."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_module, "RANDOM_TRIALS", 2)
        patch.setattr(search_module, "UNPRUNED_TRIALS", 2)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A search of four trials."""
    search = make_search(tmp_path_factory.mktemp("finished"))
    search.run(engine="serial")
    return search


@pytest.fixture
def copied(finished, tmp_path):
    """A function that returns a search, as of `make_search`, with a copy of the finished trials."""
    shutil.copytree(finished.root, make_search(tmp_path).root)
    return functools.partial(make_search, tmp_path)


def test_trials_are_trained_like_any_run_and_the_first_has_the_base_config(finished):
    results, data = finished.results, finished.data
    base = BASE.to_dict()
    assert results.loc[0, list(SEARCHED)].to_dict() == {key: base[key] for key in SEARCHED}
    assert results["learning_rate"].nunique() == 4
    row = results.astype(object).loc[2]
    config = BASE.replace(**row[list(SEARCHED)])
    task, model = config.build(data, 0)
    epochs = fit(model, task, data.train, data.validation, config, seed=0).rows
    history = finished.history.query("trial == 2")["val_nll"]
    assert history.tolist() == [epoch["val_nll"] for epoch in epochs]
    assert row["val_accuracy"] == epochs[-1]["val_accuracy"]


def test_a_finished_search_is_looked_up_and_more_trials_are_added(finished, copied):
    again, more = copied(), copied(trials=5)
    database = again.root / "search.db"
    content = database.read_bytes()
    again.run(engine="serial")
    assert database.read_bytes() == content
    more.run(engine="serial")
    assert points(more)[:4] == points(finished) and len(more.results) == 5


def test_other_data_or_another_seed_are_another_search_in_the_same_database(finished, copied):
    other, reseeded = copied(trials=1), copied(trials=2, seed=1)
    other.data = replace(finished.data, fingerprint="other")
    for further in (other, reseeded):
        further.run(engine="serial")
    assert [len(search.results) for search in (copied(), other, reseeded)] == [4, 1, 2]
    assert points(reseeded)[1] != points(finished)[1]


@pytest.mark.slow
def test_two_workers_share_the_trials_of_both_searches(tmp_path):
    search = make_search(tmp_path, 3, models=("cnn", "unet"))
    search.run(workers=2)
    assert search.results["model"].value_counts().to_dict() == {"cnn": 3, "unet": 3}


def test_a_search_stopped_again_and_again_tries_the_points_of_one_that_was_not(
    finished, tmp_path, monkeypatch
):
    stopped = make_search(tmp_path)
    epochs = itertools.count(1)

    def interrupted(*arguments, on_epoch, **keys):
        def stop(row):
            on_epoch(row)
            if next(epochs) % 4 == 0:
                raise KeyboardInterrupt

        return fit(*arguments, on_epoch=stop, **keys)

    monkeypatch.setattr(search_module, "fit", interrupted)
    while len(stopped.optuna_study("cnn").get_trials(states=DONE)) < stopped.trials:
        with suppress(KeyboardInterrupt):
            stopped.run(engine="serial")
    assert next(epochs) > 2 * stopped.trials + 1  # some were cut off
    assert points(stopped) == points(finished)


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
        search.run(engine="serial")
        return search.results

    return run


def test_a_trial_above_the_median_is_pruned_between_epochs(fake_losses):
    results = fake_losses([[1.0] * 3, [1.1] * 3, [9.0] * 3])
    assert results["state"].tolist() == ["complete", "complete", "pruned"]
    assert results.iloc[-1][["epochs", "val_nll"]].tolist() == [2, 9.0]


def test_a_loss_that_is_not_finite_ends_the_trial_not_the_search(fake_losses):
    results = fake_losses([[1.0], [1.0, None], [1.0]])
    assert results["state"].tolist() == ["complete", "pruned", "complete"]


@pytest.mark.parametrize("damage", ["no database", "cut off", "overwritten"])
def test_a_damaged_database_is_named_and_left_alone(copied, damage):
    search = copied(trials=5)
    database = search.root / "search.db"
    content = database.read_bytes()
    middle = len(content) // 2
    damaged = {
        "no database": b"{broken\n" * 999,
        "cut off": content[:middle],
        "overwritten": content[:100] + bytes(middle) + content[100 + middle :],
    }[damage]
    database.write_bytes(damaged)
    with pytest.raises(RunError, match=r"search\.db cannot be used.*move it away"):
        search.run(engine="serial")
    assert database.read_bytes() == damaged


@pytest.mark.parametrize(
    "url, shown",
    [
        ("no-url", "no-url"),
        ("mysql://me:secret@host:3306/db", "mysql://me:***@host:3306/db"),
        ("mysql://me:s:e@cret@host:3306/db", "mysql://me:***@host:3306/db"),
    ],
)
def test_a_database_without_driver_is_refused_with_the_fix_and_without_its_password(
    tmp_path, monkeypatch, url, shown
):
    monkeypatch.setenv("SMAI_OPTUNA", url)
    search = make_search(tmp_path)
    message = f"{re.escape(shown)} cannot be used.*install its driver"
    for use in (functools.partial(search.run, engine="serial"), search.compute_results):
        with pytest.raises(RunError, match=message) as caught:
            use()
        assert "cret" not in "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


def test_a_full_disk_is_named_and_the_search_continues(finished, tmp_path):
    """A limit on a file's size fails like a full disk."""
    resource = pytest.importorskip("resource")
    full = make_search(tmp_path)
    full.optuna_study("cnn")
    size = (full.root / "search.db").stat().st_size // 2
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(RunError, match=r"search\.db cannot be used.*Make room"):
            full.run(engine="serial")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    full.run(engine="serial")
    assert points(full) == points(finished)


def test_a_search_that_another_process_runs_is_refused(tmp_path):
    search = make_search(tmp_path)
    with exclusive(search.root), pytest.raises(RunError, match="in use"):
        search.run()


def test_results_of_a_search_that_has_not_run_are_refused(tmp_path):
    with pytest.raises(RunError, match="no finished trial.*run it first"):
        make_search(tmp_path).table("history")


def test_recorded_results_have_no_database(tmp_path, monkeypatch):
    monkeypatch.setenv("SMAI_RUNS", str(tmp_path))
    with pytest.raises(RunError, match="q2_search: recorded results have no database"):
        ColorSearch().optuna_study("cnn")
    assert not list(tmp_path.iterdir())
