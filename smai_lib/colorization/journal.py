"""The journal of a search: one file, a JSON record a line, that Optuna only ever appends to."""

import json
from pathlib import Path

import optuna

from ..core.runs import RunError


class SearchError(RunError):
    """A journal that cannot be used."""


def open_study(journal: Path, name: str, **settings) -> optuna.Study:
    """The search called `name` in the file `journal`, new or continued.

    Args:
        settings: sampler and pruner, for `optuna.create_study`.

    Raises:
        SearchError: the file is damaged. It is left as it is.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_journal(journal)
    try:
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
        return optuna.create_study(study_name=name, storage=storage, load_if_exists=True, **settings)
    except (ValueError, KeyError, TypeError, AssertionError, IndexError) as error:
        raise SearchError(f"{journal} cannot be replayed ({type(error).__name__}: {error}); restore it, or "
                          "move it away to start a new search") from error


def check_journal(file: Path) -> None:
    """SearchError, with the line and the way out, unless every line of `file` is a whole record.

    Optuna passes over a last line that was cut off, and the next record would be glued to it.
    """
    if not file.exists():
        return
    lines = file.read_bytes().split(b"\n")
    torn = lines.pop()  # what follows the last line's end
    for number, line in enumerate(lines, start=1):
        try:
            valid = "op_code" in json.loads(line)
        except (ValueError, TypeError):
            valid = False
        if not valid:
            raise SearchError(f"{file}, line {number}: found {line[:40]!r}, expected a JSON record of Optuna; "
                              "restore the file, or move it away to start a new search. Nothing was changed")
    if torn:
        raise SearchError(f"{file}, line {len(lines) + 1}: found {torn[:40]!r} without an end, a record that "
                          "was cut off; delete that line and the search goes on. Nothing was changed")
