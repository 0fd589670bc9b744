"""Tokenizers: GPT-2's, characters, bytes, and BPE trained on the user's text."""

from neural.data.tokenizers.bpe import train_bpe
from neural.data.tokenizers.loading import load_tokenizer
from neural.data.tokenizers.stream import StreamDecoder
from neural.data.tokenizers.tokenizer import Tokenizer

__all__ = ["StreamDecoder", "Tokenizer", "load_tokenizer", "train_bpe"]
