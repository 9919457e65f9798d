import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from napari_simmat.checkpoints.catalog import PUBLISHED_WEIGHTS
from napari_simmat.checkpoints.registry import find_model, list_models, name_problem
from napari_simmat.io import files


@pytest.fixture
def models(user_folder):
    folder = user_folder / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def bases(user_folder):
    folder = user_folder / "bases"
    folder.mkdir()
    return folder


def test_list_models_gives_all_kinds_with_their_cards(assets, models):
    shutil.copy(assets / "polarization.safetensors", models / "my camera.safetensors")
    entries = {entry.name: entry for entry in list_models()}
    assert {name: entry.kind for name, entry in entries.items()} == {
        "tiny-1": "built in",
        "polarization": "built in",
        **dict.fromkeys(PUBLISHED_WEIGHTS, "downloadable"),
        "my camera": "own",
    }
    for entry in entries.values():
        assert entry.problem is None
        assert entry.spec.name == entry.name
        assert (entry.path is None) == (entry.kind == "downloadable")
    assert entries["vit_b"].size_bytes == 375_042_383
    assert entries["tiny-1"].size_bytes == (assets / "tiny-1.safetensors").stat().st_size
    own = entries["my camera"].spec
    assert own.channel_names == ("0 deg", "45 deg", "90 deg", "135 deg")
    assert own.metrics == {"iou_click": 0.7}
    assert own.license == "BSD-3-Clause"
    assert {name for name, entry in entries.items() if entry.is_base} == {
        "tiny-1",
        *PUBLISHED_WEIGHTS,
    }


def test_list_models_gives_those_of_the_package():
    shipped = sorted(path.stem for path in files.ASSETS.glob("*.safetensors"))
    listed = [entry for entry in list_models() if entry.kind == "built in"]
    assert sorted(entry.name for entry in listed) == shipped
    assert [entry.problem for entry in listed] == [None] * len(shipped)


def test_list_models_without_a_user_folder_gives_the_rest(assets, user_folder):
    user_folder.rmdir()
    assert [entry.name for entry in list_models()][:2] == ["polarization", "tiny-1"]
    assert not user_folder.exists()  # looking makes nothing


def test_list_models_knows_a_download_by_its_file(assets, bases):
    row = PUBLISHED_WEIGHTS["vit_b"]
    with (bases / row.file).open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(row.size)
    entry = find_model("vit_b")
    assert (entry.kind, entry.path, entry.problem) == ("downloaded", bases / row.file, None)
    (bases / row.file).write_bytes(b"PK\x03\x04")
    problem = find_model("vit_b").problem
    assert "has 4 bytes instead of 375 MB. Run `simmat models fetch vit_b` again" in problem


def test_list_models_gives_unreadable_files_their_problem(assets, models):
    (models / "text.safetensors").write_text("not a model, but a text of some length")
    (models / "empty.safetensors").write_bytes(b"")
    (models / "folder.safetensors").mkdir()
    (models / "dangling.safetensors").symlink_to(models / "nowhere")
    (models / "notes.txt").write_text("no model and not listed")
    (models / ".hidden.safetensors").write_text("a write under way")
    own = {entry.name: entry for entry in list_models() if entry.kind == "own"}
    assert set(own) == {"text", "empty", "folder", "dangling"}
    assert "neither a checkpoint" in str(own["text"].problem)
    assert "is empty (0 bytes)" in str(own["empty"].problem)
    assert "is a folder" in str(own["folder"].problem)
    assert "There is no file" in str(own["dangling"].problem)


def test_list_models_of_an_unreadable_folder_warns(assets, models, monkeypatch, caplog):
    listing = Path.iterdir

    def refuse(folder):
        if folder == models:
            raise PermissionError(13, "Permission denied")
        return listing(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert "tiny-1" in [entry.name for entry in list_models()]
    assert "cannot be read (Permission denied)" in caplog.text


def test_list_models_with_two_of_a_name_refuses_both(assets, models, bases):
    shutil.copy(assets / "polarization.safetensors", models / "mine.safetensors")
    shutil.copy(assets / "tiny-1.safetensors", bases / "Mine.safetensors")
    own = [entry for entry in list_models() if entry.kind == "own"]
    assert len(own) == 2
    for entry in own:
        assert "Several files are called" in entry.problem
        assert "models/mine.safetensors" in entry.problem
        assert "bases/Mine.safetensors" in entry.problem


def test_list_models_refuses_an_own_file_of_a_built_in_name(assets, models):
    shutil.copy(assets / "polarization.safetensors", models / "tiny-1.safetensors")
    entry = next(entry for entry in list_models() if entry.kind == "own")
    assert "is the name of a built-in model" in str(entry.problem)
    assert find_model("tiny-1").kind == "built in"


def test_find_model_without_version_gives_the_newest(assets, models):
    for version in ("2", "10", "rgb-3"):
        shutil.copy(assets / "tiny-1.safetensors", assets / f"tiny-{version}.safetensors")
    shutil.copy(assets / "tiny-1.safetensors", models / "tiny-99.safetensors")
    assert find_model("tiny").name == "tiny-10"
    assert find_model("tiny-2").name == "tiny-2"
    assert find_model("tiny-rgb").name == "tiny-rgb-3"


@pytest.mark.parametrize(
    ("wrong", "right"), [("tyni", "tiny"), ("polarizatio", "polarization"), ("vit-b", "vit_b")]
)
def test_find_model_of_unknown_name_gives_the_nearest(wrong, right, assets):
    with pytest.raises(ValueError, match=f"There is no model called '{wrong}'") as caught:
        find_model(wrong)
    assert f"Did you mean {right}?" in str(caught.value)
    assert "Known are tiny, polarization, tiny-1, vit_b, vit_l, vit_h, vit_t, " in str(caught.value)


def test_find_model_by_path_gives_the_file(assets, tmp_path):
    path = tmp_path / "shared model.safetensors"
    shutil.copy(assets / "polarization.safetensors", path)
    for given in (path, str(path)):
        entry = find_model(given)
        assert (entry.name, entry.path, entry.problem) == ("shared model", path, None)
        assert entry.spec.name == "shared model"


@pytest.mark.parametrize("name", ["nowhere/model", "nowhere.safetensors", "nowhere.pth"])
def test_find_model_of_missing_file_is_refused(name, assets, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        find_model(str(tmp_path / name))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("../evil", "a/b", "a\\b", "c:x"), "none of them of /"),
        (("", "x" * 101), "must have 1 to 100 characters"),
        (("a\nb",), "a control character"),
        (("..", ".hidden"), "must not start or end with a dot"),
        (("trailing ",), "must not start or end with a dot or space"),
        (("NUL", "com1.x"), "a device's name"),
        (("tiny", "Tiny-1", "VIT_B", "polarization"), "is the name of a built-in model"),
        (("my camera (2).v3", "näher", "tiny-42", "DAPI+GFP"), "None"),
    ],
)
def test_name_problem_of_impossible_name_says_why(names, sentence, assets):
    for name in names:
        assert sentence in str(name_problem(name)), name


def test_list_models_imports_no_torch(assets):
    program = (
        "import sys; from napari_simmat.checkpoints.registry import list_models; list_models(); "
        "print([n for n in ('torch', 'requests') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
