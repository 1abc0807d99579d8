"""Record what a linear probe reads off each block of the best of the ten networks: report/results/q1_probes.csv.

    python report/measure_probes.py

As in the notebook q1_feature_maps: fitted on training images, its penalty chosen on some validation images, measured
on others; beside the same network untrained, and the raw pixels. A minute.
"""

from smai_lib import studies
from smai_lib.core import checksums, paths
from smai_lib.features import probes
from smai_lib.multitask import fashion_mnist

FILE = paths.RESULTS / "q1_probes.csv"
FITTED = 1500


def part(split, first, last):
    """Images `first` to `last` of a split."""
    return split._make(column[first:last] for column in split)


def main() -> None:
    data, study = fashion_mnist.fashion_mnist(), studies.ten_configs()
    networks = {
        "trained": study.best_network(),
        "untrained": studies.TEN_CONFIGS[study.best()].build(data, 0)[1].eval(),
    }
    validation, sixth = data.validation, len(data.validation.labels) // 6
    table = probes.probe_blocks(
        networks,
        part(data.train, 0, FITTED),
        part(validation, 0, sixth),
        part(validation, sixth, 4 * sixth),
    )
    table.assign(fitted=FITTED, measured=3 * sixth, data_fingerprint=data.fingerprint).to_csv(
        FILE, index=False
    )
    checksums.record(FILE)


if __name__ == "__main__":
    main()
