"""Tracking of runs in wandb, which can neither stop nor lose a run.

The run's folder is the record; wandb follows it in a thread of its own. Whatever fails in wandb is
one line of warning. A resumed run replays its earlier epochs, so that wandb has all of them. The
environment variables WANDB_MODE (default: offline), WANDB_DISABLED, WANDB_PROJECT, WANDB_DIR and
WANDB_BASE_URL apply. Look at a tracked run, or read it back, with `wandb leet`.
"""

import os
import queue
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

from . import paths
from .errors import ConfigError

PROJECT = "smai-a4"
MODES = ("offline", "online", "disabled", "dryrun", "run", "shared")  # wandb's own
SERVER = "https://api.wandb.ai"
START_SECONDS = 10  # for the server to answer when a run starts
FINISH_SECONDS = 30  # for wandb to catch up with a finished run; a tenth after a failure


def requested_mode() -> str:
    """Return the mode that WANDB_MODE and WANDB_DISABLED ask for; default: offline.

    Raises:
        ConfigError: wandb has no such mode.
    """
    mode = os.environ.get("WANDB_MODE") or "offline"
    if mode not in MODES:
        raise ConfigError(f"WANDB_MODE: found {mode!r}, expected one of {', '.join(MODES)}")
    disabled = os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on")
    return "disabled" if disabled else mode


@contextmanager
def start(run, data, facts):
    """Follow a run with a wandb run; an error inside marks the wandb run as failed.

    Args:
        run: the `Run`.
        data: its data set.
        facts: further values for wandb's config.

    Yields:
        A function `track`: `track(call)` returns at once, and wandb's thread calls `call` with the
        wandb run.

    Raises:
        ConfigError: WANDB_MODE is unknown.
    """
    calls, patience = queue.SimpleQueue(), FINISH_SECONDS
    if requested_mode() == "disabled":
        yield calls.put
        return
    given_up = threading.Event()
    arguments = (run, data, facts, calls, given_up)
    thread = threading.Thread(target=_follow, args=arguments, daemon=True)
    thread.start()
    try:
        yield calls.put
    except BaseException:
        patience /= 10
        calls.put(lambda wandb_run: wandb_run.finish(exit_code=1))
        raise
    finally:
        calls.put(None)
        thread.join(patience)
        if thread.is_alive():
            given_up.set()
            with suppress(Exception):  # every public call waits for the service, also at exit
                sys.modules["wandb"].setup()._connection._proc._process.kill()
            _warn(run, f"no answer within {patience:g} s")


def _follow(run, data, facts, calls: queue.SimpleQueue, given_up: threading.Event) -> None:
    """Make the `calls` with a wandb run, until one is None."""
    try:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        folder = Path(os.environ.get("WANDB_DIR") or paths.runs_dir())
        folder.mkdir(parents=True, exist_ok=True)
        identity = {
            "seed": run.seed,
            "run_id": run.run_id,
            "data_fingerprint": data.fingerprint,
            "profile": run.profile,
        }
        tags = (data.source, f"seed {run.seed}", run.profile, run.study)
        arguments = {
            "project": os.environ.get("WANDB_PROJECT") or PROJECT,
            "group": run.study,
            "job_type": "train",
            "name": run.name,
            "config": run.config.to_dict() | identity | facts,
            "dir": folder,
            "tags": list(filter(None, tags)),
            "settings": wandb.Settings(init_timeout=START_SECONDS, console="off"),
        }
        with _init(arguments, given_up) as wandb_run:
            wandb_run.define_metric("*", step_metric="epoch")
            wandb_run.define_metric("val_accuracy", step_metric="epoch", summary="max")
            while call := calls.get():
                call(wandb_run)
    except Exception as error:  # noqa: BLE001  no failure of wandb is one of the run
        if not given_up.is_set():
            _warn(run, _describe(error))


def _init(arguments: dict, given_up: threading.Event):
    """Return a new wandb run, which is offline if the server or the key cannot be used."""
    import wandb

    mode = requested_mode()
    if mode not in ("offline", "dryrun"):
        server = os.environ.get("WANDB_BASE_URL") or SERVER
        problem = f"there is no key for {server}, `wandb login` asks for one"
        try:
            if wandb.login(prompt=False):  # gives up after 10 seconds
                return wandb.init(mode=mode, **arguments)
        except Exception as error:  # noqa: BLE001  no answer, say, or a rejected key
            problem = f"{server} cannot be used ({_describe(error)})"
        if given_up.is_set():
            raise TimeoutError(problem)
        print(f"wandb: {problem}; tracking offline, `wandb sync` uploads later", file=sys.stderr)
    return wandb.init(mode="offline", **arguments)


def finish(wandb_run, metrics: dict[str, float], figures: dict, weights: Path) -> None:
    """Add the final metrics, the figures, and the tested weights as an artifact."""
    import matplotlib.pyplot  # noqa: F401  wandb.Image needs it loaded to draw a figure
    import wandb

    wandb_run.summary.update(metrics)
    artifact = wandb.Artifact(f"weights-{wandb_run.config['run_id']}", type="model")
    artifact.add_file(weights, skip_cache=True, policy="immutable")  # a reference, not a copy
    wandb_run.log_artifact(artifact)
    if figures:
        wandb_run.log({name: wandb.Image(figure) for name, figure in figures.items()})


def _warn(run, problem: str) -> None:
    print(f"wandb: {run.name} is not fully tracked, its folder is: {problem}", file=sys.stderr)


def _describe(error: Exception) -> str:
    """Return an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
