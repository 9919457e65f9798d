"""The lock of an output folder, and who is seen to live in it."""

import pytest
from filelock import FileLock

from napari_simmat.batch import folder_lock
from napari_simmat.batch.folder_lock import (
    LOCK,
    NO_LOCKS,
    WAITING,
    WORK,
    folder_locked,
    is_shared,
    lock_folder_job,
    runs_in,
    try_lock,
)
from napari_simmat.io.files import OutputError
from napari_simmat.progress import finish


def test_try_lock_is_held_once_until_it_is_released(tmp_path):
    first = try_lock(tmp_path / "a")
    assert first is not None
    assert try_lock(tmp_path / "a") is None
    first.release()
    again = try_lock(tmp_path / "a")
    assert again is not None
    again.release()


def test_try_lock_of_a_file_removed_meanwhile_is_none(tmp_path, monkeypatch):
    """Two runs once could hold what was removed, and what was made anew in its place."""
    path = tmp_path / "a"

    class Unlucky(FileLock):
        def acquire(self, **how):
            found = super().acquire(**how)
            path.unlink()
            path.touch()
            return found

    monkeypatch.setattr(folder_lock, "FileLock", Unlucky)
    assert try_lock(path) is None
    monkeypatch.undo()
    lock = try_lock(path)
    assert lock is not None
    lock.release()


def test_try_lock_without_locks_on_the_disk_is_refused(tmp_path, monkeypatch):
    def cannot(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr(folder_lock.FileLock, "acquire", cannot)
    with pytest.raises(OutputError) as error:
        try_lock(tmp_path / "a")
    assert str(error.value) == NO_LOCKS.format(tmp_path)


def test_lock_folder_waits_for_another_run(tmp_path):
    out = tmp_path / "x" / "out"
    held = finish(lock_folder_job(out))
    job = lock_folder_job(out)
    assert [next(job).message, next(job).message] == [WAITING, WAITING]
    held.release()
    with pytest.raises(StopIteration) as end:
        next(job)
    end.value.value.release()
    assert (out / LOCK).is_file()


def test_folder_locked_gives_up_in_the_end(tmp_path):
    with folder_locked(tmp_path) as mine:
        assert mine
        with folder_locked(tmp_path, patience=0.0) as other:
            assert not other
    with folder_locked(tmp_path, patience=0.0) as again:
        assert again


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="out cannot be written"):
        finish(lock_folder_job(tmp_path / "out"))


def test_runs_in_a_folder_live_while_they_hold_their_locks(tmp_path):
    assert not is_shared(tmp_path)
    (tmp_path / WORK).mkdir()
    for name in ("one", "two"):
        (tmp_path / WORK / f"{name}.run").touch()
    held = try_lock(tmp_path / WORK / "two.lock")
    assert list(runs_in(tmp_path).values()) == [False, True]
    assert is_shared(tmp_path)
    held.release()
    assert list(runs_in(tmp_path).values()) == [False, False]
    assert not is_shared(tmp_path)
