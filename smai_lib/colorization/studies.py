"""The studies of Q2: the search for hyper-parameters, and the networks beside the baselines."""

from ..core import paths
from ..core.config import ColorizationConfig
from ..core.runs import RunSpec
from ..core.study import check_profile, refuse_sample
from . import images
from .color_models import ColorModels
from .data import ColorizationData, prepare
from .search import ColorSearch
from .space import Space

# the reference report's best network; the defaults of the configuration are its keys
REPORT_CNN = ColorizationConfig()
REPORTED_VALIDATION = {"accuracy": 0.5010645, "nll": 1.3}
# chosen on the horses' validation images: images that move are what lets a network train this long
_recipe = {"mirror": True, "shift": 4, "schedule": "one_cycle", "optimizer": "AdamW",
           "learning_rate": 3e-3, "batch_size": 64}  # fmt: skip
# beyond the limits of the search, whose best had its smallest batch and its most filters; with a kernel
# of 3, three times those filters cost little more than 48 with a kernel of 5, and do better
TUNED_CNN = ColorizationConfig(num_filters=96, kernel_size=3, batch_size=16, optimizer="AdamW",
                               learning_rate=3e-3, schedule="one_cycle", mirror=True, epochs=30)
CNN_PRIOR = ColorizationConfig(model="cnn_prior", epochs=12, **_recipe)
UNET = ColorizationConfig(model="unet", num_filters=16, kernel_size=3, dropout_rate=0.1, epochs=20,
                          **_recipe)

SEARCH_TRIALS = {"quick": 4, "full": 30}
SEARCH_EPOCHS = {"cnn": 4, "unet": 3}  # of a trial, so that sixty take less than half an hour of a core
QUICK_SEARCH_IMAGES = (1000, 300, 100)
QUICK_EPOCHS = {"report CNN": 3, "tuned CNN": 2, "CNN + prior": 3, "U-Net": 4}
MODEL_SEEDS = 3


def search_spaces(profile: str) -> dict[str, Space]:
    """What is searched for the report's network and for ours; `quick` leaves out what is slow."""
    quick = profile == "quick"
    return {
        "cnn": Space(
            base=_with(REPORT_CNN, epochs=2 if quick else SEARCH_EPOCHS["cnn"]), learning_rate=(3e-4, 1e-2),
            batch_size=(16, 32, 64, 128), num_filters=(16, 32) if quick else (8, 16, 32),
            kernel_size=(3, 5) if quick else (3, 5, 7),
        ),
        "unet": Space(
            base=_with(UNET, epochs=2 if quick else SEARCH_EPOCHS["unet"]), learning_rate=(5e-4, 2e-2),
            batch_size=(32, 64, 128), num_filters=(8, 12, 16),
            kernel_size=(3,) if quick else (3, 5),
        ),
    }  # fmt: skip


def color_search(profile: str = "recorded", seed: int = 0, data: ColorizationData | None = None) -> ColorSearch:
    """Optuna over the report's five hyper-parameters, for its network and for the U-Net."""
    data = _checked(profile, data)
    if profile == "quick":
        data = data.subset(*QUICK_SEARCH_IMAGES)
    return ColorSearch("q2_search", profile, search_spaces(profile), SEARCH_TRIALS.get(profile, 0), seed, data,
                       paths.runs_dir() / profile / "q2_search")


def color_models(profile: str = "recorded", seed: int = 0, data: ColorizationData | None = None) -> ColorModels:
    """The report's network as it was, tuned, and with the prior; and the U-Net."""
    if profile == "recorded" and data is None:  # nothing to train on is needed to read
        return ColorModels("q2_models", profile, [], None)
    data = _checked(profile, data)
    configs = {"report CNN": REPORT_CNN, "tuned CNN": TUNED_CNN, "CNN + prior": CNN_PRIOR, "U-Net": UNET}
    if profile == "quick":
        configs = {name: _with(config, epochs=QUICK_EPOCHS[name]) for name, config in configs.items()}
    root = paths.runs_dir() / profile / "q2_models"
    seeds = [seed] if profile == "quick" else range(seed, seed + MODEL_SEEDS)
    # seed by seed, so that an interrupted study has whole comparisons
    specs = [RunSpec(name, "q2_models", config, number, data.fingerprint, root)
             for number in seeds for name, config in configs.items()]  # fmt: skip
    return ColorModels("q2_models", profile, specs, data)


def color_data() -> ColorizationData:
    """The horses, or what there is, in 24 colours of the training pixels' own."""
    return prepare(images.color_images(), REPORT_CNN.num_colors)


def _checked(profile: str, data: ColorizationData | None) -> ColorizationData:
    check_profile(profile)
    data = data or color_data()
    refuse_sample(profile, data, "give SMAI_COLOR_IMAGES a folder that holds CIFAR-10's horses")
    return data


def _with(config: ColorizationConfig, **changes) -> ColorizationConfig:
    return ColorizationConfig.from_dict(config.to_dict() | changes)
