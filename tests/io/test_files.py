import csv
import errno
import hashlib
import logging
import os
from pathlib import Path

import pytest

from napari_simmat.io.files import (
    LOG_BYTES,
    LOGS_KEPT,
    OutputError,
    atomic_outputs,
    check_size,
    copy_job,
    format_size,
    hash_job,
    log_file,
    logged,
    read_csv,
    read_table,
    remove,
    sha256_of,
    write_table,
    write_text,
)
from napari_simmat.progress import finish


def write_then_raise(reason: BaseException | None, *targets: Path) -> None:
    with atomic_outputs(*targets) as temporary:
        for path in temporary:
            write_text(path, "after")
        if reason is not None:
            raise reason


def test_atomic_outputs_success_places_all(tmp_path):
    first, second = tmp_path / "new" / "a.txt", tmp_path / "new" / "b.txt"
    with atomic_outputs(first, second) as (to_a, to_b):
        write_text(to_a, "a")
        assert not first.exists()
        assert to_a.parent == first.parent  # else the rename would copy
        write_text(to_b, "b\n")
    assert sorted(os.listdir(first.parent)) == ["a.txt", "b.txt"]
    assert second.read_bytes() == b"b\n"


@pytest.mark.parametrize("leads", [True, False])
def test_atomic_outputs_replace_a_link_and_keep_what_it_means(tmp_path, leads):
    meant, link = tmp_path / "elsewhere" / "a.zarr", tmp_path / "a.zarr"
    if leads:
        meant.mkdir(parents=True)
        (meant / "theirs").write_text("before")
    link.symlink_to(meant)
    with atomic_outputs(link) as (temporary,):
        temporary.mkdir()
        (temporary / "ours").write_text("after")
    assert not link.is_symlink()
    assert os.listdir(link) == ["ours"]
    if leads:
        assert (meant / "theirs").read_text() == "before"


def test_remove_of_a_link_keeps_what_it_means(tmp_path):
    (tmp_path / "meant").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "meant")
    remove(tmp_path / "link")
    assert os.listdir(tmp_path) == ["meant"]


def test_atomic_outputs_with_a_null_character_are_refused(tmp_path):
    with (
        pytest.raises(OutputError, match="has a null character; give another name"),
        atomic_outputs(tmp_path / "a\0.tif"),
    ):
        pass


@pytest.mark.parametrize("reason", [ValueError("no"), KeyboardInterrupt(), GeneratorExit()])
def test_atomic_outputs_interrupted_keep_the_old_file(tmp_path, reason):
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    old.write_text("before")
    with pytest.raises(type(reason)):
        write_then_raise(reason, old, new)
    assert os.listdir(tmp_path) == ["old.txt"]
    assert old.read_text() == "before"


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "The disk is full: .* could not be written to .*, nothing was changed"),
        (errno.EACCES, r"cannot be written\. Change its permissions or choose another folder"),
        (errno.EROFS, r"cannot be written\. Change its permissions or choose another folder"),
        (errno.EIO, r"could not be written to .* \(Input/output error\)"),
    ],
)
def test_atomic_outputs_system_error_leaves_all_as_it_was(
    call, number, sentence, tmp_path, monkeypatch
):
    (tmp_path / "b.txt").write_text("old")
    working = getattr(os, call)

    def refuse(*given):
        if call == "fsync" or Path(str(given[1])).name == "b.txt":  # behind that of a.txt
            raise OSError(number, os.strerror(number))
        working(*given)

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OutputError, match=sentence):
        write_then_raise(None, tmp_path / "a.txt", tmp_path / "b.txt")
    assert os.listdir(tmp_path) == ["b.txt"]
    assert (tmp_path / "b.txt").read_text() == "old"


@pytest.mark.parametrize(
    ("target", "sentence"),
    [("folder", "folder is a folder, but a file"), ("file/a.txt", "file is not a folder")],
)
def test_atomic_outputs_unfit_target_is_refused(tmp_path, target, sentence):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OutputError, match=sentence), atomic_outputs(tmp_path / target):
        pytest.fail("the block must not run")
    assert (tmp_path / "file").read_text() == "a file"


def test_write_table_floats_have_eight_digits(tmp_path):
    path = tmp_path / "objects.csv"
    write_table(
        path,
        ["label", "name", "area_um2", "mean"],
        [{"label": 1, "name": 'a,"b"', "area_um2": 1 / 3, "mean": float("nan")}, {"label": 2}],
    )
    assert path.read_bytes() == b'label,name,area_um2,mean\n1,"a,""b""",0.33333333,\n2,,,\n'
    with path.open(newline="") as stream:
        assert next(csv.DictReader(stream))["name"] == 'a,"b"'


FORMULAS = ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\tx", "'=1+1", "''@a"]
PLAIN = ["-12.5", "+5", "-inf", "-1e-05", "'quoted'", "", "NA", "a=b", "007"]


def test_texts_that_are_formulas_are_guarded_and_read_back(tmp_path):
    rows = [{"label": -1, "class": text, "x": -0.5} for text in (*FORMULAS, *PLAIN)]
    for path in (tmp_path / "once.csv", tmp_path / "again.csv"):
        write_table(path, ["label", "class", "x"], rows)
        with path.open(newline="") as stream:
            cells = list(csv.DictReader(stream))
        assert [row["class"] for row in cells] == [*(f"'{text}" for text in FORMULAS), *PLAIN]
        assert {(row["label"], row["x"]) for row in cells} == {("-1", "-0.5")}
        with path.open(newline="") as stream:
            columns, read = read_table(stream)
            rows = list(read)  # texts, numbers too, as a table of several tables writes them again
        assert columns == ["label", "class", "x"]
        assert [row["class"] for row in rows] == [*FORMULAS, *PLAIN]


def test_hash_job_yields_bytes_and_returns_the_hash(tmp_path):
    path = tmp_path / "large"
    content = bytes(range(256)) * 40_000  # several chunks
    path.write_bytes(content)
    seen = list(hash_job(path))
    assert sha256_of(path) == hashlib.sha256(content).hexdigest()
    assert len(seen) > 1
    assert [each.done for each in seen] == sorted(each.done for each in seen)
    assert (seen[-1].done, seen[-1].total) == (len(content), len(content))


def test_copy_job_closed_leaves_nothing(tmp_path):
    source, target = tmp_path / "source", tmp_path / "copies" / "target"
    source.write_bytes(b"x" * 10_000_000)
    job = copy_job(source, target)
    next(job)
    job.close()
    assert os.listdir(target.parent) == []
    finish(copy_job(source, target))
    assert target.read_bytes() == source.read_bytes()


def test_format_size_has_three_digits():
    sizes = (12, 8_500_000, 375_042_383, 2_564_550_879)
    assert [*map(format_size, sizes)] == ["12 bytes", "8.5 MB", "375 MB", "2.56 GB"]


def test_logged_appends_and_keeps_the_newest_logs():
    path, logger = log_file(), logging.getLogger("napari_simmat.io")
    for number in range(LOGS_KEPT + 3):
        with logged():
            logger.debug("run %d", number)
        with path.open("a") as file:
            file.write("x" * (LOG_BYTES if number else 10))
    names = sorted(each.name for each in path.parent.iterdir())
    assert names == [path.name, *(f"{path.name}.{number + 1}" for number in range(LOGS_KEPT))]
    assert f"run {LOGS_KEPT + 2}" in path.read_text()
    assert not logging.getLogger("napari_simmat").handlers


def test_logged_switched_off_or_unwritable_writes_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "a folder"
    folder.mkdir()
    for chosen in ("off", str(folder)):
        monkeypatch.setenv("NAPARI_SIMMAT_LOG", chosen)
        with logged():
            logging.getLogger("napari_simmat").warning("seen by nobody")
    assert not list(folder.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has a full device")
def test_logged_to_a_full_disk_fails_nothing(monkeypatch):
    """The work is done when the log is closed."""
    monkeypatch.setenv("NAPARI_SIMMAT_LOG", "/dev/full")
    with logged():
        logging.getLogger("napari_simmat").warning("not written")


def test_logged_name_with_a_line_feed_begins_no_line():
    with logged():
        name = "a.tif\n2026-01-01 00:00:00,000 1 INFO napari_simmat: all is well\x1b[31m"
        logging.getLogger("napari_simmat").error("Cannot read %s", name)
    [line] = log_file().read_text().splitlines()
    assert line.endswith(
        r"Cannot read a.tif\n2026-01-01 00:00:00,000 1 INFO napari_simmat: all is well\x1b[31m"
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_check_size_refuses_what_is_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", Path("/dev/zero")):
        with pytest.raises(ValueError, match="is a pipe or a device, not a file"):
            check_size(path)
        with pytest.raises(ValueError, match="is a pipe or a device, not a file"):
            read_csv(path)
