"""Build the distributions and check them: ``python scripts/check_package.py``.

``--release v1.2.3`` also checks that version, changelog and citation are those of this tag, and
``--output FOLDER`` keeps the distributions.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
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
LARGEST_CHECKPOINTS = 6_000_000  # bytes of all of them

NEEDED = (
    "napari_simmat/napari.yaml",
    "napari_simmat/py.typed",
    "napari_simmat/assets/tiny-*.safetensors",
    "napari_simmat/assets/polarization*.safetensors",
)


def main(arguments: list[str] | None = None) -> int:
    """Print the wheel's size and any problems; 1 if there are some."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", metavar="TAG", default="", help="tag of the release, v1.2.3")
    parser.add_argument("--output", metavar="FOLDER", help="keep the distributions there")
    given = parser.parse_args(arguments)
    problems = release_faults(given.release, ROOT) if given.release else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.output or temporary)
        # By way of the source distribution, so that this is checked to be complete as well.
        subprocess.run([sys.executable, "-m", "build", "--outdir", folder, str(ROOT)], check=True)
        [wheel] = folder.glob("*.whl")
        problems += faults(wheel)
        files = [str(path) for path in folder.glob("napari_simmat-*")]
        twine = [sys.executable, "-m", "twine", "check", "--strict", *files]
        if subprocess.run(twine, check=False).returncode:
            problems.append("PyPI would not show the README as it is meant (see above)")
        print(f"{wheel.name}: {wheel.stat().st_size / MIB:.2f} MiB")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def release_faults(tag: str, root: Path) -> list[str]:
    """Messages about files that are not those of the release with this tag."""
    version = tag.removeprefix("v")
    code = (root / "src/napari_simmat/_text.py").read_text("utf-8")
    found = []
    if f'__version__ = "{version}"' not in code:
        found.append(f"__version__ in _text.py is not that of the tag {tag}")
    changes = (root / "CHANGELOG.md").read_text("utf-8")
    heading = re.search(rf"^## {re.escape(version)} \((.*)\)$", changes, re.M)
    if heading is None:
        found.append(f"CHANGELOG.md has no section {version}")
    elif not re.fullmatch(r"\d{4}-\d\d-\d\d", heading[1]):
        found.append(f"CHANGELOG.md gives {version} no date but {heading[1]!r}")
    for name, line in {
        "CITATION.cff": f"version: {version}",
        "recipe/recipe.yaml": f'  version: "{version}"',
    }.items():
        if line not in (root / name).read_text("utf-8").splitlines():
            found.append(f"{name} lacks the line {line!r}")
    return found


def relative_links(page: str) -> list[str]:
    """The links and pictures of a Markdown page that lead nowhere when it is shown elsewhere."""
    targets = re.findall(r"\]\(([^)\s]+)", page) + re.findall(r"(?:src|href)=\"([^\"]+)", page)
    return [target for target in targets if not re.match(r"https?://|#|mailto:", target)]


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
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in sizes if name.endswith(".dist-info/METADATA")]
        metadata = archive.read(name).decode()
    found += [f"the README's link {link} is dead on PyPI" for link in relative_links(metadata)]
    if "Project-URL: Repository, https://" not in metadata:
        found.append("the metadata name no repository")
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
