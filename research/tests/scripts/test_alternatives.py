"""The script that gives other programs five objects: what it writes, runs and scores."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "alternatives.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("alternatives", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # or its classes do not find their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    """An image of three squares in each group, the first of which was given to the program."""
    labels = np.zeros((40, 60), np.uint16)
    for number in range(3):
        labels[15:25, 20 * number + 5 : 20 * number + 15] = number + 1
    classes = (labels == 1).astype(np.uint8)
    classes[:5] = 3
    for group in ("held_out", "development"):
        for name, values in {
            "data/images": (100 * (labels > 0)).astype(np.uint8),
            "data/labels": labels,
            "taught": np.where(labels == 1, labels, 0),
            "classes": classes,
        }.items():
            path = tmp_path / group / name / "squares.tif"
            path.parent.mkdir(parents=True)
            tifffile.imwrite(path, values)
    return tmp_path


def test_program_is_run_once_and_scored_without_its_objects(script, folder, monkeypatch):
    asked = []

    def second_square(given):
        asked.append(given)
        found = np.zeros(given.classes.shape, np.int32)
        found[15:25, 25:35] = 7
        return found

    monkeypatch.setitem(script.PROGRAMS, "scripted", second_square)
    script.run(folder, "scripted")
    script.run(folder, "scripted")
    assert [given.area for given in asked] == [100, 100]
    assert asked[0].image.shape == (40, 60, 1)
    assert len((folder / "times.jsonl").read_text().splitlines()) == 2
    assert json.loads((folder / "times.jsonl").read_text().splitlines()[0])["program"] == "scripted"
    scores = script.score(folder / "held_out", "scripted")
    assert scores.together.counts == {"objects": 2, "labels": 1}
    assert scores.over_images["found@75"] == scores.over_images["actions"] == 0.5


def test_filters_of_ilastik_are_37_of_which_12_have_two_values(script):
    plane = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    found = list(script.ilastik_filters(plane))
    assert len(found) == 37 + 12
    assert {each.shape for each in found} == {plane.shape}


def test_eigenvalues_are_those_of_numpy(script):
    yy, yx, xx = np.random.default_rng(1).normal(size=(3, 4, 5))
    matrices = np.stack([np.stack([yy, yx], -1), np.stack([yx, xx], -1)], -1)
    smaller, larger = np.moveaxis(np.linalg.eigvalsh(matrices), -1, 0)
    found = list(script.eigenvalues(yy, yx, xx))
    np.testing.assert_allclose(found, [larger, smaller], atol=1e-12)


def test_squares_are_found_on_the_filters_of_ilastik(script, folder):
    pytest.importorskip("sklearn")
    [given] = script.given_images(folder / "held_out")
    assert script.by_ilastik_filters(given).max() == 3
