"""Build the wheel and check its content: ``python scripts/check_package.py``."""

from __future__ import annotations

import fnmatch
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20

# A plugin is installed with many others: the embedded models must stay small.
LARGEST_WHEEL = 25 * MIB
LARGEST_FOUNDATION = 20 * MIB
LARGEST_CHECKPOINTS = 5_000_000  # bytes of all of them

NEEDED = (
    "napari_simmat/napari.yaml",
    "napari_simmat/py.typed",
    "napari_simmat/assets/tiny-*.safetensors",
    "napari_simmat/assets/polarization*.safetensors",
)


def main() -> int:
    """Print the wheel's size and any problems; 1 if there are some."""
    with tempfile.TemporaryDirectory() as folder:
        # By way of the source distribution, so that this is checked to be complete as well.
        subprocess.run([sys.executable, "-m", "build", "--outdir", folder, str(ROOT)], check=True)
        [wheel] = Path(folder).glob("*.whl")
        problems = faults(wheel)
        print(f"{wheel.name}: {wheel.stat().st_size / MIB:.2f} MiB")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def faults(wheel: Path) -> list[str]:
    """Messages about files that are missing, too large or do not belong in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    found = [f"{name} is not in the wheel" for name in NEEDED if not fnmatch.filter(sizes, name)]
    found += [
        f"{name} does not belong in the wheel"
        for name in sizes
        if not name.startswith(("napari_simmat/", "napari_simmat-")) or "__pycache__" in name
    ]
    models = {name: size for name, size in sizes.items() if name.endswith(".safetensors")}
    foundations = {name for name in models if Path(name).name.startswith("tiny")}
    found += [
        f"{name} has {models[name] / MIB:.2f} MiB, at most {LARGEST_FOUNDATION / MIB:.0f} fit"
        for name in foundations
        if models[name] > LARGEST_FOUNDATION
    ]
    together = sum(size for name, size in models.items() if name not in foundations)
    if together > LARGEST_CHECKPOINTS:
        found.append(
            f"the checkpoints have {together / 1e6:.2f} MB together, at most "
            f"{LARGEST_CHECKPOINTS / 1e6:.0f} fit"
        )
    if wheel.stat().st_size > LARGEST_WHEEL:
        found.append(f"the wheel has more than {LARGEST_WHEEL / MIB:.0f} MiB")
    entry_points = next((name for name in sizes if name.endswith("entry_points.txt")), None)
    if entry_points is None:
        return [*found, "the wheel has no entry points"]
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(entry_points).decode()
    return found + [
        f"the entry point {line!r} is missing"
        for line in (
            "napari-simmat = napari_simmat:napari.yaml",
            "simmat = napari_simmat.__main__:main",
        )
        if line not in text
    ]


if __name__ == "__main__":
    sys.exit(main())
