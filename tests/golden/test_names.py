"""Nothing that users, scripts or files rely on has another name than in `names.json`.

Python names, commands with their options and defaults, layers, files, and what napari gets from
the manifest; keys are compared where there is a window. Record with
``python -m tests.golden.record names`` where a name comes in addition, and never lightly else.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import napari_simmat
from tests.golden.names import names

RECORDED = json.loads(Path(__file__).with_name("names.json").read_text("utf-8"))


@pytest.mark.parametrize("kind", ["layers", "environment", "formats", "manifest"])
def test_names_are_as_they_were(kind: str) -> None:
    assert names()[kind] == RECORDED[kind]


def test_commands_and_options_are_as_they_were() -> None:
    found = names()["commands"]
    assert list(found) == list(RECORDED["commands"])
    for command, options in RECORDED["commands"].items():
        assert found[command] == options, command


def test_names_of_files_are_still_there() -> None:
    assert set(RECORDED["files"]) <= set(names()["files"])


def test_python_names_are_as_they_were_and_can_be_imported() -> None:
    assert names()["python"] == RECORDED["python"]
    assert all(hasattr(napari_simmat, name) for name in RECORDED["python"])
