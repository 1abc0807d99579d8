"""The errors of the library: each message says what happened, then how to fix it.

The command line prints any of them as one line and exits with code 2.
"""


class SmaiError(Exception):
    """Base class of the library's errors."""

    def __str__(self) -> str:
        # names of files may hold bytes that are not UTF-8, which cannot be printed as they are
        return super().__str__().encode("utf-8", "backslashreplace").decode()


class ConfigError(SmaiError, ValueError):
    """An argument or config value that is unknown, of the wrong type or out of range."""


class DataError(SmaiError, RuntimeError):
    """A data file that is missing, unreadable or altered."""


class ImageError(DataError):
    """A picture that cannot be used."""


class IntegrityError(SmaiError, RuntimeError):
    """A shipped table or weights file that is missing, altered or does not fit."""


class RunError(SmaiError, RuntimeError):
    """A run's folder, or a search's storage, that cannot be used."""


class NonFiniteLossError(SmaiError, ArithmeticError):
    """A loss that became infinite or NaN."""


class ReportError(SmaiError, RuntimeError):
    """A sentence that the results do not support, or a report that is out of date."""
