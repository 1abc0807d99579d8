"""All studies by name, for the command line; notebooks find theirs here too."""

from .colorization.studies import color_models, color_search
from .colorization.sweep import BEST_PUBLISHED, color_sweep
from .multitask.recipe import best_recipe, refitted_recipe
from .multitask.studies import REPORTED_VAL_ACCURACY, TEN_CONFIGS, lambda_study, ten_configs

STUDIES = {"q1_configs": ten_configs, "q1_lambda": lambda_study, "q1_best": best_recipe, "q1_refitted": refitted_recipe,
           "q2_sweep": color_sweep, "q2_search": color_search, "q2_models": color_models}

__all__ = ["BEST_PUBLISHED", "REPORTED_VAL_ACCURACY", "STUDIES", "TEN_CONFIGS",
           "best_recipe", "color_models", "color_search", "color_sweep", "lambda_study", "refitted_recipe", "ten_configs"]
