"""Which file of a folder holds the labels of which image."""

import logging

import numpy as np
import pytest
import tifffile

from napari_simmat.datasets.folder import find_labeled_files
from napari_simmat.datasets.label_folder import ENDINGS, check_complete, match_label_files


def write(*paths):
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(path, np.eye(4, dtype=np.uint8))


@pytest.fixture
def files(tmp_path):
    """Images a and a_seg with their labels."""
    for stem in ("a", "a_seg"):
        write(tmp_path / "data" / f"{stem}.tif", tmp_path / "data" / f"{stem}_labels.tif")
    return find_labeled_files(tmp_path / "data")


@pytest.mark.parametrize("ending", [ending for ending in ENDINGS if ending != "_seg"])
def test_label_image_is_named_after_its_image(tmp_path, files, ending):
    path = tmp_path / "other" / f"a{ending}.tif"
    write(path)
    assert match_label_files(path.parent, files) == {"a": path}


def test_name_that_fits_two_images_belongs_to_the_longer(tmp_path, files):
    other = tmp_path / "other"
    write(other / "a.tif", other / "a_seg.tif")
    assert match_label_files(other, files) == {
        "a": other / "a.tif",
        "a_seg": other / "a_seg.tif",
    }


def test_two_label_images_of_one_image_are_refused(tmp_path, files):
    other = tmp_path / "other"
    write(other / "a_cp_masks.tif", other / "a_masks.tif")
    with pytest.raises(ValueError, match=r"a_cp_masks\.tif and a_masks\.tif in .*keep one"):
        match_label_files(other, files)


def test_cellpose_writes_beside_the_images(tmp_path, files):
    data = tmp_path / "data"
    write(data / "a_cp_masks.tif", data / "a_seg_cp_masks.tif")
    (data / "a_seg.npy").write_bytes(b"objects of Python")
    assert {path.name for path in match_label_files(data, files).values()} == {
        "a_cp_masks.tif",
        "a_seg_cp_masks.tif",
    }


def test_files_of_no_image_are_noted(tmp_path, files, caplog):
    other = tmp_path / "other"
    write(other / "a.tif", other / "b.tif", other / "a_1.tif")
    (other / "notes.txt").write_text("not an image")
    with caplog.at_level(logging.WARNING):
        found = match_label_files(other, files)
    assert list(found) == ["a"]
    assert "2 files in" in caplog.text
    assert "left out: a_1.tif, b.tif." in caplog.text


def test_missing_label_images_are_named(tmp_path, files):
    other = tmp_path / "other"
    write(other / "a.tif")
    found = match_label_files(other, files)
    with pytest.raises(ValueError, match=r"no label image of 1 image of 2 \(a_seg\)"):
        check_complete(other, found, files)


def test_folder_without_label_images_is_refused(tmp_path, files):
    write(tmp_path / "other" / "b.tif")
    with pytest.raises(ValueError, match=r"No file in .* is named after an image"):
        match_label_files(tmp_path / "other", files)
    with pytest.raises(ValueError, match="is a file; give the folder"):
        match_label_files(tmp_path / "other" / "b.tif", files)
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        match_label_files(tmp_path / "none", files)
