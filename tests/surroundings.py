"""What every test gets: a user folder of its own, the real images, nothing left running."""

import gc
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.with_screen import virtual_screen

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Each process of pytest-xdist gets a screen of its own, so that none takes another's focus."""
    if hasattr(config, "workerinput") and os.environ.get("DISPLAY") and shutil.which("Xvfb"):
        screen = virtual_screen()
        os.environ["DISPLAY"] = screen.__enter__()
        config.add_cleanup(lambda: screen.__exit__(None, None, None))


def pytest_collection_finish() -> None:
    """Leave out what was imported and collected where garbage is looked for: a million objects."""
    gc.collect()
    gc.freeze()


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
