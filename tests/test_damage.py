"""Honest damage, by format: each file is refused in one sentence that names it."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_simmat.engine.files.objects import read_objects
from napari_simmat.engine.files.prompts import read_prompts
from napari_simmat.io.readers import read_image
from tests.good_files import GOOD
from tests.opening import IMAGE_SHAPE


def cut(path: Path) -> None:
    """As a copy that broke off."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def cut_early(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:12])


def cut_late(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def with_another_beginning(path: Path) -> None:
    path.write_bytes(b"\0" * 8 + path.read_bytes()[8:])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    """As a copy of which the disk kept the length alone."""
    path.write_bytes(bytes(path.stat().st_size))


def text(path: Path) -> None:
    path.write_text("These are the notes on the images of Monday.\n" * 20)


def web_page(path: Path) -> None:
    """As a download that needed a login."""
    path.write_text("<!DOCTYPE html><html><body>Please log in.</body></html>\n" * 10)


def table(path: Path) -> None:
    path.write_text("name,size\na,1\n")


def half_a_zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04\x14\0\0\0\x08\0" + os.urandom(300))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("moved away"))


def not_readable(path: Path) -> None:
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")


Damage = Callable[[Path], None]
CUT: tuple[Damage, ...] = (cut, cut_early, cut_late)
OTHER: tuple[Damage, ...] = (
    emptied, zeroed, text, web_page, table, half_a_zip, folder, link_to_nowhere, not_readable,
)  # fmt: skip
DAMAGE = (*CUT, with_another_beginning, *OTHER)
CONTENT = (*CUT, emptied, zeroed, text, web_page, table, half_a_zip)
"""Damage that leaves a file in its place."""
IMAGES = ("TIFF", "OME-TIFF", "PNG", "JPEG", "BMP", "npy", "NIfTI", "DICOM", "NRRD, MetaImage")


def written(files: dict[str, bytes], folder: Path) -> Path:
    """Write files into a folder; returns the first, which is the one to open."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder / next(iter(files))


def check_is_one_sentence(error: Exception, name: str) -> None:
    sentence = str(error)
    assert name in sentence
    assert sentence.endswith(".")
    assert not re.search(r"\n|[.!?] [A-Z]|0x[0-9a-f]{8}|Traceback", sentence), sentence


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("kind", IMAGES)
def test_damaged_image_is_refused_or_read_as_it_was(kind, damage, tmp_path):
    """Nothing is guessed in silence: pages that are missing are named in a note."""
    for number, files in enumerate(GOOD[kind]()):
        path = written(files, tmp_path / str(number))
        whole = np.asarray(read_image(path).data)
        damage(path)
        try:
            file = read_image(path)
            same = np.array_equal(file.data, whole)
        except (ValueError, FileNotFoundError) as refusal:
            check_is_one_sentence(refusal, path.name)
        else:
            assert same or re.search("breaks off|are missing", " ".join(file.notes))


@pytest.mark.parametrize("damage", CONTENT, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("part", ["a chunk", "its description"])
def test_damaged_zarr_is_refused(part, damage, tmp_path):
    wanted = r"/0[./]0[./]0$" if part == "a chunk" else r"zarray|zarr\.json"
    for number, files in enumerate(GOOD["Zarr"]()):
        written(files, tmp_path / str(number))
        damage(tmp_path / str(number) / next(name for name in files if re.search(wanted, name)))
        with pytest.raises(ValueError, match=r"a\.zarr") as refused:
            np.asarray(read_image(tmp_path / str(number) / "a.zarr").data)
        check_is_one_sentence(refused.value, "a.zarr")


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["a_coco.json", "a_rois.zip", "a_objects.geojson"])
def test_damaged_objects_are_refused(name, damage, tmp_path):
    [files] = [files for files in GOOD["prompts"]() if name in files]
    path = written(files, tmp_path)
    damage(path)
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        read_objects(path, IMAGE_SHAPE)
    check_is_one_sentence(refused.value, name)


@pytest.mark.parametrize("damage", OTHER, ids=lambda damage: damage.__name__)
def test_table_of_prompts_that_is_none_is_refused(damage, tmp_path):
    for number, files in enumerate(GOOD["prompts"]()[:2]):
        path = written(files, tmp_path / str(number))
        damage(path)
        with pytest.raises((ValueError, FileNotFoundError)) as refused:
            read_prompts(path, IMAGE_SHAPE)
        check_is_one_sentence(refused.value, "a.csv")


@pytest.mark.parametrize(("name", "beside"), [("a.mhd", "a.raw"), ("a.ome.tif", "1.tif")])
def test_image_without_a_file_of_it_says_so(name, beside, tmp_path):
    kind = "NRRD, MetaImage" if name == "a.mhd" else "OME-TIFF"
    [files] = [files for files in GOOD[kind]() if beside in files]
    path = written(files, tmp_path)
    (tmp_path / beside).unlink()
    try:
        said = " ".join(read_image(path).notes)
    except ValueError as refusal:
        said = str(refusal)
    assert re.search(r"not one file beside it|1 of its 3 planes are missing", said)
