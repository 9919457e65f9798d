"""Rows of a test that only the nightly run takes."""

from collections.abc import Iterable
from typing import Any

import pytest


def nightly_but(rows: Iterable[Any], *always: Any) -> list[Any]:
    """The rows of a parametrized test, all marked ``slow`` but those that each commit runs."""
    listed = list(rows)
    assert set(always) <= set(listed), "a row that is always run is one of the rows"
    return [row if row in always else _slow(row) for row in listed]


def _slow(row: Any) -> Any:
    values = row if isinstance(row, tuple) else (row,)
    return pytest.param(*values, marks=pytest.mark.slow)
