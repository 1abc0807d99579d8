"""The wandb mirror of a run.

wandb only listens, in a thread of its own: the record is the run's folder, which never waits for
the mirror, and whatever fails in wandb is one line of warning. A resumed run replays its earlier
epochs, so every mirror is complete. Offline unless WANDB_MODE says otherwise, in the project
WANDB_PROJECT; look at a mirror, or read it back, with `wandb leet`.
"""

import os
import queue
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

from . import paths
from .sources import reachable

PROJECT = "smai-a4"
MODES = ("offline", "online", "disabled", "dryrun", "run", "shared")
START_SECONDS = 10  # then an online run that the server does not answer gives up
FINISH_SECONDS = (
    30  # what a finished run leaves the mirror to catch up; one that failed leaves a tenth
)


def wanted_mode() -> str:
    """WANDB_MODE, `offline` if unset; ValueError for what is none of wandb's, before anything is trained."""
    wanted = os.environ.get("WANDB_MODE", "offline")
    if wanted not in MODES:
        raise ValueError(f"WANDB_MODE: found {wanted!r}, expected one of {', '.join(MODES)}")
    return wanted


def mode() -> str:
    """`wanted_mode`, but an online mode without a server in reach, or without a key for it, becomes offline."""
    wanted = wanted_mode()
    if wanted in ("offline", "disabled", "dryrun"):
        return wanted
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    problem = f"{server} does not answer"
    if reachable(server):
        import wandb

        if wandb.login(prompt=False):
            return wanted
        problem = f"there is no key for {server}, `wandb login` asks for one"
    print(f"wandb: {problem}, tracking offline (`wandb sync` uploads later)", file=sys.stderr)
    return "offline"


def finish(run, metrics: dict[str, float], pictures: dict, weights: Path) -> None:
    """Add the final metrics, the figures, and the tested weights as an artifact to the wandb run."""
    import matplotlib.pyplot  # noqa: F401  wandb.Image looks it up before it draws a figure
    import wandb

    # the loss of a task whose loss is a mean negative log-likelihood goes by that name
    run.summary.update(
        metrics | ({"best_val_nll": metrics["best_val_loss"]} if "val_nll" in metrics else {})
    )
    artifact = wandb.Artifact(f"weights-{run.config['run_id']}", type="model")
    artifact.add_file(
        weights, skip_cache=True, policy="immutable"
    )  # no copy: a finished run stays as it is
    run.log_artifact(artifact)
    if pictures:
        run.log({name: wandb.Image(figure) for name, figure in pictures.items()})


@contextmanager
def start(spec, data, facts):
    """Follow the run of `spec` with a wandb run; what fails inside is marked failed in wandb too.

    Its config is the run's, with the seed, the data, the profile and further `facts`.

    Yields a function that takes what is to be done with the wandb run, and does not wait. ValueError: a wrong mode.
    """
    calls, patience = queue.SimpleQueue(), FINISH_SECONDS
    if wanted_mode() == "disabled":
        yield calls.put
        return
    thread = threading.Thread(target=_follow, args=(spec, data, facts, calls), daemon=True)
    thread.start()
    try:
        yield calls.put
    except BaseException:
        patience /= 10
        calls.put(lambda run: run.finish(exit_code=1))
        raise
    finally:
        calls.put(None)
        thread.join(patience)
        if thread.is_alive():
            with suppress(
                Exception
            ):  # the service; else this process could not end. All public ways wait for it
                sys.modules["wandb"].setup()._connection._proc._process.kill()
            thread.join(1)
            if thread.is_alive():
                _warn(spec, "it does not answer")


def _follow(spec, data, facts, calls: queue.SimpleQueue) -> None:
    try:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        folder = Path(os.environ.get("WANDB_DIR") or paths.runs_dir())
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            **spec.config.to_dict(),
            "seed": spec.seed,
            "run_id": spec.run_id,
            "data_fingerprint": data.fingerprint,
            "profile": spec.profile,
            **facts,
        }
        with wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            group=spec.study,
            job_type="train",
            name=spec.name,
            config=config,
            dir=folder,
            tags=[data.source, f"seed {spec.seed}", spec.profile, spec.study],
            mode=mode(),
            settings=wandb.Settings(init_timeout=START_SECONDS, console="off"),
        ) as run:
            run.define_metric("*", step_metric="epoch")
            run.define_metric("val_accuracy", step_metric="epoch", summary="max")
            while call := calls.get():
                call(run)
    except Exception as error:  # noqa: BLE001  whatever it is, it is not the run's
        _warn(spec, f"{type(error).__name__}: {error}")


def _warn(spec, problem: str) -> None:
    print(
        f"wandb: {spec.name} is not wholly mirrored, its record is: {problem}".splitlines()[0],
        file=sys.stderr,
    )
