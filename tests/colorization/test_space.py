import pandas as pd

from smai_lib.colorization.config import ColorizationConfig
from smai_lib.colorization.space import SEARCHED, Space


def test_complete_trials_are_a_study_of_optunas():
    space = Space(
        base=ColorizationConfig(),
        learning_rate=(1e-3, 1e-1),
        batch_size=(5, 10),
        num_filters=(2, 3),
        kernel_size=(1, 3),
    )
    rows = [
        {
            "state": "complete",
            "learning_rate": 0.001 * (1 + number),
            "batch_size": (5, 10)[number % 2],
            "num_filters": (2, 3)[number // 2 % 2],
            "kernel_size": (1, 3)[number // 4 % 2],
            "optimizer": ("Adam", "AdamW")[number // 8 % 2],
            "val_nll": 1.0 + (number // 4 % 2),
        }
        for number in range(32)
    ]
    rows.append(rows[0] | {"state": "pruned", "val_nll": 1e6})
    found = space.as_optuna(pd.DataFrame(rows))
    assert (
        len(found.trials) == 32 and found.best_value == 1.0
    )  # the pruned one, low or high, is left out
    assert found.trials[5].params == {key: rows[5][key] for key in SEARCHED}
