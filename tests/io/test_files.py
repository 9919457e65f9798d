from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from napari_simmat.io.files import atomic_write, copy_job, format_size, hash_job, sha256_of
from napari_simmat.progress import finish


def test_atomic_write_success_places_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("content")
        assert not path.exists()
        assert temporary.parent == path.parent  # else the rename would copy
    assert path.read_text() == "content"
    assert os.listdir(path.parent) == ["a.txt"]


def test_atomic_write_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "The disk is full: a.txt could not be written to .*, nothing was changed"),
        (errno.EACCES, r"cannot be written\. Change its permissions or choose another folder"),
        (errno.EROFS, r"cannot be written\. Change its permissions or choose another folder"),
        (errno.EIO, r"could not be written to .* \(Input/output error\)"),
    ],
)
def test_atomic_write_system_error_is_explained(
    number: int, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=sentence), atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_atomic_write_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OSError, match=r"file is not a folder"),
        atomic_write(tmp_path / "file" / "a.txt") as temporary,
    ):
        temporary.write_text("new")


def test_hash_job_yields_bytes_and_returns_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "large"
    content = bytes(range(256)) * 40_000  # several chunks
    path.write_bytes(content)
    seen = list(hash_job(path))
    assert sha256_of(path) == hashlib.sha256(content).hexdigest()
    assert len(seen) > 1
    assert [each.done for each in seen] == sorted(each.done for each in seen)
    assert (seen[-1].done, seen[-1].total) == (len(content), len(content))


def test_copy_job_closed_leaves_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "copies" / "target"
    source.write_bytes(b"x" * 10_000_000)
    job = copy_job(source, target)
    next(job)
    job.close()
    assert os.listdir(target.parent) == []
    finish(copy_job(source, target))
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (12, "12 bytes"),
        (8_500_000, "8.5 MB"),
        (375_042_383, "375 MB"),
        (2_564_550_879, "2.56 GB"),
    ],
)
def test_format_size_has_three_digits(size: int, words: str) -> None:
    assert format_size(size) == words
