"""Encoding on a real `dask scheduler` and `dask worker` processes of this machine."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.data import coins

from napari_simmat import Predictor, load_model
from napari_simmat.cli import main
from napari_simmat.engine import remote
from napari_simmat.engine.remote import ENCODED_HERE
from napari_simmat.progress import finish

distributed = pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.slow,
    # What Dask says while something that was killed is missed.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
IMAGE, CLICK = coins()[:120, :160], [(52, 44)]
PATIENCE = 60.0


class Cluster:
    """A scheduler and workers as a user starts them; all are killed at the end."""

    def __init__(self, folder: Path, *options: str, scheme: str = "tcp") -> None:
        self.folder, self.options, self.processes = folder, options, []
        self.scheduler = self.start(
            "scheduler", "--host", f"{scheme}://127.0.0.1", "--port", "0", "--no-dashboard",
            "--scheduler-file", str(folder / "scheduler.json"),
        )  # fmt: skip
        self.address = self._said(self.scheduler, "Scheduler at:").split()[-1]

    def start(self, kind: str, *more: str) -> subprocess.Popen[str]:
        path = self.folder / f"{len(self.processes)}.log"
        with path.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", kind, *more, *self.options],
                stdout=log, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        process.log = path  # type: ignore[attr-defined]
        self.processes.append(process)
        return process

    def worker(self) -> subprocess.Popen[str]:
        """A worker without a nanny, so that it does not come back when killed."""
        process = self.start("worker", self.address, "--no-nanny", "--nthreads", "2",
                             "--no-dashboard", "--local-directory", str(self.folder))  # fmt: skip
        self._said(process, "Registered to:")
        return process

    def _said(self, process: subprocess.Popen[str], words: str) -> str:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            lines = process.log.read_text().splitlines()  # type: ignore[attr-defined]
            if found := [line for line in lines if words in line]:
                return found[0]
            time.sleep(0.05)
        raise AssertionError(process.log.read_text())  # type: ignore[attr-defined]

    def close(self) -> None:
        for process in self.processes:
            kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


@pytest.fixture
def start(tmp_path):
    with ExitStack() as stack:

        def begin(*options: str, scheme: str = "tcp") -> Cluster:
            cluster = Cluster(tmp_path, *options, scheme=scheme)
            stack.callback(cluster.close)
            return cluster

        yield begin


@pytest.fixture(scope="module")
def model():
    return load_model("tiny")


@pytest.fixture(scope="module")
def expected(model):
    predictor = Predictor(model, "cpu")
    predictor.set_image(IMAGE)
    return predictor.predict(CLICK)


def test_encoder_elsewhere_gives_the_same_masks(start, model, expected):
    cluster = start()
    cluster.worker()
    predictors = [Predictor(model, cluster.address) for _ in range(2)]
    for predictor in predictors:
        predictor.set_image(IMAGE)
        result = predictor.predict(CLICK)
        assert predictor.note == ""
        np.testing.assert_array_equal(result.logits, expected.logits)
        assert predictor.encoder_kind == ("cpu", "exact")
        assert predictor.compute.device == cluster.address
    # The encoder did not run here: the network's would fail.
    broken = predictors[0].sibling()
    broken._compute.network = None
    broken.set_image(IMAGE[:, ::-1].copy())
    assert broken.encodes == 1


def test_encoder_elsewhere_lost_at_any_time_goes_on_here(start, model, expected, monkeypatch):
    monkeypatch.setattr(remote, "SCHEDULER_TIMEOUT", 3)
    cluster = start()
    worker = cluster.worker()
    predictor = Predictor(model, cluster.address)
    finish(predictor.connect_job())
    job, killed = predictor.set_image_job(IMAGE), False
    for step in job:
        if not killed and step.message.startswith("encoding at"):
            kill(worker)
            killed = True
    assert killed
    assert cluster.address in predictor.note
    assert predictor.note.endswith(ENCODED_HERE)
    np.testing.assert_array_equal(predictor.predict(CLICK).logits, expected.logits)
    # A new worker: once the pause is over it is used.
    monkeypatch.setattr(remote, "RETRY_AFTER", 0)
    cluster.worker()
    predictor.set_image(IMAGE[::-1].copy())
    assert predictor.note == ""
    # The scheduler is lost between two planes.
    kill(cluster.scheduler)
    predictor.set_image(IMAGE[:, ::-1].copy())
    assert predictor.note.endswith(ENCODED_HERE)
    before = predictor.encodes
    predictor.set_image(IMAGE[::-1].copy())
    assert predictor.encodes == before, "what was encoded there is still known"


def test_batch_whose_worker_is_lost_ends_with_the_same_labels(start, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for number in range(6):
        tifffile.imwrite(images / f"{number}.tif", np.roll(IMAGE, 20 * number, axis=1))
    words = ["segment", str(images), "--model", "tiny", "--prompts", "auto"]
    words += ["--auto.points-per-side", "6"]
    assert main([*words, "--device", "cpu", "--output", str(tmp_path / "here")]) == 0
    cluster = start()
    worker = cluster.worker()
    words += ["--device", cluster.address, "--output", str(out)]
    run = subprocess.Popen(
        [sys.executable, "-m", "napari_simmat", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    until = time.monotonic() + 5 * PATIENCE
    while not list(out.glob("*_labels.tif")) and time.monotonic() < until:
        time.sleep(0.02)
    assert len(list(out.glob("*_labels.tif"))) < 6, "the worker is killed while there is work"
    kill(worker)
    said, _ = run.communicate(timeout=5 * PATIENCE)
    assert run.returncode == 0, said
    assert ENCODED_HERE in " ".join(said.split()), said
    for number in range(6):
        name = f"{number}_labels.tif"
        expected = tifffile.imread(tmp_path / "here" / name)
        np.testing.assert_array_equal(tifffile.imread(out / name), expected)
        assert expected.any()


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("tcp://127.0.0.1:9", "No Dask scheduler answers at tcp://127.0.0.1:9"),
        ("tls://127.0.0.1:9", "needs certificates"),
    ],
)
def test_encoder_elsewhere_not_reached_is_one_sentence(address, problem, model, monkeypatch):
    monkeypatch.setattr(remote, "SCHEDULER_TIMEOUT", 1)
    predictor = Predictor(model, address)
    with pytest.raises(OSError, match=problem):
        finish(predictor.connect_job())
    predictor.set_image(IMAGE)
    assert problem in predictor.note


def test_encoder_elsewhere_with_certificates_is_reached(start, tmp_path, model, expected):
    import dask

    certificate, key = tmp_path / "me.pem", tmp_path / "me.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
         "/CN=simmat", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    files = ("--tls-ca-file", certificate, "--tls-cert", certificate, "--tls-key", key)
    cluster = start(*map(str, files), scheme="tls")
    cluster.worker()
    assert cluster.address.startswith("tls://")
    own = {"ca-file": certificate, "client.cert": certificate, "client.key": key}
    with dask.config.set({f"distributed.comm.tls.{name}": str(own[name]) for name in own}):
        predictor = Predictor(model, cluster.address)
        predictor.set_image(IMAGE)
    assert predictor.note == ""
    np.testing.assert_array_equal(predictor.predict(CLICK).logits, expected.logits)
