"""Class and ink of Fashion-MNIST, predicted by one network."""

from .config import MultiTaskConfig

Config = MultiTaskConfig
