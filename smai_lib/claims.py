"""A claim is a function: its docstring is the sentence, its body the check.

The tests run all claims on the recorded results, a notebook shows them, the report cites them.

Example:
    >>> @claim
    ... def lookup_table_beats_published_networks(q2_sweep):
    ...     '''A lookup table beats each of the 21 published networks on validation.'''
    ...     table = q2_sweep.table("baselines").set_index("name").loc["luminance table"]
    ...     return table["val_accuracy"] > comparison(q2_sweep)["published_accuracy"].max()
"""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module

from .core.errors import ConfigError, ReportError

TOPICS = ("multitask", "features", "colorization", "costs")
ABOUT_QUICK = (
    "\n*These sentences are about the recorded results. A quick run has too few images, epochs and "
    "seeds to conclude anything.*"
)
_registry: dict[str, Callable[..., bool]] = {}


def claim(function: Callable[..., bool]) -> Callable[..., bool]:
    """Register a claim under the name of its function.

    Its arguments are names of studies: it is called with their recorded results. Its docstring is
    one sentence of Markdown.

    Raises:
        ConfigError: another module has a claim of that name, or the docstring is missing.
    """
    name = function.__name__
    other = _registry.get(name, function).__module__
    if other != function.__module__:
        raise ConfigError(f"claim {name}: found it in {other} as well, expected a name of its own")
    if not function.__doc__:
        raise ConfigError(f"claim {name}: found no docstring, expected a sentence")
    _registry[name] = function
    return function


def all_claims() -> dict[str, Callable[..., bool]]:
    """Return every claim of every topic by name."""
    for topic in TOPICS:
        import_module(f"{__package__}.{topic}.claims")
    return _registry


def find(name: str) -> Callable[..., bool]:
    """Return a claim.

    Raises:
        ConfigError: there is no such claim.
    """
    claims = all_claims()
    if name not in claims:
        similar = ", ".join(get_close_matches(name, claims)) or "see claims.py of each topic"
        raise ConfigError(f"unknown claim {name!r}; similar names: {similar}")
    return claims[name]


def sentence(name: str) -> str:
    """Return the sentence of a claim."""
    return " ".join(inspect.getdoc(find(name)).split())


def check(name: str) -> None:
    """Check that the recorded results support a claim.

    Raises:
        ConfigError: there is no such claim.
        ReportError: the claim is false.
    """
    from .studies import load_study

    function = find(name)
    studies = [load_study(study) for study in inspect.signature(function).parameters]
    if not function(*studies):
        raise ReportError(f"claim {name!r} is false on the recorded results: {sentence(name)}")


def show(*names: str, profile: str = "recorded"):
    """Return the sentences of claims, as Markdown for a notebook.

    Claims are about the recorded results, whatever the profile; a quick run supports none.

    Args:
        names: names of claims.
        profile: profile of the notebook.

    Raises:
        ConfigError: there is no such claim.
        ReportError: a claim is false.
    """
    from IPython.display import Markdown

    for name in names:
        check(name)
    lines = [f"- ✓ {sentence(name)}" for name in names]
    if profile == "quick":
        lines.append(ABOUT_QUICK)
    return Markdown("\n".join(lines))
