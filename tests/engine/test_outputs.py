from __future__ import annotations

import csv
import errno
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_simmat.engine.outputs import (
    OutputError,
    OutputFiles,
    label_dtype,
    staged,
    stem_of,
    write_labels_nifti,
    write_labels_tiff,
    write_table,
    write_text,
)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("coins.tif", "coins"),
        ("head.nii.gz", "head"),
        ("HEAD.NII.GZ", "HEAD"),
        ("cells.ome.tif", "cells"),
        ("cells.v2.ome.tiff", "cells.v2"),
        ("a.b.png", "a.b"),
    ],
)
def test_the_stem_is_the_name_without_its_suffix(name: str, stem: str) -> None:
    assert stem_of(Path("folder") / name) == stem


def test_a_nifti_becomes_a_nifti_and_anything_else_a_tiff(tmp_path: Path) -> None:
    assert OutputFiles.of(Path("x/head.nii.gz"), tmp_path).labels == tmp_path / "head_labels.nii.gz"
    assert [path.name for path in OutputFiles.of(Path("x/coins.png"), tmp_path)] == [
        "coins_labels.tif",
        "coins_objects.csv",
        "coins.json",
    ]


@pytest.mark.parametrize(
    ("highest", "dtype"), [(0, "uint16"), (65535, "uint16"), (65536, "uint32")]
)
def test_labels_are_uint16_until_they_do_not_fit(highest: int, dtype: str) -> None:
    assert label_dtype(highest) == dtype


@pytest.mark.parametrize(
    ("axes", "shape"),
    [("YX", (5, 6)), ("ZYX", (3, 5, 6)), ("TZYX", (2, 3, 5, 6)), ("ZTYX", (2, 3, 5, 6))],
)
def test_a_label_tiff_keeps_shape_axes_values_and_pixel_size(
    tmp_path: Path, axes: str, shape: tuple[int, ...]
) -> None:
    labels = np.arange(np.prod(shape)).reshape(shape) * 1000
    path = tmp_path / "labels.tif"
    write_labels_tiff(
        path,
        labels,
        axes=axes,
        scale={"Y": 0.25, "X": 0.5, "Z": 2.0, "T": 3.0},
        units={"Y": "um", "X": "micrometer", "Z": "µm", "T": "s"},
    )
    with tifffile.TiffFile(path) as file:
        assert file.series[0].axes == axes
        assert file.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert file.pages[0].tags["XResolution"].value == (20000, 1)  # per centimetre
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        np.testing.assert_array_equal(file.asarray(), labels)
        assert file.series[0].dtype == label_dtype(int(labels.max()))
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeY"], pixels["PhysicalSizeZ"]) == (
        0.5,
        0.25,
        2,
    )
    assert {pixels[f"PhysicalSize{axis}Unit"] for axis in "XYZ"} == {"µm"}
    assert (pixels["TimeIncrement"], pixels["TimeIncrementUnit"]) == (3, "s")


def test_an_axis_that_ome_does_not_know_is_kept_as_another(tmp_path: Path) -> None:
    labels = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    write_labels_tiff(tmp_path / "labels.tif", labels, axes="IYX")
    with tifffile.TiffFile(tmp_path / "labels.tif") as file:
        assert file.series[0].axes == "QYX"
        np.testing.assert_array_equal(file.asarray(), labels)


def test_a_pixel_size_without_a_unit_is_not_claimed_to_be_micrometres(tmp_path: Path) -> None:
    write_labels_tiff(
        tmp_path / "labels.tif", np.ones((2, 2), np.uint16), axes="YX", scale={"Y": 2.0, "X": 2.0}
    )
    with tifffile.TiffFile(tmp_path / "labels.tif") as file:
        assert "PhysicalSize" not in file.ome_metadata


def test_equal_content_gives_equal_bytes_and_other_content_another_uuid(tmp_path: Path) -> None:
    labels = np.eye(7, dtype=np.uint16)
    for name, content in [("a", labels), ("b", labels.astype(np.int64)), ("c", labels * 2)]:
        write_labels_tiff(tmp_path / name, content, axes="YX")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    uuids = []
    for name in "ac":
        with tifffile.TiffFile(tmp_path / name) as file:
            uuids.append(tifffile.xml2dict(file.ome_metadata)["OME"]["UUID"])
    assert len(set(uuids)) == 2


def test_a_label_nifti_keeps_its_affine_and_holds_no_time(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    labels = np.arange(24).reshape(2, 3, 4)
    affine = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -120], [0, 0, 3, -70], [0, 0, 0, 1]])
    for name in ("a.nii.gz", "b.nii.gz"):
        write_labels_nifti(tmp_path / name, labels, affine=affine)
    image = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(image.affine, affine)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), labels)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    raw = (tmp_path / "a.nii.gz").read_bytes()
    assert raw[4:8] == b"\0\0\0\0"  # gzip's time
    assert raw[3] == 0  # and no file name
    assert raw == (tmp_path / "b.nii.gz").read_bytes()


def test_a_table_has_eight_digits_and_leaves_out_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "objects.csv"
    write_table(
        path,
        ["label", "name", "area_um2", "mean"],
        [{"label": 1, "name": 'a,"b"', "area_um2": 1 / 3, "mean": float("nan")}, {"label": 2}],
    )
    assert path.read_bytes() == (b'label,name,area_um2,mean\n1,"a,""b""",0.33333333,\n2,,,\n')
    with path.open(newline="") as stream:
        assert next(csv.DictReader(stream))["name"] == 'a,"b"'


def test_staged_files_appear_together(tmp_path: Path) -> None:
    first, second = tmp_path / "new" / "a.txt", tmp_path / "new" / "b.txt"
    with staged(first, second) as (to_a, to_b):
        write_text(to_a, "a")
        assert not first.exists()
        write_text(to_b, "b\n")
    assert sorted(path.name for path in first.parent.iterdir()) == ["a.txt", "b.txt"]
    assert second.read_bytes() == b"b\n"


@pytest.mark.parametrize("reason", [ValueError("no"), KeyboardInterrupt(), GeneratorExit()])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, reason: BaseException
) -> None:
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    old.write_text("before")
    with pytest.raises(type(reason)):
        write_then_raise(reason, old, new)
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]
    assert old.read_text() == "before"


def test_a_rename_that_fails_takes_back_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def fail_on_b(source: Path, target: Path) -> None:
        if target.name == "b.txt":
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_on_b)
    with pytest.raises(OutputError, match=r"could not be written .*Input/output error"):
        write_then_raise(None, tmp_path / "a.txt", tmp_path / "b.txt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            r"The disk is full while writing a\.txt",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), r"cannot be written\. Change"),
        (OSError(errno.EROFS, "Read-only file system"), r"cannot be written\. Change"),
    ],
)
def test_a_failing_disk_is_told_in_one_sentence(
    tmp_path: Path, error: OSError, sentence: str
) -> None:
    with pytest.raises(OutputError, match=sentence):
        write_then_raise(error, tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with (
        pytest.raises(OutputError, match=r"a\.txt is a folder, but a file"),
        staged(tmp_path / "a.txt"),
    ):
        pytest.fail("the block must not run")


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with (
        pytest.raises(OutputError, match=r"out is not a folder"),
        staged(tmp_path / "out" / "a.txt"),
    ):
        pytest.fail("the block must not run")
    assert (tmp_path / "out").read_text() == "a file"


def write_then_raise(reason: BaseException | None, *targets: Path) -> None:
    with staged(*targets) as temporary:
        for path in temporary:
            write_text(path, "after")
        if reason is not None:
            raise reason
