"""Q2: colorization of CIFAR-10 as per-pixel classification into a palette of colours."""

from .config import ColorizationConfig

Config = ColorizationConfig
