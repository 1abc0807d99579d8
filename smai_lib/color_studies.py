"""The studies of Q2: the search for hyper-parameters, and the networks beside the baselines."""

from . import color_images, paths
from .color_data import ColorizationData, prepare
from .color_search import ColorSearch, Space
from .config import ColorizationConfig
from .study import check_profile

# the reference report's best network; the defaults of the configuration are its keys
REPORT_CNN = ColorizationConfig()
REPORTED_VALIDATION = {"accuracy": 0.5010645, "nll": 1.3}
# chosen on the horses' validation images: moving the images is what lets it train 25 epochs
UNET = ColorizationConfig(model="unet", num_filters=16, kernel_size=3, dropout_rate=0.1, mirror=True, shift=4,
                          schedule="one_cycle", optimizer="AdamW", learning_rate=3e-3, batch_size=64, epochs=25)

SEARCH_TRIALS = {"quick": 4, "full": 30}
SEARCH_EPOCHS = {"cnn": 4, "unet": 3}  # of a trial, so that sixty take less than half an hour of a core
QUICK_SEARCH_IMAGES = (1000, 300, 100)


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
    check_profile(profile)
    data = data or color_data()
    if profile == "quick":
        data = data.subset(*QUICK_SEARCH_IMAGES)
    return ColorSearch("q2_search", profile, search_spaces(profile), SEARCH_TRIALS.get(profile, 0), seed, data,
                       paths.runs_dir() / profile / "q2_search")


def color_data() -> ColorizationData:
    """The horses, or what there is, in 24 colours of the training pixels' own."""
    return prepare(color_images.color_images(), REPORT_CNN.num_colors)


def _with(config: ColorizationConfig, **changes) -> ColorizationConfig:
    return ColorizationConfig.from_dict(config.to_dict() | changes)
