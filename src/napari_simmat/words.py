"""Numbers of things in sentences."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """``1 object``, ``2 objects``: a number of things whose plural ends with s."""
    return f"{number:d} {noun}{'' if number == 1 else 's'}"


def are(number: int) -> str:
    """``is`` of one thing, ``are`` of others."""
    return "is" if number == 1 else "are"
