"""Three steps of `simmat pretrain` leave what was recorded, on any machine of the same kind.

``python -m research.tests.golden.record commands`` records, where a change is meant.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden.compare import differences, run
from tests.golden.machine import machine

OUTPUTS = Path(__file__).with_name("outputs")
MACHINE = Path(__file__).with_name("outputs_machine.json")


@pytest.mark.slow
def test_outputs_of_a_pretraining_are_as_they_were(tmp_path: Path) -> None:
    run("research.tests.golden.commands", tmp_path)
    exact = json.loads(MACHINE.read_text("utf-8")) == machine()
    lines = list(differences(OUTPUTS, tmp_path, exact=exact))
    assert not lines, "\n".join(lines)
