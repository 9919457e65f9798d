"""`simmat segment`, `evaluate` and `train` on small data: outputs are as recorded.

On a machine like the one that recorded them (`machine`: the same processor, vector units and
versions of the libraries) all bytes are equal: labels, tables, records without their `run` block,
loss and IoU of each of 20 training steps, and each tensor of the checkpoints. Elsewhere floats are
rounded in another order, so each label has an IoU above 0.99 with the recorded one, numbers agree
within 2 % (or 0.02), and everything else is equal; hashes are not looked at.

``python -m tests.golden.record`` records, where a change is meant;
``python -m tests.golden.compare OLD NEW`` compares two working trees on any one machine.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.golden.compare import differences, run
from tests.golden.machine import machine

OUTPUTS = Path(__file__).with_name("outputs")
MACHINE = Path(__file__).with_name("outputs_machine.json")


def test_outputs_are_as_they_were(tmp_path: Path) -> None:
    run("tests.golden.commands", tmp_path)
    exact = json.loads(MACHINE.read_text("utf-8")) == machine()
    lines = list(differences(OUTPUTS, tmp_path, exact=exact))
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("points/discs_objects.csv", b"\n1,", b"\n3,", "expected '1'"),
        ("train/net-training/log.csv", b"\r\n1,", b"\r\n1,9", "expected"),
        ("train/net.safetensors.txt", b'"lora"', b'"adapter"', "expected 'lora'"),
    ],
)
@pytest.mark.parametrize("exact", [True, False])
def test_a_change_is_seen(
    name: str, old: bytes, new: bytes, says: str, exact: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "outputs"
    shutil.copytree(OUTPUTS, folder)
    assert not list(differences(OUTPUTS, folder, exact=exact))
    content = (folder / name).read_bytes()
    assert content.count(old)
    (folder / name).write_bytes(content.replace(old, new, 1))
    lines = list(differences(OUTPUTS, folder, exact=exact))
    assert lines
    assert all(line.startswith(name) for line in lines)
    assert exact or says in lines[0]


def test_a_shifted_outline_and_a_missing_file_are_seen(tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    shutil.copytree(OUTPUTS, folder)
    labels = tifffile.imread(folder / "points" / "discs_labels.tif")
    tifffile.imwrite(folder / "points" / "discs_labels.tif", np.roll(labels, 1, 1))
    (folder / "auto" / "discs.json").unlink()
    lines = list(differences(OUTPUTS, folder, exact=False))
    assert lines[0] == "auto/discs.json is in one of the folders only"
    assert "label 1 has an IoU of 0.9" in "".join(lines)
