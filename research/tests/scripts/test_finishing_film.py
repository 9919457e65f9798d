"""The script that finishes an image in the window: its user, on a viewer without one."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.widgets.hands import Headless
from tests.widgets.scenes import discs, gray

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "finishing_film.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("finishing_film", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def user(script, qtbot):
    hands = Headless(qtbot)
    hands.open(gray(), name="discs")
    yield script.User(hands, discs()[1])
    hands.close()


def test_everything_commits_every_object_and_counts_each_press(user):
    user.finish_by_drafts()
    outcome = user.outcome()
    assert outcome["done"] == outcome["objects"] == 4
    assert not user.given_up
    assert outcome["actions"] == user.actions.total()
    presses = outcome["actions"] - user.actions["boxes"]
    acting = 1.2 * presses + 2.5 * user.actions["boxes"] + 0.5 * 4
    assert user.time.acting == pytest.approx(acting)
    assert outcome["seconds"] == pytest.approx(acting + user.time.waited, abs=0.1)


def test_wrong_draft_is_rejected_and_missing_object_is_boxed(script, user):
    user.everything()
    labels = user.knows.labels
    fewer = script.User(user.hands, np.where(labels == 2, 0, labels))
    fewer.reject()
    assert fewer.actions == {"keys": 1}
    assert user.missing() == [2]


def test_film_ends_with_a_hand_and_says_what_was_counted(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "WORK", tmp_path)
    monkeypatch.setattr(script, "FILM", tmp_path / "film.webp")
    monkeypatch.setattr(script, "KEPT", tmp_path / "kept.json")
    counts = {"objects": 4, "done": 1, "actions": 2, "seconds": 61.0}
    about = {"said": "{objects} things", "milliseconds": 100, "faster": False, **counts}
    abouts = [about, {**about, "done": 4, "actions": 5}]
    for number in range(2):
        Image.new("RGB", script.SIZE, (50 * number,) * 3).save(tmp_path / f"{number:04d}.png")
    (tmp_path / "pictures.json").write_text(json.dumps(abouts))
    result = {"everything": abouts[1], "by hand": {"objects": 4, "seconds": 125.0}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    script.cut()
    assert script.counted(abouts[0]) == "1 object, 1:01 min"
    assert json.loads(script.KEPT.read_text())["everything"]["actions"] == 5
    with Image.open(script.FILM) as film:
        assert film.n_frames >= 3
        assert np.array(film.convert("RGB")).max() == 255
