"""A byte-level tokenizer for tiny models, trained on a few lines."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers


def train_bpe(lines: Sequence[str], size: int, special: Sequence[str]) -> Tokenizer:
    """A vocabulary of `size` at most: the special tokens, every byte, and the pairs that `lines` have most."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), initial_alphabet=alphabet)
    )
    return trained
