"""Download SAM's published weights: resumable, checked by hash, cancelled at any step.

Not `pooch`: its downloaders neither resume nor yield between chunks, and the largest file has
2.6 GB.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from napari_simmat.engine.checkpoints.sam_weights import ADDRESS, OFFICIAL
from napari_simmat.engine.files import disk_in_words, hashing, move_into_place, size_in_words
from napari_simmat.engine.folders import bases_folder
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    from filelock import FileLock
    from requests import Response

_CHUNK = 1 << 16  # what a broken connection can lose
_TIMEOUT = (5.0, 10.0)  # seconds to connect, and of silence before the rest is requested again
_LARGER_THAN_PUBLISHED = 1.05


def fetching(name: str) -> Job[Path]:
    """Download the base `name` into ``bases/`` unless it is there; return its file.

    Progress is in bytes. Closing the job stops the download; the next one continues from what is
    in ``NAME.part``.

    Raises
    ------
    ValueError
        If there is no such download, or the content is not what was published.
    ConnectionError
        If the address cannot be reached or the connection breaks.
    OSError
        If the disk is full or the folder cannot be written.
    """
    if name not in OFFICIAL:
        raise ValueError(
            f"{name!r} cannot be downloaded; {', '.join(OFFICIAL)} can. "
            "`simmat models list` shows what is there already."
        )
    row = OFFICIAL[name]
    target = bases_folder() / row.file
    return (yield from downloading(ADDRESS + row.file, target, row.sha256, size=row.size))


def downloading(url: str, target: Path, sha256: str, *, size: int) -> Job[Path]:
    """Download `url` to `target`, unless a file with the hash `sha256` is there.

    Parameters
    ----------
    url, target
        From where and to where; ``NAME.part`` beside `target` holds an incomplete download.
    sha256
        Of the whole content, lower-case hexadecimal.
    size
        Expected bytes; a much larger file is refused.
    """
    from filelock import FileLock

    part = target.with_name(f"{target.name}.part")
    lock = FileLock(target.with_name(f".{target.name}.lock"), thread_local=False)
    try:
        with disk_in_words(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            while not _take(lock):
                yield Progress(0, size, f"Another process is downloading {target.name}")
            if target.is_file() and (yield from hashing(target)) == sha256:
                return target
            yield from _receiving(url, part, target, size)
            if (yield from hashing(part)) != sha256:
                received = _size(part)
                part.unlink()
                raise ValueError(
                    f"The content of {url} is not what was published ({received} bytes with "
                    "another SHA-256), so it was deleted. Try again; if that does not help, "
                    f"something in between changes it: {_another_way(target)}"
                )
            move_into_place(part, target)
    finally:
        lock.release()
    return target


def _receiving(url: str, part: Path, target: Path, size: int) -> Job[None]:
    """Complete `part`; a broken connection is retried as long as each try adds bytes."""
    import requests

    furthest = _size(part)
    while True:
        try:
            yield from _requesting(url, part, target, size)
            return
        except requests.Timeout:
            reason = "no answer"
        except requests.ConnectionError:
            reason = "no connection"
        except requests.exceptions.ChunkedEncodingError:
            reason = "the connection broke"
        except requests.HTTPError as error:
            reason = f"the server answered {error.response.status_code} {error.response.reason}"
        if _size(part) <= furthest:
            kept = f" {size_in_words(furthest)} are kept for the next try." if furthest else ""
            raise ConnectionError(
                f"{target.name} was not downloaded from {url}: {reason}.{kept} "
                f"Check the network, or {_another_way(target)}"
            )
        furthest = _size(part)


def _requesting(url: str, part: Path, target: Path, size: int) -> Job[None]:
    """Send one request and append its content to `part`."""
    import requests

    start = _size(part)
    headers = {"Accept-Encoding": "identity"}  # lengths and ranges count the stored bytes
    if start:
        headers["Range"] = f"bytes={start}-"
    yield Progress(start, max(size, start), f"Connecting for {target.name}")
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        total = _total(response)
        if start and response.status_code == requests.codes.requested_range_not_satisfiable:
            if total == start:
                return  # the part was complete
        else:
            response.raise_for_status()
            resumed = response.status_code == requests.codes.partial_content
            got = response.headers.get("Content-Range", "")
            if not (start and resumed) or got.startswith(f"bytes {start}-"):
                done = start if resumed else 0
                yield from _writing(response, part, target, done, total, size)
                return
    part.unlink()  # longer than the file on the server, or the answer to another range
    yield from _requesting(url, part, target, size)


def _writing(
    response: Response, part: Path, target: Path, done: int, total: int | None, size: int
) -> Job[None]:
    """Append the content of a response to the first `done` bytes of `part`."""
    limit = int(size * _LARGER_THAN_PUBLISHED)
    if total is not None and total > limit:
        raise ValueError(
            f"{response.url} holds {size_in_words(total)} instead of {size_in_words(size)}, so it "
            f"is not what was published. Instead, {_another_way(target)}"
        )
    if shutil.disk_usage(target.parent).free < (total or size) - done:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with part.open("ab" if done else "wb") as file:
        for chunk in response.iter_content(_CHUNK):
            file.write(chunk)
            done += len(chunk)
            if done > limit:
                break  # the hash will differ
            yield Progress(done, max(total or size, done), f"Downloading {target.name}")


def _take(lock: FileLock) -> bool:
    from filelock import Timeout

    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        return False
    return True


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _total(response: Response) -> int | None:
    """Length of the whole file according to the server, if it says."""
    text = response.headers.get("Content-Range", "").rpartition("/")[2]
    text = text or response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _another_way(target: Path) -> str:
    return (
        f"get {target.name} on another computer and run `simmat models import {target.name}`, or "
        f"put it into {target.parent}."
    )
