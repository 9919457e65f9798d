"""Weights with SAM's tensors: their download, and reading them without executing anything."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_simmat.checkpoints.catalog import (
    DECODER_SIZE,
    ON_REQUEST,
    PUBLISHED_WEIGHTS,
    PublishedWeights,
)
from napari_simmat.checkpoints.checkpoint import (
    check_numbers,
    file_kind,
    read_header,
    read_tensors,
)
from napari_simmat.checkpoints.sam2_names import renamed_sam2
from napari_simmat.checkpoints.sam3_names import (
    is_of_sam3,
    renamed_sam3,
    without_unused,
)
from napari_simmat.io.files import disk_errors_explained, format_size, hash_job, user_folder
from napari_simmat.progress import Job, Progress

if TYPE_CHECKING:
    import torch

_CHUNK = 1 << 16
_TIMEOUT = (5.0, 10.0)
"""Seconds to connect, and of silence before a download fails."""
_LARGER_THAN_PUBLISHED = 1.05
_LARGER_THAN_GUESSED = 2.0
CHECKSUM_NAMES = {"sha256": "SHA-256", "xxh128": "XXH128", "md5": "MD5"}
SAM_PARTS = ("image_encoder.", "prompt_encoder.", "mask_decoder.")
NOT_PUBLISHED = (
    "{!r} cannot be downloaded; {} can. `simmat models list` shows what is there already."
)
BY_HAND = (
    "get {name} on another computer and run `simmat models import {name}`, or put it into {folder}."
)
NOT_DOWNLOADED = "{name} was not downloaded from {url}: {reason}. Check the network, or " + BY_HAND
MISMATCH = (
    "{checksum} mismatch: the download from {url} was deleted. Try again; if it happens again, a "
    "proxy may be altering the file: " + BY_HAND
)
TOO_LARGE = (
    "{url} holds more than {limit} instead of {size}, so it is not what was published. Instead, "
    + BY_HAND
)
EXPORT_FROM_MICRO_SAM = (
    "It is a training checkpoint of micro-sam: export its weights there with "
    "`micro_sam.util.export_custom_sam_model`, and import that file."
)
DAMAGED = "{} is damaged or cut off: PyTorch cannot read it. Copy or download it again."
AUTHORS_FILE = (
    "If SimMAT's authors' code wrote it, convert it: simmat convert {} --modality KEY. That "
    "command comes with the research (pip install ./research in a clone of the repository)."
)
MICRO_SAM_DECODER = "decoder_state"
_DECODER_NAME = "out_conv.weight"
_MOST_STRUCTURE = 1 << 24
"""Bytes of the names and shapes in a PyTorch file; those of SAM take some ten thousand."""
NO_SAM_BESIDE = (
    "{name} holds micro-sam's decoder alone, which needs the model that it was trained with, and "
    "is none of those published beside one ({known}). Import a file that holds both, as "
    "`micro_sam.util.export_custom_sam_model(..., with_segmentation_decoder=True)` writes it."
)
WRAPPERS = ("model_state", "state_dict", "model")
"""Keys under which trainings save a network: micro-sam, Lightning, MedSAM."""
PREFIXES = ("sam.", "module.", "model.")
"""What trainings write before SAM's names."""


def fetch_job(name: str) -> Job[Path]:
    """Download the base `name` into ``bases/`` unless it is there; return its file.

    Where micro-sam publishes a decoder beside it, that is downloaded, too.

    Progress is in bytes. Closing the job stops the download.

    Raises
    ------
    ValueError
        If there is no such download, or the content is not what was published.
    ConnectionError
        If the address cannot be reached or the connection breaks.
    OSError
        If the disk is full or the folder cannot be written.
    """
    if name in ON_REQUEST:
        raise ValueError(ON_REQUEST[name])
    if name not in PUBLISHED_WEIGHTS:
        raise ValueError(NOT_PUBLISHED.format(name, ", ".join(PUBLISHED_WEIGHTS)))
    row = PUBLISHED_WEIGHTS[name]
    target = user_folder("bases") / row.file
    largest = _LARGER_THAN_PUBLISHED if row.size_is_published else _LARGER_THAN_GUESSED
    limit = int(row.size * largest)
    yield from download_job(row.url, target, row.checksum, size=row.size, limit=limit)
    if (beside := row.decoder) is not None:
        path, limit = target.with_name(beside.file), int(DECODER_SIZE * _LARGER_THAN_GUESSED)
        yield from download_job(beside.url, path, beside.checksum, size=DECODER_SIZE, limit=limit)
    return target


class _Received:
    """What pooch calls, in the thread that downloads, as its progress bar."""

    total = 0

    def __init__(self, limit: int) -> None:
        self.done, self.limit, self.stopped = 0, limit, False

    def update(self, count: int) -> None:
        self.done += count
        if self.stopped or self.done > self.limit + _CHUNK:
            raise _StoppedError

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass


class _StoppedError(Exception):
    """The download is not wanted any more, or larger than allowed."""


def download_job(
    url: str, target: Path, checksum: str, *, size: int, limit: int | None = None
) -> Job[Path]:
    """Download `url` to `target`, unless a file with that checksum is there.

    Parameters
    ----------
    url, target
        From where and to where.
    checksum
        Of the whole content: algorithm and lower-case hexadecimal, as in `PublishedWeights`.
    size
        Expected bytes.
    limit
        A larger file is refused; by default one clearly larger than `size`.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")
    received = _Received(limit or int(size * _LARGER_THAN_PUBLISHED))
    downloader = pooch.HTTPDownloader(progressbar=received, chunk_size=_CHUNK, timeout=_TIMEOUT)
    words = {"url": url, "name": target.name, "folder": target.parent}
    pool = ThreadPoolExecutor(1)  # pooch does not return before the whole file is there
    try:
        with disk_errors_explained(target):
            future = pool.submit(
                pooch.retrieve, url, checksum, target.name, target.parent, downloader=downloader
            )
            while not future.done():
                total = max(received.total, size)
                done = min(received.done, total)
                yield Progress(done, total, f"Downloading {target.name}")
                wait([future], timeout=0.1)
            future.result()
    except _StoppedError:
        sizes = {"limit": format_size(received.limit), "size": format_size(size)}
        raise ValueError(TOO_LARGE.format(**words, **sizes)) from None
    except OSError as error:  # a redirect to file:// is a ValueError as well
        if not type(error).__module__.startswith("requests"):
            raise
        answer = getattr(error, "response", None)
        reason = "no connection, or it broke"
        if answer is not None:
            reason = f"the server answered {answer.status_code} {answer.reason}"
            answer.close()  # pooch leaves it open
        raise ConnectionError(NOT_DOWNLOADED.format(**words, reason=reason)) from None
    except ValueError:  # pooch compares the checksum
        name = CHECKSUM_NAMES[checksum.partition(":")[0]]
        raise ValueError(MISMATCH.format(**words, checksum=name)) from None
    finally:
        received.stopped = True
        pool.shutdown(wait=False)
    return target


def read_sam_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a file of weights with the names of SAM, SAM 2 or SAM 3; nothing in it is executed.

    Weights that a training checkpoint wraps (`WRAPPERS`, `PREFIXES`) are taken out of it, and its
    other tensors are left. Those of SAM 2 and SAM 3 get the names of `models.sam2` and
    `models.sam3`. Large files are memory-mapped where their format allows.

    Raises ValueError if the file is damaged, holds anything but named floating-point tensors, NaN
    or infinity, or a part of SAM 3 alone.
    """
    path = Path(path)
    if file_kind(path) == "safetensors" and not read_header(path).is_described:
        return _renamed(path, read_tensors(path))
    tensors = named_tensors(path, _unwrapped(read_torch_file(path)))
    if is_of_sam3(tensors):
        tensors = without_unused(tensors)  # some are complex numbers
    check_numbers(path, tensors)
    return _renamed(path, tensors)


def _renamed(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if not is_of_sam3(tensors):
        return renamed_sam2(tensors)
    try:
        return renamed_sam3(tensors)
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be used. {error}") from None


def read_decoder(path: Path) -> dict[str, torch.Tensor] | None:
    """Micro-sam's decoder for automatic segmentation, alone or beside SAM; None if there is none.

    Nothing in the file is executed. Tensors of an encoder, which some trainings save along, are
    left. Raises ValueError if the file is damaged, or the decoder holds anything but named
    floating-point tensors, NaN or infinity.
    """
    values = read_torch_file(path)
    if not isinstance(values, Mapping):
        return None
    inner = values.get(MICRO_SAM_DECODER)
    if inner is None and _DECODER_NAME in values:
        inner = values
    if inner is None:
        return None
    tensors = named_tensors(path, inner)
    tensors = {name: each for name, each in tensors.items() if not name.startswith("encoder.")}
    check_numbers(path, tensors)
    return tensors


def mentions_decoder(path: Path) -> bool:
    """Whether a PyTorch file seems to hold micro-sam's decoder beside SAM; needs no torch.

    Looks for the word in the archive's structure alone; nothing is unpickled.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith("data.pkl") and entry.file_size < _MOST_STRUCTURE:
                    return MICRO_SAM_DECODER.encode() in archive.read(entry)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return False  # loading says what is wrong
    return False


def published_decoder_job(path: Path) -> Job[PublishedWeights | None]:
    """The published model whose decoder a PyTorch file is, by its content; None if it has SAM.

    Raises ValueError if it holds a decoder alone that was not published.
    """
    values = read_torch_file(path)
    if not isinstance(values, Mapping) or _DECODER_NAME not in values:
        return None
    if any(str(name).startswith(SAM_PARTS) for name in values):
        return None
    digest = yield from hash_job(path, "xxh128")
    rows = [row for row in PUBLISHED_WEIGHTS.values() if row.decoder is not None]
    for row in rows:
        if row.decoder is not None and row.decoder.checksum == f"xxh128:{digest}":
            return row
    known = ", ".join(row.name for row in rows)
    raise ValueError(NO_SAM_BESIDE.format(name=path.name, known=known))


def _unwrapped(values: Any) -> Any:
    """SAM's tensors by SAM's names, if `values` is a checkpoint that holds them."""
    if not isinstance(values, Mapping):
        return values
    inner = next((values[key] for key in WRAPPERS if isinstance(values.get(key), Mapping)), values)
    if is_of_sam3(str(name) for name in inner):
        return inner
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
        raise ValueError(DAMAGED.format(path.name)) from None
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
        elif name.startswith("numpy."):
            advice = AUTHORS_FILE.format(path.name)
        return ValueError(
            f"{path.name} holds objects other than tensors{f' ({name})' if name else ''}, which "
            f"could run code, so it was not opened. {advice}"
        )
    return ValueError(DAMAGED.format(path.name))
