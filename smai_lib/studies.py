"""All studies by name, for the command line; notebooks find theirs here too."""

from .colorization.studies import color_models, color_search
from .colorization.sweep import BEST_PUBLISHED, color_sweep
from .core.study import shipped
from .multitask.ladder import recipe_ladder
from .multitask.published import published_configs
from .multitask.recipe import best_recipe, residual_network
from .multitask.studies import REPORTED_VAL_ACCURACY, TEN_CONFIGS, lambda_study, ten_configs

STUDIES = {
    "q1_configs": ten_configs,
    "q1_published": published_configs,
    "q1_lambda": lambda_study,
    "q1_best": best_recipe,
    "q1_ladder": recipe_ladder,
    "q1_beyond": residual_network,
    "q2_sweep": color_sweep,
    "q2_search": color_search,
    "q2_models": color_models,
}

__all__ = [
    "BEST_PUBLISHED",
    "REPORTED_VAL_ACCURACY",
    "STUDIES",
    "TEN_CONFIGS",
    "best_recipe",
    "color_models",
    "color_search",
    "color_sweep",
    "lambda_study",
    "published_configs",
    "recipe_ladder",
    "residual_network",
    "shipped",
    "ten_configs",
]
