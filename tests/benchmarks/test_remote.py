"""What encoding elsewhere costs; `pytest -m slow -s tests/benchmarks/test_remote.py` prints it."""

import socket
import sys
import threading
import time
from collections import Counter
from contextlib import suppress

import numpy as np
import pytest
import torch
from skimage.data import coins

from napari_simmat import Predictor
from napari_simmat.checkpoints.catalog import sam_spec
from napari_simmat.models.sam import build_sam
from napari_simmat.models.spec import Model
from napari_simmat.progress import finish
from tests.engine.test_remote import kill, start  # noqa: F401

pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
IMAGE = np.resize(coins().astype(np.uint16) * 100, (512, 512))


class Wire:
    """Forwards connections to a scheduler, and counts the bytes to it and from it."""

    def __init__(self, address: str) -> None:
        host, port = address.removeprefix("tcp://").split(":")
        self.there, self.bytes = (host, int(port)), Counter[str]()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._accepting.join()

    def _accept(self) -> None:
        with suppress(OSError):  # until the scheduler ends
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(self.there)
                for one, other, way in ((near, far, "sent"), (far, near, "received")):
                    threading.Thread(target=self._copy, args=(one, other, way), daemon=True).start()

    def _copy(self, one: socket.socket, other: socket.socket, way: str) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 20):
                other.sendall(data)
                self.bytes[way] += len(data)
            other.shutdown(socket.SHUT_WR)


def random_vit_b() -> Model:
    torch.manual_seed(0)
    return Model(sam_spec("vit_b", "vit_b", "0" * 64), build_sam("vit_b").eval(), "random")


def clicks(predictor: Predictor) -> float:
    times = []
    for y in range(100, 400, 30):
        since = time.perf_counter()
        predictor.predict([(y, 250)])
        times.append(time.perf_counter() - since)
    return float(np.median(times))


def test_vit_b_encoded_elsewhere(start, capsys):  # noqa: F811
    cluster, model = start(), random_vit_b()
    worker = cluster.worker()
    wire, lines = Wire(cluster.address), []

    def timed(words: str, predictor: Predictor, image: np.ndarray) -> None:
        before, since = wire.bytes.copy(), time.perf_counter()
        predictor.set_image(image)
        seconds, moved = time.perf_counter() - since, wire.bytes - before
        lines.append(
            f"{words}: {seconds:.2f} s, {moved['sent'] / 1e6:.2f} MB sent, "
            f"{moved['received'] / 1e6:.2f} MB received {predictor.note}"
        )

    local, there = Predictor(model, "cpu"), Predictor(model, wire.address)
    timed("here, first", local, IMAGE)
    timed("here", local, IMAGE[::-1].copy())
    finish(there.connect_job())
    timed("elsewhere, with the model", there, IMAGE)
    timed("elsewhere", there, IMAGE[::-1].copy())
    np.testing.assert_array_equal(there.embedding, local.embedding)
    lines.append(f"click here {clicks(local):.3f} s, encoded elsewhere {clicks(there):.3f} s")
    # Two windows on one worker: together, then one after the other.
    others = [Predictor(model, wire.address) for _ in range(2)]
    for other in others:
        finish(other.connect_job())
    images = [np.roll(IMAGE, n, 0) for n in (1, 2)]
    threads = [
        threading.Thread(target=timed, args=(f"window {n + 1} of 2", other, images[n]))
        for n, other in enumerate(others)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(other.note for other in others)
    # The worker is killed in the middle.
    since, killed = time.perf_counter(), 0.0
    for _ in there.set_image_job(IMAGE[:, ::-1].copy()):
        if not killed and time.perf_counter() - since > 1.5:
            kill(worker)
            killed = time.perf_counter()
    assert killed
    local.set_image(IMAGE[:, ::-1].copy())
    np.testing.assert_array_equal(there.embedding, local.embedding)
    lines.append(f"killed: {time.perf_counter() - killed:.1f} s until encoded: {there.note}")
    wire.close()
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
