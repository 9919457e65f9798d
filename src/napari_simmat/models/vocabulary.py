"""The vocabulary of a network that reads words: text to numbers of its pieces.

It is the user's ``tokenizer.json``, as the Hugging Face Hub has it beside the weights of SAM 3.
`tokenizers` reads it; it comes with `transformers`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from napari_simmat._text import import_problem
from napari_simmat.io.files import format_size

MAX_BYTES = 20_000_000
"""A larger file is none; that of SAM 3 has 4 MB."""
START, END = "<|startoftext|>", "<|endoftext|>"
NEEDS_TOKENIZERS = (
    'Words need the package tokenizers; install it (pip install "transformers>=5.18,<6").'
)
NO_VOCABULARY = (
    "{name} cannot read words: its vocabulary is missing. Save tokenizer.json of "
    "https://huggingface.co/facebook/sam3 as {path}."
)
NOT_A_VOCABULARY = (
    "{} is no vocabulary of SAM 3: {}. Take tokenizer.json of https://huggingface.co/facebook/sam3."
)


def pieces_of(words: str, path: Path, most: int, known: int) -> list[int]:
    """The numbers of the pieces of some words, with those of start and end.

    Parameters
    ----------
    words
        One line of text, e.g. ``"yellow leaf"``.
    path
        The vocabulary.
    most
        Pieces that the network reads at once.
    known
        Pieces that the network knows; numbers are below.

    Raises
    ------
    ValueError
        If there are more pieces, the file is no vocabulary of the network, or a package is missing.
    OSError
        If the file cannot be read.
    """
    found = path.stat()
    tokenizer = _tokenizer(path, found.st_size, found.st_mtime_ns)
    ends = [tokenizer.token_to_id(each) for each in (START, END)]
    if None in ends:
        raise ValueError(NOT_A_VOCABULARY.format(path.name, f"it lacks {START} or {END}"))
    pieces = tokenizer.encode(words, add_special_tokens=False).ids
    if not pieces:
        raise ValueError(f"{words!r} holds no word; name what to look for, e.g. 'leaf'.")
    numbers = [ends[0], *pieces, ends[1]]
    if len(numbers) > most:
        raise ValueError(
            f"{words[:60]!r} has {len(pieces)} pieces of words, the model reads up to {most - 2}; "
            "name what to look for in fewer words."
        )
    if max(numbers) >= known:
        fault = f"it has a piece number {max(numbers)}, the model knows {known}"
        raise ValueError(NOT_A_VOCABULARY.format(path.name, fault))
    return numbers


@lru_cache(maxsize=2)
def _tokenizer(path: Path, size: int, _changed: int) -> Any:
    """Read a vocabulary once per size and modification time."""
    if size > MAX_BYTES:
        raise ValueError(NOT_A_VOCABULARY.format(path.name, f"it has {format_size(size)}"))
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ValueError(import_problem(error, "tokenizers", NEEDS_TOKENIZERS)) from error
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except OSError:
        raise
    except Exception as error:  # of Rust, without a class of its own
        fault = f"it cannot be read ({str(error)[:80]})"
        raise ValueError(NOT_A_VOCABULARY.format(path.name, fault)) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
