"""Fifty drawn scenes of each family, sensor and layout are those that published figures rest on.

Labels are equal everywhere: they come from seeded geometry, and from thresholds that no scene is
near enough to for rounding to matter. Images are bit-equal on a machine like the one that recorded
them (`machine`); elsewhere their mean and standard deviation agree within `TOLERANCE`. A change
moves published figures; where one is meant, ``python -m research.tests.golden.record scenes``
records.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from research.tests.golden.scenes import COUNT, Golden, golden, groups
from tests.golden.machine import machine

FILE = Path(__file__).with_name("scenes.json")
TOLERANCE = 1e-3
"""Relative, of the standard deviation."""
FEW = 10
RECORDED = json.loads(FILE.read_text("utf-8"))


def check(group: str, count: int) -> None:
    expected = [Golden.from_text(line) for line in RECORDED["groups"][group][:count]]
    drawn = golden(group, count)
    assert len(expected) == count
    labels = [(each.labels, other.labels) for each, other in zip(drawn, expected, strict=True)]
    assert [one for one, _ in labels] == [one for _, one in labels]
    if machine() == RECORDED["machine"]:
        assert drawn == expected
    for one, other in zip(drawn, expected, strict=True):
        near = TOLERANCE * other.deviation
        assert one.mean == pytest.approx(other.mean, abs=near, rel=1e-5)
        assert one.deviation == pytest.approx(other.deviation, abs=near, rel=1e-5)


def test_every_group_is_recorded() -> None:
    assert list(RECORDED["groups"]) == list(groups())
    assert all(len(lines) == COUNT for lines in RECORDED["groups"].values())


@pytest.mark.parametrize("group", groups())
def test_the_first_scenes_are_as_they_were(group: str) -> None:
    check(group, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("group", groups())
def test_all_scenes_are_as_they_were(group: str) -> None:
    check(group, COUNT)
