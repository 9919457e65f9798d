"""What every test gets: a user folder of its own, the real images, nothing left running."""

import os
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.with_screen import virtual_screen

pytest_plugins = ["tests.model_files"]

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--real-windows",
        action="store_true",
        help="open napari's window for all tests of the widgets, not only for those marked",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Each process of pytest-xdist gets a screen of its own, so that none takes another's focus."""
    if hasattr(config, "workerinput") and os.environ.get("DISPLAY") and shutil.which("Xvfb"):
        screen = virtual_screen()
        os.environ["DISPLAY"] = screen.__enter__()
        config.add_cleanup(lambda: screen.__exit__(None, None, None))


@pytest.fixture(autouse=True)
def user_folder(tmp_path_factory, monkeypatch):
    """An empty user folder for each test: nothing of the person's own is read or written."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("NAPARI_SIMMAT_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_thread_left_over():
    """A test ends the threads it starts (those of pools that libraries keep are left out)."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 2
    while (left := _threads_of_ours(before)) and time.monotonic() < deadline:
        left[0].join(0.05)
    assert not left, f"left running: {', '.join(thread.name for thread in left)}"


@pytest.fixture(scope="session")
def shared_folder():
    """The folder of real images; NAPARI_SIMMAT_DATA names another place."""
    return Path(os.environ.get("NAPARI_SIMMAT_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_image(shared_folder):
    """Read a real image by its name, e.g. ``shared_image("coins_labels.tif")``."""

    def read(name):
        path = shared_folder / name
        if not path.exists():
            pytest.skip(f"{name} is not in {shared_folder} (NAPARI_SIMMAT_DATA names the folder)")
        if path.name.endswith((".tif", ".tiff")):
            tifffile = pytest.importorskip("tifffile")
            return tifffile.imread(path)
        nibabel = pytest.importorskip("nibabel")
        return np.asanyarray(nibabel.load(path).dataobj)

    return read


@pytest.fixture
def labeled(tmp_path):
    """Two images: in `a` an 8 x 8 and a 4 x 4 square and a speck, in `b` two planes with one."""
    labels = np.zeros((40, 50), np.uint16)
    labels[4:12, 4:12], labels[20:24, 30:34], labels[30:33, 40:43] = 7, 300, 9
    stack = np.zeros((3, 40, 50), np.uint16)
    stack[0, 4:12, 4:12] = stack[2, 20:28, 20:28] = 1
    for name, values in (("a", labels), ("b", stack)):
        for end, written in (("", (values > 0).astype(np.uint8)), ("_labels", values)):
            tifffile.imwrite(tmp_path / f"{name}{end}.tif", written, photometric="minisblack")
    return tmp_path


@pytest.fixture
def angles(tmp_path):
    """A folder `polarization`: two images of four angles, each with two labeled discs."""
    folder = tmp_path / "polarization"
    folder.mkdir()
    y, x = np.indices((64, 64))
    about = {"axes": "CYX", "Channel": {"Name": ("0 deg", "45 deg", "90 deg", "135 deg")}}
    for number in range(2):
        labels = (np.hypot(y - 20, x - 20) < 9) + 2 * (np.hypot(y - 42, x - 40 - number) < 11)
        image = np.stack([40 + (60 + 20 * angle) * (labels > 0) for angle in range(4)])
        path = folder / f"{number}.ome.tif"
        tifffile.imwrite(path, image.astype(np.uint8), metadata=about, photometric="minisblack")
        tifffile.imwrite(folder / f"{number}_labels.tif", labels.astype(np.uint8))
    return folder


@pytest.fixture
def small_training(monkeypatch):
    """Small batches and few scenes, so that a step of a training takes a fraction of a second."""
    from napari_simmat.research import pretrain, scene_pool

    class SmallPool(scene_pool.ScenePool):
        pixels_per_step = 2 * 96 * 96

        def __init__(self, *args, **named):
            super().__init__(*args, **{**named, "size": 8})

        def crops(self, step, objects, sizes=(96,)):
            return super().crops(step, objects, sizes)

    monkeypatch.setattr(pretrain, "ScenePool", SmallPool)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs CUDA where there is none."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


# Threads that a library starts once and keeps for the life of the process.
_KEPT_BY_LIBRARIES = (
    "ThreadPoolExecutor",
    "asyncio_",
    "zarr_io",
    "pydevd",
    "QueueFeederThread",
    "tqdm",
    *("IO loop", "Dask-", "Profile"),  # of dask.distributed
)


def _threads_of_ours(before: set[threading.Thread]) -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before
        and thread.is_alive()
        and not thread.name.startswith(_KEPT_BY_LIBRARIES)
        and not isinstance(thread, threading._DummyThread)  # a thread that Python did not start
    ]


if sys.platform.startswith("linux"):
    # Software rendering alone is there under a virtual screen; without this Mesa warns on each run.
    os.environ.setdefault("LIBGL_ALWAYS_SOFTWARE", "1")
