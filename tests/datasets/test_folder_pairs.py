"""Pairs of images and label images in a folder."""

import os
import sys

import numpy as np
import pytest
import tifffile

from napari_simmat.datasets.folder import find_labeled_files, fingerprint


def test_find_labeled_files_takes_folders_images_and_labels(labeled):
    (labeled / "images").mkdir()
    (labeled / "labels").mkdir()
    for name in "ab":
        (labeled / f"{name}.tif").rename(labeled / "images" / f"{name}.tif")
        (labeled / f"{name}_labels.tif").rename(labeled / "labels" / f"{name}.tif")
    files = find_labeled_files(labeled)
    assert [file.name for file in files] == ["a", "b"]
    assert files[0].read().labels.max() == 300


@pytest.mark.parametrize(("gone", "left"), [("b_labels.tif", "b.tif"), ("b.tif", "b_labels.tif")])
def test_find_labeled_files_warns_of_a_lone_half(labeled, caplog, gone, left):
    (labeled / gone).unlink()
    (labeled / "README.md").write_text("not an image")
    (labeled / "b.json").write_text("{}")
    assert [file.name for file in find_labeled_files(labeled)] == ["a"]
    assert left in caplog.text


@pytest.mark.parametrize(
    ("image", "labels"),
    [((1, 20, 30), (20, 30)), ((20, 30), (1, 1, 20, 30)), ((1, 3, 20, 30),) * 2],
)
def test_labeled_file_ignores_axes_of_length_one(image, labels, tmp_path):
    """Many programs write OME-Zarr with all five axes."""
    np.save(tmp_path / "a.npy", np.zeros(image, np.uint8))
    np.save(tmp_path / "a_labels.npy", np.ones(labels, np.uint8))
    [file] = find_labeled_files(tmp_path)
    assert file.read().labels.shape == image


@pytest.mark.parametrize("labels", [(30, 20), (2, 20, 30), (3, 30, 20), (3, 20, 30, 1)])
def test_labeled_file_refuses_labels_of_another_shape(labels, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 3, 20, 30), np.uint8))
    np.save(tmp_path / "a_labels.npy", np.ones(labels, np.uint8))
    [file] = find_labeled_files(tmp_path)
    with pytest.raises(ValueError, match=r"a_labels\.npy has the shape .* 1 x 3 x 20 x 30; give"):
        file.read()


def test_find_labeled_files_refuses_two_images_of_one_stem(labeled):
    (labeled / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.png and a\.tif have the same stem"):
        find_labeled_files(labeled)


def test_fingerprint_depends_on_contents(labeled):
    before = fingerprint(find_labeled_files(labeled))
    assert fingerprint(find_labeled_files(labeled)) == before
    tifffile.imwrite(labeled / "a_labels.tif", np.ones((40, 50), np.uint8))
    assert fingerprint(find_labeled_files(labeled)) != before


@pytest.mark.parametrize("mirrored", [False, True])
def test_labeled_file_warns_once_of_other_directions(tmp_path, caplog, mirrored):
    nibabel = pytest.importorskip("nibabel")
    name, labels = f"scan-{mirrored}", np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for kind, x in (("", -0.5), ("_labels", 0.5 if mirrored else -0.5)):
        written = nibabel.Nifti1Image(labels, np.diag([x, 0.5, 2, 1]))
        written.header.set_xyzt_units("mm")
        nibabel.save(written, tmp_path / f"{name}{kind}.nii")
    [file] = find_labeled_files(tmp_path)
    for _ in range(2):
        assert np.array_equal(file.read().labels, labels.T), "as they are stored"
    if mirrored:
        assert caplog.messages == [
            f"By their headers, the voxels of {name}_labels.nii run RAS, those of {name}.nii LAS. "
            "They are used as stored: check whether they match."
        ]
    else:
        assert not caplog.messages


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_fingerprint_takes_names_that_are_not_text(labeled):
    before = fingerprint(find_labeled_files(labeled))
    for ending in (".tif", "_labels.tif"):
        (labeled / f"a{ending}").rename(labeled / os.fsdecode(b"10\xb5m" + ending.encode()))
    assert fingerprint(find_labeled_files(labeled)) != before
