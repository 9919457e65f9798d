"""The codec: values to JSON and back, and the rules of annotations."""

import json
import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pytest

from napari_simmat.io.plain import (
    FLAT,
    OMIT_DEFAULT,
    check_fields,
    from_plain,
    parse_json,
    to_plain,
)


class Size(NamedTuple):
    height: int
    width: int = 1


@dataclass(frozen=True)
class Inner:
    share: Annotated[float, {"above": 0, "max": 1}] = 0.5
    names: tuple[int | str, ...] | None = None


@dataclass(frozen=True)
class Settings:
    count: Annotated[int, {"min": 0, "max": 9}]
    inner: Annotated[Inner, FLAT] = field(default_factory=Inner)
    kind: Annotated[Literal["a", "b"] | None, {"noun": "Kind of setting"}] = "a"
    size: Size = field(default_factory=partial(Size, 1, 2))
    weight: Annotated[float, {"min": 0, "below": math.inf}] = 0.0
    pair: tuple[str, bool] = ("", True)
    steps: Annotated[tuple[int, ...], {"min": 1}] = ()
    by_number: dict[int, tuple[Inner | None, ...]] = field(default_factory=dict)
    path: Path = Path()
    later: Annotated[int | None, OMIT_DEFAULT] = None

    def __post_init__(self) -> None:
        check_fields(self)


OTHER = Settings(
    3, Inner(1.0, ("DAPI", 2)), None, Size(3), 2, ("x", False), (1, 2),
    {7: (Inner(), None)}, Path("a/b"), 5,
)  # fmt: skip


@pytest.mark.parametrize("value", [Settings(0), OTHER])
def test_plain_after_json_gives_the_same_value(value):
    assert from_plain(Settings, json.loads(json.dumps(to_plain(value)))) == value


def test_to_plain_flattens_and_omits_as_annotated():
    values = to_plain(Settings(0))
    assert list(values)[:4] == ["count", "share", "names", "kind"]
    assert "later" not in values
    assert values["size"] == {"height": 1, "width": 2}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"other": 1}, "The value has an unknown entry 'other'"),
        ({"count": "3"}, "count must be a whole number"),
        ({"count": True}, "count must be a whole number"),
        ({"count": 10}, "count must be between 0 and 9"),
        ({"kind": "c"}, "kind must be 'a' or 'b'"),
        ({"share": None}, "share must be a number"),
        ({"share": 0}, "share must be above 0 and at most 1"),
        ({"names": [1.5]}, r"names\[0\] must be a whole number or text"),
        ({"names": {}}, "names must be a list"),
        ({"size": {"width": 2}}, "size lacks 'height'"),
        ({"weight": math.inf}, "weight must be at least 0 and finite"),
        ({"pair": ["x"]}, "pair must be a list of 2"),
        ({"steps": [1, 0]}, r"steps\[1\] must be at least 1"),
        ({"by_number": {"7": [3]}}, r"by_number: 7\[0\] must be a table"),
        ({"path": 3}, "path must be a path"),
    ],
)
def test_from_plain_refuses_what_does_not_fit(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_plain(Settings, {**to_plain(OTHER), **change})


def test_special_converts_types_that_the_codec_does_not_know():
    special = {np.ndarray: lambda array: array.tolist(), float: lambda x: x if x == x else None}
    assert to_plain((np.arange(2), math.nan), special) == [[0, 1], None]
    back = {np.ndarray: np.asarray, float: lambda x: math.nan if x is None else x}
    array, number = from_plain(tuple[np.ndarray | None, float], [[0, 1], None], special=back)
    assert array.tolist() == [0, 1]
    assert math.isnan(number)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"count": -1}, "count must be between 0 and 9, got -1"),
        ({"kind": "c"}, "Kind of setting 'c' is unknown; use one of a, b"),
        ({"weight": math.nan}, "weight must be at least 0 and finite, got nan"),
        ({"steps": (0,)}, "steps must be at least 1, got 0"),
    ],
)
def test_check_fields_names_the_broken_rule(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Settings(**{"count": 1, **change})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "The file is not JSON"),
        ("NaN", "holds NaN where a finite number belongs"),
        ("1e999", "holds 1e999 where a finite number"),
        ("9" * 5000, "a number that is too large"),
        ("[" * 100_000, "The file is nested too deeply"),
    ],
)
def test_parse_json_refuses_hostile_text(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse_json(text, "The file")
