"""The wandb mirror of a run.

wandb only listens: the record is the run's folder, because wandb loses the last rows of a killed
process. A resumed run replays its earlier epochs, so every mirror is complete. Offline unless
WANDB_MODE says otherwise; look at a mirror, or read it back, with `wandb leet`.
"""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

from . import paths
from .sources import reachable

PROJECT = "smai-a4"
MODES = ("offline", "online", "disabled", "dryrun", "run", "shared")
START_SECONDS = 10  # then an online run that the server does not answer gives up


def wanted_mode() -> str:
    """WANDB_MODE, `offline` if unset; ValueError for what is none of wandb's, before anything is trained."""
    wanted = os.environ.get("WANDB_MODE", "offline")
    if wanted not in MODES:
        raise ValueError(f"WANDB_MODE: found {wanted!r}, expected one of {', '.join(MODES)}")
    return wanted


def mode() -> str:
    """`wanted_mode`, but an online mode whose server is out of reach becomes offline."""
    wanted = wanted_mode()
    if wanted in ("offline", "disabled", "dryrun"):
        return wanted
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    if reachable(server):
        return wanted
    print(f"wandb: {server} does not answer, tracking offline (`wandb sync` uploads later)", file=sys.stderr)
    return "offline"


def finish(mirror, metrics: dict[str, float], pictures: dict) -> None:
    """Add the final metrics and the figures."""
    import matplotlib.pyplot  # noqa: F401  wandb.Image looks it up before it draws a figure
    import wandb

    mirror.summary.update(metrics)
    if pictures:
        mirror.log({name: wandb.Image(figure) for name, figure in pictures.items()})


@contextmanager
def start(spec, data):
    """A wandb run that follows the run of `spec`; what fails inside is marked failed in wandb too."""
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    folder = Path(os.environ.get("WANDB_DIR") or paths.runs_dir())
    folder.mkdir(parents=True, exist_ok=True)
    config = {**spec.config.to_dict(), "seed": spec.seed, "run_id": spec.run_id, "data_fingerprint": data.fingerprint}
    with wandb.init(project=PROJECT, group=spec.study, job_type="train", name=spec.name, config=config, dir=folder,
                    tags=[data.source, f"seed {spec.seed}"], mode=mode(),
                    settings=wandb.Settings(init_timeout=START_SECONDS, console="off")) as run:
        run.define_metric("*", step_metric="epoch")
        run.define_metric("val_accuracy", step_metric="epoch", summary="max")
        yield run
