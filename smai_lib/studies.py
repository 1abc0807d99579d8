"""All studies by name."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from .core.errors import ConfigError

if TYPE_CHECKING:
    from .core.study import Study

# function of (profile, seed, data) that returns the study; imported when it is loaded
STUDIES = {
    "q1_published": "multitask.studies.published_configs",
    "q1_lambda": "multitask.studies.lambda_study",
    "q1_best": "multitask.recipe.best_recipe",
    "q1_ladder": "multitask.recipe.recipe_ladder",
    "q1_beyond": "multitask.recipe.residual_network",
    "q1_features": "features.study.FeatureStudy",
    "q2_sweep": "colorization.studies.color_sweep",
    "q2_search": "colorization.search.ColorSearch",
    "q2_models": "colorization.studies.color_models",
}


def load_study(name: str, profile: str = "recorded", seed: int = 0, data=None) -> "Study":
    """Return a study by its name.

    Args:
        name: one of STUDIES.
        profile: "recorded" (results of the repository), "quick" or "full" (train; see `Study.run`).
        seed: seed of the first run of every configuration; "full" allows 0 only.
        data: the data set, by default the study's own; of that, few images under "quick".

    Raises:
        ConfigError: the name or the profile is unknown, or the seed is not a whole number, or not 0
            under "full".
    """
    if name not in STUDIES:
        raise ConfigError(f"study: found {name!r}, expected one of {', '.join(STUDIES)}")
    from .core.config import whole_number  # imports torch

    seed = whole_number("seed", seed)
    if profile == "recorded":
        seed = 0  # recorded runs begin there, whatever seed is asked for
    elif profile == "full" and seed:
        raise ConfigError(
            f"seed: found {seed}, expected 0: the profile 'full' records runs that begin there; "
            "choose the profile 'quick' for another seed"
        )
    module, function = STUDIES[name].rsplit(".", 1)
    return getattr(import_module(f"{__package__}.{module}"), function)(profile, seed, data)


def run_studies(
    names: Sequence[str], profile: str, seed: int = 0, *, device: str = "auto", **where
) -> None:
    """Train studies, or continue them.

    Under "quick" the runs of all studies share one pool of workers, which start only once. Under
    "full" each study is published as soon as it has finished.

    Args:
        names: names of STUDIES.
        profile: "quick" or "full".
        seed: as in `load_study`.
        device: as in `runs.train`.
        where: engine, workers and the like, as in `pool.run_tasks`.

    Raises:
        ConfigError: see `load_study`.
        RunError: a run cannot be trained; the others are finished.
    """
    from .core.runs import run_all

    # a generator: under "full" a study is loaded when the one before it has been published
    studies = (load_study(name, profile, seed) for name in names)
    if profile == "quick":
        studies = list(studies)
        runs = [run for study in studies for run in study.runs]
        run_all(runs, *[study.data for study in studies], device=device, **where)
    for study in studies:
        study.run(device=device, **where)
        print(f"{study.name}: finished, under {study.root}", flush=True)
