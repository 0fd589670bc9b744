"""The layers of the language, a file a family. Importing this package fills the register."""

from neural.layers import activation, attention, dense, embedding, merging, normalization, reshaping
from neural.layers.layer import REGISTRY

__all__ = ["REGISTRY", "activation", "attention", "dense", "embedding", "merging", "normalization", "reshaping"]
