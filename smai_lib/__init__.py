"""Helper library of the SMAI assignment 4 notebooks: multi-task learning and colorization."""

from importlib.metadata import version

__version__ = version("smai-lib")
