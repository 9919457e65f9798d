from __future__ import annotations

import csv
import errno
import os
from pathlib import Path

import pytest

from napari_simmat.batch.plan import OutputFiles
from napari_simmat.io.files import OutputError, atomic_outputs, write_table, write_text
from napari_simmat.io.readers import stem_of


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
def test_stem_of_drops_known_endings(name: str, stem: str) -> None:
    assert stem_of(Path("folder") / name) == stem


def test_output_files_nifti_stays_nifti_others_are_tiff(tmp_path: Path) -> None:
    assert OutputFiles.of(Path("x/head.nii.gz"), tmp_path).labels == tmp_path / "head_labels.nii.gz"
    assert [path.name for path in OutputFiles.of(Path("x/coins.png"), tmp_path)] == [
        "coins_labels.tif",
        "coins_objects.csv",
        "coins.json",
    ]


def test_write_table_floats_have_eight_digits(tmp_path: Path) -> None:
    path = tmp_path / "objects.csv"
    write_table(
        path,
        ["label", "name", "area_um2", "mean"],
        [{"label": 1, "name": 'a,"b"', "area_um2": 1 / 3, "mean": float("nan")}, {"label": 2}],
    )
    assert path.read_bytes() == (b'label,name,area_um2,mean\n1,"a,""b""",0.33333333,\n2,,,\n')
    with path.open(newline="") as stream:
        assert next(csv.DictReader(stream))["name"] == 'a,"b"'


def test_atomic_outputs_success_places_all(tmp_path: Path) -> None:
    first, second = tmp_path / "new" / "a.txt", tmp_path / "new" / "b.txt"
    with atomic_outputs(first, second) as (to_a, to_b):
        write_text(to_a, "a")
        assert not first.exists()
        write_text(to_b, "b\n")
    assert sorted(path.name for path in first.parent.iterdir()) == ["a.txt", "b.txt"]
    assert second.read_bytes() == b"b\n"


@pytest.mark.parametrize("reason", [ValueError("no"), KeyboardInterrupt(), GeneratorExit()])
def test_atomic_outputs_interrupted_keep_the_old_file(
    tmp_path: Path, reason: BaseException
) -> None:
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    old.write_text("before")
    with pytest.raises(type(reason)):
        write_then_raise(reason, old, new)
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]
    assert old.read_text() == "before"


def test_atomic_outputs_failed_rename_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = os.replace

    def fail_on_b(source: Path, target: Path) -> None:
        if target.name == "b.txt":
            raise OSError(errno.EIO, "Input/output error")
        move(source, target)

    monkeypatch.setattr(os, "replace", fail_on_b)
    with pytest.raises(OutputError, match=r"could not be written .*Input/output error"):
        write_then_raise(None, tmp_path / "a.txt", tmp_path / "b.txt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            r"The disk is full: a\.txt",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), r"cannot be written\. Change"),
        (OSError(errno.EROFS, "Read-only file system"), r"cannot be written\. Change"),
    ],
)
def test_atomic_outputs_disk_error_is_explained(
    tmp_path: Path, error: OSError, sentence: str
) -> None:
    with pytest.raises(OutputError, match=sentence):
        write_then_raise(error, tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_atomic_outputs_folder_as_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with (
        pytest.raises(OutputError, match=r"a\.txt is a folder, but a file"),
        atomic_outputs(tmp_path / "a.txt"),
    ):
        pytest.fail("the block must not run")


def test_atomic_outputs_file_as_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with (
        pytest.raises(OutputError, match=r"out is not a folder"),
        atomic_outputs(tmp_path / "out" / "a.txt"),
    ):
        pytest.fail("the block must not run")
    assert (tmp_path / "out").read_text() == "a file"


def write_then_raise(reason: BaseException | None, *targets: Path) -> None:
    with atomic_outputs(*targets) as temporary:
        for path in temporary:
            write_text(path, "after")
        if reason is not None:
            raise reason
