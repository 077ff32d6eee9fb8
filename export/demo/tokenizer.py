"""Small tokenizers made from a given text: CLIP's byte-level BPE, and BERT's word pieces."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer, CLIPTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

START, END = "<|startoftext|>", "<|endoftext|>"
SUFFIX = "</w>"


def learn_merges(texts: Iterable[str], vocabulary_limit: int) -> list[tuple[str, str]]:
    """Learn BPE merges, at most as many as the vocabulary with its bytes and specials allows."""
    learner = Tokenizer(models.BPE(end_of_word_suffix=SUFFIX))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_limit,
        min_frequency=1,
        end_of_word_suffix=SUFFIX,
        show_progress=False,
    )
    learner.train_from_iterator(sorted(set(texts)), trainer)
    merges = json.loads(learner.to_str())["model"]["merges"]
    room = vocabulary_limit - 2 * len(pre_tokenizers.ByteLevel.alphabet()) - 2
    return [(left, right) for left, right in merges][:room]


def build_tokenizer(
    texts: Iterable[str], *, max_length: int = 32, vocabulary_limit: int = 1000
) -> CLIPTokenizer:
    """Train a tokenizer in the layout of CLIP's own.

    The ids are the byte symbols, the byte symbols that end a word, the merges in order, and the
    two specials last, so any text can be encoded.
    """
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = learn_merges(texts, vocabulary_limit)
    tokens = [*symbols, *(s + SUFFIX for s in symbols), *(a + b for a, b in merges), START, END]
    vocabulary = {token: at for at, token in enumerate(dict.fromkeys(tokens))}
    # The annotation of `merges` knows lines of text only; pairs are what BPE takes.
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,  # type: ignore[arg-type]
        model_max_length=max_length,
    )


def build_word_pieces(texts: Iterable[str], *, max_length: int) -> BertTokenizer:
    """A tokenizer in the layout of BERT's, with every word of the texts as a token.

    Other words fall into letters, digits and signs; only what is none of those is unknown.
    """
    normal = normalizers.BertNormalizer()
    words = {
        word
        for text in texts
        for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(
            normal.normalize_str(text)
        )
    }
    signs = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    specials = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    tokens = [*specials, *signs, *("##" + sign for sign in signs), *sorted(words)]
    vocabulary = {token: at for at, token in enumerate(dict.fromkeys(tokens))}
    return BertTokenizer(vocab=vocabulary, model_max_length=max_length)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the tokenizer, and check that both libraries read the same ids back."""
    # Padding and truncation of the last call would be saved with it.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)
    sample = "a picture of a Small red circle, and 2 unheard-of things"
    ids = tokenizer(sample)["input_ids"]
    for other in (
        type(tokenizer).from_pretrained(folder)(sample)["input_ids"],
        Tokenizer.from_file(str(folder / "tokenizer.json")).encode(sample).ids,
    ):
        if other != ids:
            raise RuntimeError(f"the saved tokenizer in {folder} gives other ids: {other} != {ids}")
