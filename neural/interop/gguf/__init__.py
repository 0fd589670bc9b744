"""GGUF, the one-file format of llama.cpp: weights (often quantised), configuration and tokenizer together."""

from neural.interop.gguf.reading import read
from neural.interop.gguf.writing import write

__all__ = ["read", "write"]
