import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from napari_simmat.checkpoints.checkpoint import read_description


def test_read_description_gives_what_was_written(tiny_spec):
    spec = replace(tiny_spec, training={"epochs": 5, "rates": [1e-3, None]}, metrics={"iou": 0.7})
    assert read_description(spec.to_json()) == spec


def changed(*path: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(values: Any) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = to

    return change


BAD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "newer": (changed("format_version", to=99), "has format 99, this version reads up to 1"),
    "no version": (lambda v: v.pop("format_version"), "has no format version"),
    "version true": (changed("format_version", to=True), "has no format version"),
    "version 0": (changed("format_version", to=0), "has no format version"),
    "unknown entry": (changed("code", to="x"), "has an unknown entry 'code'"),
    "unknown in base": (changed("base", "url", to="x"), "base has an unknown entry 'url'"),
    "lacks channels": (lambda v: v.pop("channels"), "lacks 'channels'"),
    "lacks a mean": (lambda v: v["channels"][1].pop("mean"), r"channels\[1\] lacks 'mean'"),
    "name a number": (changed("name", to=3), "name must be text"),
    "channels a table": (changed("channels", to={}), "channels must be a list"),
    "no channel": (changed("channels", to=[]), "names no channel"),
    "mean text": (changed("channels", 0, "mean", to="1"), r"channels\[0\]: mean must be a number"),
    "mean true": (changed("channels", 0, "mean", to=True), "mean must be a number"),
    "std 0": (changed("channels", 0, "std", to=0), "standard deviation of 0"),
    "joint a number": (changed("normalization", "joint", to=1), "joint must be true or false"),
    "size a fraction": (changed("input_size", "size", to=9.5), "size must be a whole number"),
    "size huge": (changed("input_size", "size", to=10**9), "size must be at most 8192"),
    "minimum huge": (
        changed("input_size", to={"method": "native", "size": 8192, "minimum": 8192}),
        "minimum must be at most 512",
    ),
    "multiple huge": (changed("input_size", "multiple", to=8192), "multiple must be at most 256"),
    "multiple odd": (changed("input_size", "multiple", to=52), "multiple must be a multiple of 32"),
    "stretched huge": (
        changed("input_size", to={"method": "stretch", "size": 8192}),
        "size must be at most 1024",
    ),
    "unknown method": (changed("input_size", "method", to="x"), "method must be 'longest' or"),
    "method a list": (changed("input_size", "method", to=[]), "method must be 'longest' or"),
    "hash short": (changed("base", "sha256", to="12ab"), "sha256 must be 64 hexadecimal digits"),
    "hash a path": (changed("base", "sha256", to="/" * 64), "sha256 must be 64 hexadecimal"),
    "metrics a list": (changed("metrics", to=[]), "metrics must be a table"),
    "escape codes": (changed("description", to="\x1b[2J"), "without control characters"),
    "escapes inside": (changed("training", to={"a": ["\x07"]}), "without control characters"),
    "long text": (changed("author", to="x" * 10_001), "at most 10000 characters"),
    "many channels": (
        lambda v: v.update(channels=[{**v["channels"][0], "name": str(n)} for n in range(1025)]),
        "channels must be at most 1024 entries",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_read_description_of_bad_values_is_refused(case, tiny_spec):
    change, sentence = BAD[case]
    values = json.loads(tiny_spec.to_json())
    change(values)
    with pytest.raises(ValueError, match=sentence):
        read_description(json.dumps(values))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not JSON"),
        ("[]", "is not a table"),
        ("null", "is not a table"),
        ("{'a': 1}", "is not JSON"),
        ('{"a": NaN}', "holds NaN where a finite number belongs"),
        ('{"a": -Infinity}', "holds -Infinity where a finite number"),
        ('{"a": 1e999}', "holds 1e999 where a finite number"),
        ('{"a": ' + "9" * 5000 + "}", "a number that is too large"),
        ("[" * 100_000, "nested too deeply"),
        (" " * 1_100_000, "more than 1048576"),
    ],
)
def test_read_description_of_other_text_is_refused(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_description(text)
