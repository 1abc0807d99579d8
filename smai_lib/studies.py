"""All studies by name."""

from .colorization.search import color_search
from .colorization.studies import color_auxiliary, color_models, color_sweep
from .core.errors import ConfigError
from .core.study import BaseStudy
from .multitask.recipe import best_recipe, recipe_ladder, residual_network
from .multitask.studies import lambda_study, published_configs

STUDIES = {
    "q1_published": published_configs,
    "q1_lambda": lambda_study,
    "q1_best": best_recipe,
    "q1_ladder": recipe_ladder,
    "q1_beyond": residual_network,
    "q2_sweep": color_sweep,
    "q2_search": color_search,
    "q2_models": color_models,
    "q2_auxiliary": color_auxiliary,
}


def load_study(name: str, profile: str = "recorded", seed: int = 0, data=None) -> BaseStudy:
    """Return a study by its name.

    Args:
        name: one of STUDIES.
        profile: "recorded" (results of the repository), "quick" or "full" (train; see `Study.run`).
        seed: seed of the first run of every configuration.
        data: the data set, by default the study's own.

    Raises:
        ConfigError: the name or the profile is unknown, or the seed is not a whole number.
    """
    if name not in STUDIES:
        raise ConfigError(f"study: found {name!r}, expected one of {', '.join(STUDIES)}")
    return STUDIES[name](profile, seed, data)
