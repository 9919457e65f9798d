"""Embeddings of image planes: computed block by block, cached in memory, stored on disk.

Cache and store are bounded and addressed by content. The store serves the next session and other
processes. Embeddings reveal much about their image, so nothing is stored unless the user switches
it on.

A click must not wait for the encoding of another plane. So `PlaneEncoder` encodes in jobs that
yield after each block of the network, and `ResumableEncodings` keeps those that were left, to be
continued later.

Importing this file loads no torch: the window needs the cache before it needs a model.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.image_stack import ChannelStack
from napari_simmat.engine.remote import ENCODED_HERE, EncoderKind, RemoteEncoder, RemoteError
from napari_simmat.io.files import atomic_write, user_folder
from napari_simmat.progress import Job

if TYPE_CHECKING:
    from torch import Tensor

    from napari_simmat.engine.device import ComputeContext
    from napari_simmat.models.network import Encoded
    from napari_simmat.models.spec import Model

FORMAT = "napari-simmat-embedding-1"
DEFAULT_BYTES = 10 * 2**30
LOCK_TIMEOUT = 10.0
"""Seconds to wait for another process that removes files."""

MIN_BYTES, MAX_BYTES = 2**30, 2**33
"""Bounds of the default memory for embeddings."""

logger = logging.getLogger(__name__)


class Embedding(NamedTuple):
    """An encoded image and how it lies in the network's input."""

    encoded: Encoded
    transform: InputTransform


class EmbeddingCache:
    """Embeddings in main memory, least recently used first out. Thread-safe.

    Parameters
    ----------
    max_bytes
        Upper bound of all tensors together; by default a quarter of the machine's memory, between
        1 and 8 GiB. A larger embedding is not kept.
    store
        Keeps embeddings on disk as well.
    """

    def __init__(self, max_bytes: int | None = None, store: EmbeddingStore | None = None) -> None:
        max_bytes = default_bytes() if max_bytes is None else max_bytes
        if max_bytes < 0:
            raise ValueError(f"The memory for embeddings cannot be negative, got {max_bytes}.")
        self.max_bytes = max_bytes
        self.store = store
        self._kept: OrderedDict[str, Embedding] = OrderedDict()
        self.nbytes = 0
        """Bytes in use in memory."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: str) -> bool:
        """Whether `get` would find it; reads and reorders nothing."""
        store = self.store
        return key in self._kept or (store is not None and key in store)

    def get(self, key: str) -> Embedding | None:
        """The embedding of `key`, which becomes the most recently used; None if there is none."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
            store = self.store
        found = None if store is None else store.get(key)
        if found is not None:
            self._remember(key, found)
        return found

    def put(self, key: str, embedding: Embedding, *, lasting: bool = True) -> None:
        """Keep an embedding, in the store too if `lasting`."""
        self._remember(key, embedding)
        store = self.store
        if store is not None and store.writes and lasting:
            store.put(key, embedding)

    @property
    def keeps_on_disk(self) -> bool:
        """Whether embeddings are stored on disk too."""
        return self.store is not None and self.store.writes

    def clear(self) -> None:
        """Empty the memory; the store on disk stays."""
        with self._lock:
            self._kept.clear()
            self.nbytes = 0

    def _remember(self, key: str, embedding: Embedding) -> None:
        size = embedding.encoded.nbytes
        with self._lock:
            replaced = self._kept.pop(key, None)
            self.nbytes -= 0 if replaced is None else replaced.encoded.nbytes
            while self._kept and self.nbytes + size > self.max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self.nbytes -= oldest.encoded.nbytes
            if size <= self.max_bytes:
                self._kept[key] = embedding
                self.nbytes += size


def default_bytes() -> int:
    """A quarter of the machine's memory, between 1 and 8 GiB."""
    import psutil  # type: ignore[import-untyped]

    return int(min(MAX_BYTES, max(MIN_BYTES, psutil.virtual_memory().total // 4)))


class _StoredFile(NamedTuple):
    used: float
    size: int
    path: Path


class EmbeddingStore:
    """A folder of embeddings, each a safetensors file named by its key.

    Files are written atomically, several processes may share the folder, and the least recently
    used files are removed when the bound is reached. Each file contains its key and a hash of its
    tensors; a damaged or foreign one is removed and computed again.

    Parameters
    ----------
    folder
        Created when needed; by default ``embeddings`` in the user's folder.
    max_bytes
        Upper bound of all files together.
    writes
        Whether a cache stores what is encoded here, or only reads what is there.

    Attributes
    ----------
    problem
        Why the last embedding could not be stored, or empty.
    last_size
        Bytes of the file that was stored last.
    """

    def __init__(
        self, folder: Path | None = None, max_bytes: int = DEFAULT_BYTES, *, writes: bool = True
    ) -> None:
        if max_bytes < 0:
            raise ValueError(f"The disk space for embeddings cannot be negative, got {max_bytes}.")
        self.folder = user_folder("embeddings") if folder is None else folder
        self.max_bytes = max_bytes
        self.writes = writes
        self.problem = ""
        self.last_size = 0

    def __contains__(self, key: str) -> bool:
        return self._path(key).is_file()

    def __len__(self) -> int:
        return sum(1 for _ in self._files())

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self._files())

    def get(self, key: str) -> Embedding | None:
        """The embedding of `key`; None if it is missing or damaged."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            embedding = _read(path, key)
        except Exception as error:  # a damaged file may raise anything
            logger.warning("%s is computed again: %s", path.name, error)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        with suppress(OSError):  # the folder may be read-only
            os.utime(path)
        return embedding

    def put(self, key: str, embedding: Embedding) -> None:
        """Store an embedding, removing the least recently used ones beyond the bound.

        If writing fails, `problem` says why.
        """
        if embedding.encoded.nbytes > self.max_bytes:
            return
        try:
            with atomic_write(self._path(key)) as temporary:
                _write(temporary, key, embedding)
                self.last_size = temporary.stat().st_size
            self._tidy()
            self.problem = ""
        except OSError as error:
            self.problem = str(error)
            logger.warning(self.problem)

    def clear(self) -> None:
        """Remove all embeddings."""
        for file in self._files():
            with suppress(OSError):
                file.path.unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Remove the least recently used files; one process at a time, or each would do so."""
        from filelock import FileLock, Timeout

        files = sorted(self._files())
        if sum(file.size for file in files) <= self.max_bytes:
            return
        with suppress(Timeout), FileLock(self.folder / ".lock", timeout=LOCK_TIMEOUT):
            files = sorted(self._files())
            total = sum(file.size for file in files)
            for file in files:
                if total <= self.max_bytes:
                    break
                with suppress(OSError):  # on Windows another process may be reading it
                    file.path.unlink(missing_ok=True)
                    total -= file.size

    def _files(self) -> Iterator[_StoredFile]:
        for path in self.folder.glob("*/*.safetensors"):
            with suppress(OSError):  # another process may have removed it
                found = path.stat()
                yield _StoredFile(found.st_mtime, found.st_size, path)

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()[:40]
        return self.folder / name[:2] / f"{name}.safetensors"


def _write(path: Path, key: str, embedding: Embedding) -> None:
    import torch
    from safetensors.torch import save_file

    encoded, transform = embedding
    named = {
        f"{number}.{name}": tensor
        for number, level in enumerate(encoded.levels)
        for name, tensor in (
            ("embedding", level.embedding),
            *((f"maps.{name}", each) for name, each in level.maps.items()),
        )
    }
    # Keep the memory layout: the decoder rounds differently in another one.
    last = [n for n, t in named.items() if t.is_contiguous(memory_format=torch.channels_last)]
    tensors = {
        name: (tensor.permute(0, 2, 3, 1) if name in last else tensor).contiguous()
        for name, tensor in named.items()
    }
    levels = [{"input_size": level.input_size, "scale": level.scale} for level in encoded.levels]
    described = {
        "key": key,
        "frame": json.dumps(
            [transform.image, transform.resized, transform.padded, transform.half_pixel]
        ),
        "levels": json.dumps(levels),
        "channels_last": json.dumps(last),
    }
    described["hash"] = _hash(described, tensors)
    save_file(tensors, path, {FORMAT: json.dumps(described)})  # it writes several in any order


def _read(path: Path, key: str) -> Embedding:
    from safetensors import safe_open

    from napari_simmat.models.network import Encoded

    with safe_open(path, framework="pt") as file:
        described = json.loads((file.metadata() or {}).get(FORMAT, "{}"))
        # Copies: in the file they are not aligned, and half precision then rounds differently.
        tensors = {name: file.get_tensor(name).clone() for name in list(file.keys())}
    expected = described.pop("hash", "")
    if described.get("key") != key:
        raise ValueError("it belongs to another image or format")
    if _hash(described, tensors) != expected:
        raise ValueError("its content is not what was written")
    for name in json.loads(described["channels_last"]):
        tensors[name] = tensors[name].permute(0, 3, 1, 2)
    encoded: Encoded | None = None
    for number, level in reversed(list(enumerate(json.loads(described["levels"])))):
        prefix = f"{number}.maps."
        maps = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        size, scale = tuple(level["input_size"]), float(level["scale"])
        encoded = Encoded(tensors[f"{number}.embedding"], size, maps, scale, encoded)
    assert encoded is not None
    image, resized, padded, half_pixel = json.loads(described["frame"])
    transform = InputTransform(tuple(image), tuple(resized), tuple(padded), bool(half_pixel))
    return Embedding(encoded, transform)


def _hash(described: dict[str, str], tensors: dict[str, Tensor]) -> str:
    import torch
    import xxhash

    digest = xxhash.xxh3_128(json.dumps(described, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        half = tensor.dtype == torch.bfloat16  # unknown to NumPy
        digest.update((tensor.view(torch.int16) if half else tensor).numpy().data)
    return digest.hexdigest()


class ResumableEncodings:
    """Unfinished jobs by key; whoever needs the result continues where the job was left.

    So interrupting an encoding for a click, or canceling it, wastes no work. At most `limit`
    jobs are kept; the one that was left first is closed.
    """

    def __init__(self, limit: int = 3) -> None:
        self._limit = limit
        self._begun: OrderedDict[str, Job[Embedding]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._begun)

    def resume_job(self, key: str, start: Callable[[], Job[Embedding]]) -> Job[Embedding | None]:
        """Start or continue the job of `key`; closing this generator only interrupts it.

        Returns the job's result, or None if another caller finished it meanwhile.
        """
        mine = self._begun.get(key)
        if mine is None:
            mine = self._begun[key] = start()
        while self._begun.get(key) is mine:
            self._begun.move_to_end(key)
            while len(self._begun) > self._limit:
                _, oldest = self._begun.popitem(last=False)
                oldest.close()
            try:
                progress = next(mine)
            except StopIteration as end:
                self._begun.pop(key, None)
                result: Embedding = end.value
                return result
            except BaseException:
                self._begun.pop(key, None)
                raise
            yield progress
        return None

    def clear(self) -> None:
        """Close all jobs."""
        while self._begun:
            _, begun = self._begun.popitem()
            begun.close()


class PlaneEncoder:
    """Encodes planes with a model, each once.

    Parameters
    ----------
    model, compute
        The model, and the context in which its network runs.
    cache
        Keeps the embeddings.
    average
        Whether to encode several views of a plane, if the network averages their masks.
    remote
        Encodes in place of the network here, while that can be done.

    Attributes
    ----------
    resumable
        Unfinished encodings; several encoders may share them.
    encodes
        How often the network's encoder ran.
    """

    def __init__(
        self,
        model: Model,
        compute: ComputeContext,
        cache: EmbeddingCache,
        average: bool = False,
        remote: RemoteEncoder | None = None,
    ) -> None:
        self.model, self.compute, self.cache, self.remote = model, compute, cache, remote
        self.average = average and compute.network.averages_views
        self.resumable = ResumableEncodings()
        self.encodes = 0

    def embed_job(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding]:
        """A plane from the cache, or encoded, continuing an unfinished encoding."""
        if self.remote is not None and not self.is_cached(stack, index):
            with suppress(RemoteError):  # `encode_job` says it; the store may know what it encoded
                yield from self.remote.connect_job()
        while True:
            keys = self.keys(stack.key(index))
            key = keys[0]
            embedding = next((e for e in map(self.cache.get, keys) if e is not None), None)
            if embedding is None:
                start = partial(self._encode_and_cache_job, stack, index)
                embedding = yield from self.resumable.resume_job(key, start)
            if embedding is not None:
                return Embedding(embedding.encoded.to(self.compute.device), embedding.transform)

    def _encode_and_cache_job(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding]:
        """Encode a plane and cache it, in the precision in which it was computed."""
        self.compute.note = ""
        content = stack.key(index)  # of the values read now: the array may change meanwhile
        embedding = yield from self.encode_job(stack, index)
        kept = Embedding(embedding.encoded.to("cpu"), embedding.transform)
        key = self.keys(content)[0]  # the device may have changed
        # An embedding that was reduced for lack of memory is of no use once there is enough.
        self.cache.put(key, kept, lasting=kept.transform == self._transform(stack))
        return embedding

    @property
    def kind(self) -> EncoderKind:
        """What encodes now, here or elsewhere."""
        here = EncoderKind(self.compute.device.type, self.compute.precision)
        return here if self.remote is None else self.remote.kind or here

    def is_cached(self, stack: ChannelStack, index: tuple[int, ...]) -> bool:
        """Whether a plane is encoded."""
        return any(key in self.cache for key in self.keys(stack.key(index)))

    def keys(self, content: str) -> list[str]:
        """Keys in the cache of a plane with this `ChannelStack.key`: the one in use first.

        With a remote encoder also what was encoded here, while that was lost.
        """
        here = EncoderKind(self.compute.device.type, self.compute.precision)
        views = "-views" if self.average else ""
        kinds = dict.fromkeys((self.kind, here))
        return [
            f"{self.model.fingerprint}-{content}-{kind.device}-{kind.precision}{views}"
            for kind in kinds
        ]

    def _transform(self, stack: ChannelStack) -> InputTransform:
        """How a plane lies in the network's input if memory suffices."""
        return InputTransform.of(stack.shape[-2:], self.model.spec.input_size, stack.pixel_size)

    def encode_job(self, stack: ChannelStack, index: tuple[int, ...]) -> Job[Embedding]:
        """A plane encoded but not cached."""
        from napari_simmat.engine.device import is_out_of_memory

        compute, input_size = self.compute, self.model.spec.input_size
        if self.remote is not None:
            transform = self._transform(stack)
            image = stack.reduced(index, transform)
            try:
                job = self.remote.encode_job(self.model, self.average, image, transform)
                return self._checked((yield from job), transform)
            except RemoteError as error:
                compute.note = f"{error} {ENCODED_HERE}"
        while True:
            transform = InputTransform.of(stack.shape[-2:], input_size, stack.pixel_size)
            image = stack.reduced(index, transform)
            try:
                encoded = yield from compute.encode_job(
                    self.model.spec, image, transform, self.average
                )
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                half = max(transform.resized) // 2
            else:
                return self._checked(encoded, transform)
            # Outside the handler, where the failed run's tensors are already freed.
            compute.release()
            can_shrink = input_size.method == "native" and half >= 4 * input_size.multiple
            if can_shrink and compute.device.type != "cpu":
                minimum = min(input_size.minimum, half)
                input_size = replace(input_size, size=half, minimum=minimum)
                compute.remark(f"Memory ran out; encoding at {half} pixels instead.")
            else:
                input_size = self.model.spec.input_size
                compute.to_cpu()

    def _checked(self, encoded: Encoded, transform: InputTransform) -> Embedding:
        embeddings = (level.embedding for level in encoded.levels)
        self.compute.check_finite(self.model.spec.name, *embeddings)
        self.encodes += 1
        return Embedding(encoded, transform)
