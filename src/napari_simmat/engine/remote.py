"""A Dask cluster: connect to it, and encode planes on its workers, e.g. on a server's GPU.

Only the encoder runs there. A worker gets the normalized plane, and the model once; the embedding
comes back, is cached here like any other, and prompts are decoded here.
"""

from __future__ import annotations

import io
import math
import re
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from numpy.typing import NDArray

from napari_simmat import __version__
from napari_simmat._text import format_list, import_problem
from napari_simmat.engine.coordinates import InputTransform
from napari_simmat.engine.settings import Precision
from napari_simmat.progress import Job, Progress, finish

if TYPE_CHECKING:
    from napari_simmat.engine.device import ComputeContext
    from napari_simmat.models.network import Encoded
    from napari_simmat.models.spec import Model, ModelSpec

T = TypeVar("T")
SCHEDULER_TIMEOUT = 15
"""Seconds to wait for a Dask scheduler and for its workers."""
RETRY_AFTER = 60
"""Seconds for which planes are encoded here after a failure, before the cluster is tried again."""
MODELS_ON_WORKER = 2
"""Models that a worker keeps; windows with different models take turns."""
_POLL = 0.02
DISTRIBUTED_MISSING = (
    "A cluster needs the package distributed; install it (pip install distributed)."
)
NO_CERTIFICATES = (
    "{} needs certificates: name them in Dask's configuration, under distributed.comm.tls ca-file, "
    "client.cert and client.key."
)
NO_SCHEDULER = "No Dask scheduler answers at {} ({}). Check the address, and that it runs."
NO_WORKERS = "The Dask scheduler at {0} has no workers. Start some: dask worker {0}."
NOT_INSTALLED = "The workers of {} have no napari-simmat. Install {} there as well."
OTHER_VERSIONS = "The workers of {} have {}, but here is {}. Install the same version there."
LOST = "{} was lost ({})."
ENCODED_HERE = "Encoding on this computer."
_LOCK = threading.Lock()
_KEPT: OrderedDict[tuple[str, str], tuple[ModelSpec, ComputeContext]] = OrderedDict()
"""The models of a worker process, the last used last."""


class RemoteError(OSError):
    """A cluster cannot encode; the message is a complete sentence for the user."""


class EncoderKind(NamedTuple):
    """What embeddings depend on besides model and image: the kind of device, and precision."""

    device: str
    precision: Precision


def is_address(device: str) -> bool:
    """Whether a device is the address of a Dask scheduler."""
    return re.match(r"(tcp|tls)://", device) is not None


def local_device(device: str) -> str:
    """The device that decodes: auto for an address."""
    return "auto" if is_address(device) else device


@contextmanager
def client(address: str) -> Iterator[Any]:
    """A `distributed.Client` of a scheduler with suitable workers, closed at the end.

    Raises RemoteError if it cannot be reached, or its workers do not fit.
    """
    with closing(_connect(address)) as connected:
        check_workers(connected, address)
        yield connected


def _connect(address: str) -> Any:
    try:
        distributed = import_module("distributed")
    except ImportError as error:
        raise RemoteError(import_problem(error, "distributed", DISTRIBUTED_MISSING)) from error
    import dask

    if address.startswith("tls:") and not dask.config.get("distributed.comm.tls.ca-file", None):
        raise RemoteError(NO_CERTIFICATES.format(address))
    file = Path(address).expanduser()
    where = {"scheduler_file": str(file)} if file.is_file() else {"address": address}
    try:
        return distributed.Client(**where, timeout=SCHEDULER_TIMEOUT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RemoteError(NO_SCHEDULER.format(address, reason)) from None


def check_workers(connected: Any, address: str) -> None:
    """Refuse a cluster without workers, or with other versions of what both sides exchange."""
    try:
        connected.wait_for_workers(1, timeout=SCHEDULER_TIMEOUT)
        there = connected.run(versions)
    except TimeoutError:
        raise RemoteError(NO_WORKERS.format(address)) from None
    except ModuleNotFoundError:
        raise RemoteError(NOT_INSTALLED.format(address, __version__)) from None
    here = versions()
    other = {name for each in there.values() for name in here if each.get(name) != here[name]}
    if other:
        listed = {f"{n} {each.get(n)}" for each in there.values() for n in other}
        ours = format_list([here[name] for name in sorted(other)])
        raise RemoteError(OTHER_VERSIONS.format(address, format_list(sorted(listed)), ours))


def versions() -> Mapping[str, str]:
    """The versions that both sides must share: tensors and tasks are sent as they are."""
    torch = version("torch").split("+")[0]  # without the kind of build
    return {"napari-simmat": __version__, "distributed": version("distributed"), "torch": torch}


class RemoteEncoder:
    """Encodes planes on the workers of a Dask cluster.

    A lost worker's plane goes to another one. If there is none, or the scheduler is lost, the
    caller gets a RemoteError, and so do all others for `RETRY_AFTER` seconds.

    Parameters
    ----------
    address
        Of the scheduler, e.g. ``tcp://10.0.0.1:8786``.
    precision
        As for `Predictor`, on the device of the worker.

    Attributes
    ----------
    kind
        What encodes there; None before the first connection.
    """

    def __init__(self, address: str, precision: str) -> None:
        self.address, self.precision = address, precision
        self.kind: EncoderKind | None = None
        self._client: Any = None
        self._lock = threading.Lock()
        self._failure = -math.inf, ""

    def connect_job(self) -> Job[None]:
        """Connect if that was not done yet; RemoteError if the cluster cannot be used."""
        if self._client is None:
            yield from self._in_thread_job(lambda _: self._connected())

    def encode_job(
        self, model: Model, average: bool, image: NDArray[Any], transform: InputTransform
    ) -> Job[Encoded]:
        """Encode what `ChannelStack.reduced` returns; the encoding is on the CPU.

        Raises RemoteError if it cannot be done there.
        """
        known = (model.fingerprint, self.precision)

        def encode(abandoned: threading.Event) -> Encoded:
            connected = self._connected()
            while True:
                task = connected.submit(_encode, *known, average, image, transform, pure=False)
                result = self._wait(connected, task, abandoned)
                if not isinstance(result, str):
                    encoded, self.kind = result
                    return encoded  # type: ignore[no-any-return]
                # The worker at this address does not have the model yet.
                [sent] = connected.scatter([_saved(model)], workers=[result], hash=False)
                task = connected.submit(_keep, *known, sent, workers=[result], pure=False)
                self._wait(connected, task, abandoned)

        return (yield from self._in_thread_job(encode))

    def _in_thread_job(self, call: Callable[[threading.Event], T]) -> Job[T]:
        """Wait for what a thread does; closing the job tells it to stop."""
        failed, problem = self._failure
        if time.monotonic() - failed < RETRY_AFTER:
            raise RemoteError(problem)
        abandoned = threading.Event()
        future = Future[T]()

        def run() -> None:
            try:
                future.set_result(call(abandoned))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, name="simmat-remote", daemon=True).start()
        try:
            while not wait([future], timeout=_POLL).done:
                yield Progress(0, 0, f"encoding at {self.address}")
        finally:
            abandoned.set()
        try:
            return future.result()
        except Exception as error:  # Dask raises anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            is_told = isinstance(error, RemoteError)
            words = str(error) if is_told else LOST.format(self.address, reason)
            self._failure = time.monotonic(), words
            with self._lock:
                if self._client is not None:
                    _close(self._client)
                self._client = None
            raise RemoteError(words) from error

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                connected = _connect(self.address)
                weakref.finalize(self, _close, connected)
                try:
                    check_workers(connected, self.address)
                    kinds = connected.run(_kind, self.precision)
                except BaseException:
                    _close(connected)
                    raise
                self.kind, self._client = EncoderKind(*next(iter(kinds.values()))), connected
            return self._client

    def _wait(self, connected: Any, task: Any, abandoned: threading.Event) -> Any:
        """The result of a task; its loss is noticed, also when nobody tells."""
        asked = alive = time.monotonic()
        while not task.done():
            if abandoned.wait(_POLL):
                task.cancel()
                raise RemoteError(LOST.format(self.address, "canceled"))
            now = time.monotonic()
            if now - asked < 1:
                continue
            identity = connected.sync(
                connected.scheduler.identity, n_workers=-1, callback_timeout=SCHEDULER_TIMEOUT
            )
            asked = time.monotonic()
            alive = asked if identity["workers"] else alive
            if asked - alive > SCHEDULER_TIMEOUT:
                raise RemoteError(NO_WORKERS.format(self.address))
        return task.result(timeout=SCHEDULER_TIMEOUT)


def _close(connected: Any) -> None:
    """Close a client in a thread, since that waits for a scheduler that may be gone."""
    threading.Thread(target=connected.close, name="simmat-remote", daemon=True).start()


# ------------------------------------------------------------------ on a worker


def _kind(precision: str) -> EncoderKind:
    from napari_simmat.engine.device import choose_device, choose_precision

    device = choose_device("auto")
    return EncoderKind(device.type, choose_precision(precision, device))


def _encode(
    fingerprint: str,
    precision: str,
    average: bool,
    image: NDArray[Any],
    transform: InputTransform,
) -> tuple[Encoded, EncoderKind] | str:
    """Encode on this worker; its address if it does not have the model."""
    from distributed import get_worker

    with _LOCK:  # one plane at a time, even if the worker has several threads
        if (fingerprint, precision) not in _KEPT:
            return str(get_worker().address)
        _KEPT.move_to_end((fingerprint, precision))
        spec, compute = _KEPT[fingerprint, precision]
        try:
            encoded = finish(compute.encode_job(spec, image, transform, average))
            return encoded.to("cpu"), EncoderKind(compute.device.type, compute.precision)
        finally:
            compute.release()


def _keep(fingerprint: str, precision: str, saved: bytes) -> None:
    """Keep a model on this worker, instead of the one that was used longest ago."""
    import torch

    from napari_simmat.engine.device import ComputeContext

    # A cluster runs any code of its clients anyway.
    model = torch.load(io.BytesIO(saved), map_location="cpu", weights_only=False)
    with _LOCK:
        while len(_KEPT) >= MODELS_ON_WORKER:
            _KEPT.popitem(last=False)
        compute = ComputeContext(model.network, "auto", precision)
        _KEPT[fingerprint, precision] = model.spec, compute


def _saved(model: Model) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(replace(model, decoder=None), buffer)  # a worker only encodes
    return buffer.getvalue()
