"""`simmat info`: versions, devices, memory, folders and plugins, to paste into a report."""

from __future__ import annotations

import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distributions, entry_points, version
from typing import Any

from napari_simmat import __version__
from napari_simmat.cli.terminal import DEFAULT_OUTPUT, OutputOptions

PACKAGES = (
    "torch",
    "torchvision",
    "segment-anything",
    "numpy",
    "scipy",
    "scikit-image",
    "dask",
    "zarr",
    "tifffile",
    "napari",
    "qtpy",
    "PyQt6",
    "PySide6",
    "bioio",
    "nibabel",
    "pydicom",
    "roifile",
    "laptrack",
    "lightning-fabric",
    "distributed",
)
"""Packages whose versions matter in a report; those that are not installed are left out."""
CPU_BUILD = (
    "This PyTorch is built without CUDA, although an NVIDIA driver is installed, so the GPU is not "
    "used. Install a CUDA build: https://pytorch.org/get-started/locally"
)
NO_DRIVER = (
    "This PyTorch is built for CUDA {cuda}, but finds no GPU. If there is one, update its driver."
)


def info(speech: OutputOptions = DEFAULT_OUTPUT) -> None:
    """Show versions, devices, memory and folders: paste it into a report of a problem.

    ```
    simmat info
    simmat info --json
    ```

    It shows whether a GPU is found, and if not, why.
    """
    terminal = speech.terminal()
    values = _gathered()
    width = max(map(len, values))
    lines = [
        f"{name:{width}}  {line}" if first else f"{'':{width}}  {line}"
        for name, value in values.items()
        for first, line in ((not n, line) for n, line in enumerate(_lines(value)))
    ]
    terminal.say("\n".join(lines))
    terminal.result(values)


def gpu_problem(cuda: str | None, found: bool, has_driver: bool) -> str:
    """Why no NVIDIA GPU is used, in a sentence; empty if one is, or none is to be expected.

    Parameters
    ----------
    cuda
        CUDA version that torch is built for; None for a build without.
    found
        Whether torch finds a GPU.
    has_driver
        Whether NVIDIA's tools are installed.
    """
    if found:
        return ""
    if cuda is None:
        return CPU_BUILD if has_driver else ""
    return NO_DRIVER.format(cuda=cuda)


def _gathered() -> dict[str, Any]:
    """Everything by name; values are text or lists of texts."""
    import psutil  # type: ignore[import-untyped]
    import torch

    from napari_simmat.engine.device import available_devices, choose_device, choose_precision
    from napari_simmat.io.files import bases_folder, format_size, models_folder, user_folder

    devices = available_devices()
    chosen = choose_device("auto")
    memory = psutil.virtual_memory()
    builds = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    build = ", ".join(f"{name} {number}" for name, number in builds.items() if number) or "CPU only"
    problem = gpu_problem(
        torch.version.cuda, torch.cuda.is_available(), shutil.which("nvidia-smi") is not None
    )
    disk = user_folder()
    while not disk.exists():
        disk = disk.parent
    values: dict[str, Any] = {
        "napari-simmat": __version__,
        "Python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.platform()}, {platform.machine()}",
        "processors": f"{psutil.cpu_count()}; torch uses {torch.get_num_threads()}",
        "memory": f"{format_size(memory.total)}, {format_size(memory.available)} free",
        "devices": [
            f"{each.name}: {each.title}" + (f", {format_size(each.memory)}" if each.memory else "")
            for each in devices
        ],
        "in use": f"{chosen}, {choose_precision('auto', chosen)} precision (by default)",
        "torch build": build,
        "GPU": problem,
        "packages": [f"{name} {number}" for name, number in _versions().items()],
        "napari plugins": _plugins(),
        "user folder": f"{user_folder()} ({format_size(shutil.disk_usage(disk).free)} free)",
        "models": [str(models_folder()), str(bases_folder())],
    }
    return {name: value for name, value in values.items() if value}


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _plugins() -> list[str]:
    """Other plugins of napari, which share its process."""
    versions = {each.metadata["Name"]: each.version for each in distributions()}
    names = {each.dist.name for each in entry_points(group="napari.manifest") if each.dist}
    return [f"{name} {versions.get(name, '')}" for name in sorted(names - {"napari-simmat"})]


def _lines(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
