"""`simmat info`: what is in image files; without one, what is installed."""

from __future__ import annotations

import platform
import shutil
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distributions, entry_points, version
from pathlib import Path
from typing import Any

from napari_simmat import __version__
from napari_simmat._text import pluralize
from napari_simmat.batch.options import ChannelOptions
from napari_simmat.cli.terminal import (
    DEFAULT_CHANNELS,
    DEFAULT_OUTPUT,
    OutputOptions,
    Terminal,
)

IS_A_MODEL = "{0} is a model; simmat models info {0} shows what it holds."
NO_IMAGES = "There is no image in {}; give a file, or a folder with images."
PACKAGES = (
    "torch",
    "torchvision",
    "segment-anything",
    "segment-anything-py",
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
    "highdicom",
    "roifile",
    "laptrack",
    "lightning-fabric",
    "distributed",
)
"""Whose versions are told."""
CPU_BUILD = (
    "This PyTorch is built without CUDA, although an NVIDIA driver is installed, so the GPU is not "
    "used. Install a CUDA build: https://pytorch.org/get-started/locally"
)
NO_DRIVER = (
    "This PyTorch is built for CUDA {cuda}, but finds no GPU. If there is one, update its driver."
)


def info(
    *files: Path,
    pattern: str = "",
    channels: ChannelOptions = DEFAULT_CHANNELS,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> int:
    """Show what is in image files: axes, sizes, channels, the size of a pixel, levels.

    ```
    simmat info image.tif
    simmat info data --pattern "*.czi"
    simmat info film.tif --axes TYX --json
    ```

    It is as `simmat segment` reads them, with what options say; no pixels are read where a format
    allows it.

    Without a file it shows versions, devices, memory and folders, and why no GPU is found: paste
    that into a report of a problem.

    ```
    simmat info
    ```

    Parameters
    ----------
    files
        Images, folders, patterns or manifests, as for `simmat segment`.
    pattern
        Files of a folder to use, e.g. *.tif; all images by default.
    """
    terminal = console.terminal()
    if files:
        return _show_files(terminal, files, pattern, channels)
    values = _environment()
    width = max(map(len, values))
    for name, value in values.items():
        lines = [value] if isinstance(value, str) else value
        terminal.say(f"{name:{width}}  " + f"\n{'':{width}}  ".join(lines))
    terminal.result(values)
    return 0


def _show_files(
    terminal: Terminal, files: tuple[Path, ...], pattern: str, channels: ChannelOptions
) -> int:
    """A table for an image, a line for each of several; the exit status."""
    from napari_simmat.batch.loaded_image import described
    from napari_simmat.batch.plan import find_images
    from napari_simmat.io.plain import to_plain

    for path in files:
        if path.suffix == ".safetensors":
            raise ValueError(IS_A_MODEL.format(path))
    found = find_images(files, pattern=pattern)
    if not found:
        raise ValueError(NO_IMAGES.format(files[0]))
    values, failed = [], 0
    for one in found:
        name = (one.folder / one.image.name).as_posix()
        try:
            told = described(one.image, one.selection.over(channels.selection))
        except (ValueError, OSError, MemoryError) as error:
            failed += 1
            terminal.complain(str(error))
            values.append({"file": name, "error": str(error)})
            continue
        values.append({**to_plain(told), "file": name})
        if len(found) > 1:
            terminal.say(f"{name}: {told.sentence}")
            continue
        terminal.say(name, "bold")
        for title, text in told.rows():
            terminal.say(f"  {title:8}  {text}")
    if len(found) > 1:
        terminal.say(pluralize(len(found), "image"), "bold")
    terminal.result({"files": values})
    return int(failed > 0)


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


def _environment() -> dict[str, Any]:
    """Everything by name; values are text or lists of texts."""
    import psutil  # type: ignore[import-untyped]
    import torch

    from napari_simmat.engine.device import available_devices, choose_device, choose_precision
    from napari_simmat.io.files import format_size, log_file, user_folder

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
    packages = []
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            packages.append(f"{name} {version(name)}")
    installed = {each.metadata["Name"]: each.version for each in distributions()}
    # Plugins of napari share its process.
    plugins = {each.dist.name for each in entry_points(group="napari.manifest") if each.dist}
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
        "packages": packages,
        "napari plugins": [
            f"{name} {installed.get(name, '')}" for name in sorted(plugins - {"napari-simmat"})
        ],
        "user folder": f"{user_folder()} ({format_size(shutil.disk_usage(disk).free)} free)",
        "models": [str(user_folder("models")), str(user_folder("bases"))],
        "log": str(log_file() or "off"),
    }
    return {name: value for name, value in values.items() if value}
