"""The layers of the language, a file a family. Importing this package fills the register."""

from neural.layers import (  # noqa: F401
    activation,
    attention,
    dense,
    embedding,
    merging,
    multi_head,
    normalization,
    pooling,
    reshaping,
)
from neural.layers.layer import REGISTRY

__all__ = ["REGISTRY"]
