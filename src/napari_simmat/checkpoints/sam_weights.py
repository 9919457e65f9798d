"""Weights with SAM's tensors: their download, and reading them without executing anything.

Downloads resume, are checked by hash and can be canceled at any chunk, which the downloaders of
`pooch` do not offer; the largest file has 2.6 GB.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_simmat.checkpoints.catalog import PUBLISHED_WEIGHTS
from napari_simmat.checkpoints.checkpoint import check_numbers, file_kind
from napari_simmat.io.files import (
    bases_folder,
    disk_errors_explained,
    format_size,
    hash_job,
    move_into_place,
)
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    import torch
    from filelock import FileLock
    from requests import Response

_CHUNK = 1 << 16  # what a broken connection can lose
_TIMEOUT = (5.0, 10.0)  # seconds to connect, and of silence before the rest is requested again
_LARGER_THAN_PUBLISHED = 1.05
_LARGER_THAN_GUESSED = 2.0
SAM_PARTS = ("image_encoder.", "prompt_encoder.", "mask_decoder.")
EXPORT_FROM_MICRO_SAM = (
    "It is a training checkpoint of micro-sam: export its weights there with "
    "`micro_sam.util.export_custom_sam_model`, and import that file."
)
WRAPPERS = ("model_state", "state_dict", "model")
"""Keys under which trainings save a network: micro-sam, Lightning, MedSAM."""
PREFIXES = ("sam.", "module.", "model.")
"""What trainings write before SAM's names."""


def fetch_job(name: str) -> Job[Path]:
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
    if name not in PUBLISHED_WEIGHTS:
        raise ValueError(
            f"{name!r} cannot be downloaded; {', '.join(PUBLISHED_WEIGHTS)} can. "
            "`simmat models list` shows what is there already."
        )
    row = PUBLISHED_WEIGHTS[name]
    target = bases_folder() / row.file
    largest = _LARGER_THAN_PUBLISHED if row.size_is_published else _LARGER_THAN_GUESSED
    limit = int(row.size * largest)
    return (yield from download_job(row.url, target, row.checksum, size=row.size, limit=limit))


def download_job(
    url: str, target: Path, checksum: str, *, size: int, limit: int | None = None
) -> Job[Path]:
    """Download `url` to `target`, unless a file with that checksum is there.

    Parameters
    ----------
    url, target
        From where and to where; ``NAME.part`` beside `target` holds an incomplete download.
    checksum
        Of the whole content: algorithm and lower-case hexadecimal, as in `PublishedWeights`.
    size
        Expected bytes.
    limit
        A larger file is refused; by default one clearly larger than `size`.
    """
    from filelock import FileLock

    algorithm, _, digest = checksum.partition(":")
    limit = limit or int(size * _LARGER_THAN_PUBLISHED)

    part = target.with_name(f"{target.name}.part")
    lock = FileLock(target.with_name(f".{target.name}.lock"), thread_local=False)
    try:
        with disk_errors_explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            while not _acquire(lock):
                yield Progress(0, size, f"Another process is downloading {target.name}")
            if target.is_file() and (yield from hash_job(target, algorithm)) == digest:
                return target
            yield from _receive_job(url, part, target, size, limit)
            if (yield from hash_job(part, algorithm)) != digest:
                received = _size(part)
                part.unlink()
                raise ValueError(
                    f"{checksum_name(algorithm)} mismatch: the download from {url} ({received} "
                    "bytes) was deleted. Try again; if it happens again, a proxy may be altering "
                    f"the file: {_manual_download_hint(target)}"
                )
            move_into_place(part, target)
    finally:
        lock.release()
    return target


def _receive_job(url: str, part: Path, target: Path, size: int, limit: int) -> Job[None]:
    """Complete `part`; a broken connection is retried as long as each try adds bytes."""
    import requests

    furthest = _size(part)
    while True:
        try:
            yield from _request_job(url, part, target, size, limit)
            return
        except requests.Timeout:
            reason = "no answer"
        except requests.ConnectionError:
            reason = "no connection"
        except requests.exceptions.ChunkedEncodingError:
            reason = "the connection broke"
        except requests.HTTPError as error:
            reason = "the server refused"
            if (answer := error.response) is not None:
                reason = f"the server answered {answer.status_code} {answer.reason}"
        if _size(part) <= furthest:
            kept = f" {format_size(furthest)} are kept for the next try." if furthest else ""
            raise ConnectionError(
                f"{target.name} was not downloaded from {url}: {reason}.{kept} "
                f"Check the network, or {_manual_download_hint(target)}"
            )
        furthest = _size(part)


def _request_job(url: str, part: Path, target: Path, size: int, limit: int) -> Job[None]:
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
                yield from _append_content_job(response, part, target, done, total, size, limit)
                return
    part.unlink()  # longer than the file on the server, or the answer to another range
    yield from _request_job(url, part, target, size, limit)


def _append_content_job(
    response: Response,
    part: Path,
    target: Path,
    done: int,
    total: int | None,
    size: int,
    limit: int,
) -> Job[None]:
    """Append the content of a response to the first `done` bytes of `part`."""
    if total is not None and total > limit:
        raise ValueError(
            f"{response.url} holds {format_size(total)} instead of {format_size(size)}, so it "
            f"is not what was published. Instead, {_manual_download_hint(target)}"
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


def _acquire(lock: FileLock) -> bool:
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


def _manual_download_hint(target: Path) -> str:
    return (
        f"get {target.name} on another computer and run `simmat models import {target.name}`, or "
        f"put it into {target.parent}."
    )


def checksum_name(algorithm: str) -> str:
    """``SHA-256`` for ``"sha256"``, as it is called in messages."""
    return {"sha256": "SHA-256", "xxh128": "XXH128", "md5": "MD5"}[algorithm]


def read_sam_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a PyTorch file of weights with SAM's names; nothing in it is executed.

    Weights that a training checkpoint wraps (`WRAPPERS`, `PREFIXES`) are taken out of it, and its
    other tensors are left. Large files are memory-mapped where their format allows.

    Raises ValueError if the file is damaged, or holds anything but named floating-point tensors,
    NaN or infinity.
    """
    path = Path(path)
    tensors = named_tensors(path, _unwrapped(read_torch_file(path)))
    check_numbers(path, tensors)
    return tensors


def _unwrapped(values: Any) -> Any:
    """SAM's tensors by SAM's names, if `values` is a checkpoint that holds them."""
    if not isinstance(values, Mapping):
        return values
    inner = next((values[key] for key in WRAPPERS if isinstance(values.get(key), Mapping)), values)
    for prefix in ("", *PREFIXES):
        names = {name: str(name).removeprefix(prefix) for name in inner}
        if any(short.startswith(SAM_PARTS) for short in names.values()):
            return inner if not prefix else {names[name]: each for name, each in inner.items()}
    return values


def read_torch_file(path: Path, stand_ins: Sequence[Callable[..., Any]] = ()) -> Any:
    """Read what ``torch.save`` wrote: tensors, numbers, text, and dicts and lists of them.

    Large files are memory-mapped where their format allows.

    Parameters
    ----------
    path
        The file.
    stand_ins
        Harmless callables for objects of other packages, named like the objects in the file
        (module and name); allowed only while this file is read.

    Raises
    ------
    ValueError
        If the file is damaged, of another kind, or holds other objects; the message says which.
    """
    if file_kind(path) != "torch":
        raise ValueError(
            f"{path.name} holds a checkpoint (safetensors), not PyTorch weights, whatever its "
            "name says. Rename it to end in .safetensors."
        )
    is_archive = _check_archive(path)
    import torch

    try:
        with torch.serialization.safe_globals(list(stand_ins)):
            return torch.load(path, map_location="cpu", mmap=is_archive or None, weights_only=True)
    except Exception as error:  # a crafted file can raise anything
        raise _refusal(path, error) from None


def named_tensors(path: Path, values: Any) -> dict[str, torch.Tensor]:
    """Check that `values` is a dict of plain tensors by name, no larger than the file.

    Raises ValueError if it is something else.
    """
    import torch

    if not isinstance(values, Mapping) or not values:
        raise ValueError(
            f"{path.name} holds {'nothing' if not values else type(values).__name__}, not a table "
            "of named tensors. Choose weights of the original Segment Anything."
        )
    other = [str(name) for name, each in values.items() if not isinstance(each, torch.Tensor)]
    if other:
        raise ValueError(
            f"{path.name} is not plain weights: its entries {', '.join(other[:4])[:200]} are no "
            "tensors, as in a training checkpoint. Choose a file with the weights alone."
        )
    odd = [
        str(name)
        for name, each in values.items()
        if not isinstance(name, str)
        or each.layout != torch.strided
        or each.is_quantized
        or each.device.type != "cpu"
    ]
    if odd:
        raise ValueError(f"{path.name} cannot be used: {odd[0][:80]} is no plain named tensor.")
    # With strides of 0 one stored number can fill any shape, and reading it would never end.
    if sum(each.numel() * each.element_size() for each in values.values()) > path.stat().st_size:
        raise ValueError(
            f"{path.name} is damaged: its tensors are larger than the file. Take another copy."
        )
    return dict(values)


def _check_archive(path: Path) -> bool:
    """Whether it is a zip archive, as written since PyTorch 1.6; refuses zip bombs."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise _damaged(path) from None
    # torch stores its entries uncompressed; a compressed one could unpack to any size.
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError(
            f"{path.name} would unpack to more than its own size, which PyTorch weights never do, "
            "so it was not opened. Take a copy from a source you trust."
        )
    return True


def _refusal(path: Path, error: Exception) -> ValueError:
    """Explain an error of the weights-only loader: a foreign object, or damage."""
    found = re.search(r"(?:GLOBAL|class|function|global:?)\s+`?([\w.]+\.[\w.]+)", str(error))
    if "weights" in str(error).lower() and "unsupported" in str(error).lower():
        name = found[1] if found else ""
        advice = "Choose a file with the weights alone, from a source you trust."
        if name.startswith(("torch_em.", "micro_sam.")):
            advice = EXPORT_FROM_MICRO_SAM
        return ValueError(
            f"{path.name} holds objects other than tensors{f' ({name})' if name else ''}, which "
            f"could run code, so it was not opened. {advice}"
        )
    return _damaged(path)


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"{path.name} is damaged or cut off: PyTorch cannot read it. Copy or download it again."
    )
