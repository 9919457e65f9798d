"""Build the distributions and check them: ``python scripts/check_package.py``.

``--release v1.2.3`` also checks that version, changelog and addresses are those of this tag,
``--output FOLDER`` keeps the distributions, and ``--fill`` only writes the version of the package
and the addresses of pyproject.toml into the files that repeat them.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20

# A plugin is installed with many others: the embedded models must stay small.
# Weights 15.1 (the decoder of all objects 1.3 of them), samples 0.4, code 1.0.
LARGEST_WHEEL = 16_800_000  # bytes
LARGEST_FOUNDATION = 12_000_000
LARGEST_CHECKPOINTS = 6_000_000  # of all of them

NEEDED = (
    "napari_simmat/napari.yaml",
    "napari_simmat/py.typed",
    "napari_simmat/assets/tiny-*.safetensors",
    "napari_simmat/assets/polarization*.safetensors",
    "napari_simmat/assets/samples/*.tif",
    "napari_simmat-*.dist-info/licenses/THIRD_PARTY.md",
)

HOSTED = "<!-- hosted -->"
"""How the line begins that opens notebooks in a hosted service."""

# File, key with its indentation, source of its value; a key without a value becomes a comment.
REPEATED = (
    ("CITATION.cff", "version", "version"),
    ("CITATION.cff", "repository-code", "Repository"),
    ("CITATION.cff", "url", "Homepage"),
    ("mkdocs.yml", "site_url", "Documentation"),
    ("mkdocs.yml", "repo_url", "Repository"),
    ("recipe/recipe.yaml", "  version", "version"),
    ("recipe/recipe.yaml", "  homepage", "Homepage"),
    ("recipe/recipe.yaml", "  repository", "Repository"),
    ("recipe/recipe.yaml", "  documentation", "Documentation"),
)


def main(arguments: list[str] | None = None) -> int:
    """Print the wheel's size and any problems; 1 if there are some."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", metavar="TAG", default="", help="tag of the release, v1.2.3")
    parser.add_argument("--output", metavar="FOLDER", help="keep the distributions there")
    parser.add_argument("--fill", action="store_true", help="write version and addresses")
    given = parser.parse_args(arguments)
    if given.fill:
        for path, text in filled(ROOT).items():
            path.write_text(text, encoding="utf-8")
        return 0
    problems = release_faults(given.release, ROOT) if given.release else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.output or temporary)
        # By way of the source distribution, so that this is checked to be complete as well.
        source = copy_for_pypi(ROOT, Path(temporary) / "source")
        subprocess.run([sys.executable, "-m", "build", "--outdir", folder, source], check=True)
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


def addresses(root: Path) -> dict[str, str]:
    """``[project.urls]`` of pyproject.toml: empty until the names are registered."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    return dict(project.get("urls", {}))


def filled(root: Path) -> dict[Path, str]:
    """The files that repeat the version and the addresses, as they should be."""
    code = (root / "src/napari_simmat/__init__.py").read_text("utf-8")
    [version] = re.findall(r'^__version__ = "(.*)"$', code, re.M)
    values = {"version": version, **addresses(root)}
    texts: dict[Path, str] = {}
    for name, key, source in REPEATED:
        path = root / name
        text = texts.get(path) or path.read_text("utf-8")
        value = values.get(source)
        quoted = f'"{value}"' if source == "version" and path.suffix == ".yaml" else value
        line = f"{key}: {quoted}" if value else f"# {key}:"
        texts[path] = re.sub(rf"^(# )?{key}:.*$", line, text, count=1, flags=re.M)
    page = root / "docs/notebooks.md"
    if page.exists():
        hosted = hosted_line(root)
        texts[page] = re.sub(rf"^{HOSTED}.*$", hosted, page.read_text("utf-8"), flags=re.M)
    return texts


def hosted_line(root: Path) -> str:
    """The line of the page of notebooks that opens them in a hosted service; bare without names."""
    repository = addresses(root).get("Repository", "")
    name = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", repository)
    if name is None:
        return HOSTED
    begin = f"https://colab.research.google.com/github/{name[1]}/blob/main/docs/notebooks"
    paths = sorted((root / "docs/notebooks").glob("*.ipynb"))
    links = ", ".join(f"[{path.stem}]({begin}/{path.name})" for path in paths)
    return f"{HOSTED} Open in Colab: {links}."


def release_faults(tag: str, root: Path) -> list[str]:
    """Messages about files that are not those of the release with this tag."""
    version = tag.removeprefix("v")
    code = (root / "src/napari_simmat/__init__.py").read_text("utf-8")
    found = []
    if f'__version__ = "{version}"' not in code:
        found.append(f"__version__ in napari_simmat/__init__.py is not that of the tag {tag}")
    if not addresses(root):
        found.append("pyproject.toml has no [project.urls]; register the names and fill them in")
    changes = (root / "CHANGELOG.md").read_text("utf-8")
    heading = re.search(rf"^## {re.escape(version)} \((.*)\)$", changes, re.M)
    if heading is None:
        found.append(f"CHANGELOG.md has no section {version}")
    elif not re.fullmatch(r"\d{4}-\d\d-\d\d", heading[1]):
        found.append(f"CHANGELOG.md gives {version} no date but {heading[1]!r}")
    return found + [
        f"{path.name} has another version or address; run check_package.py --fill"
        for path, text in filled(root).items()
        if path.read_text("utf-8") != text
    ]


def copy_for_pypi(root: Path, folder: Path) -> Path:
    """Copy the tree with a README whose links work on PyPI, where no files lie beside it."""
    skipped = shutil.ignore_patterns(".git", ".tox", ".venv", ".*_cache", "__pycache__", "site")
    shutil.copytree(root, folder, ignore=skipped)
    repository = addresses(root).get("Repository")
    if repository:
        readme = folder / "README.md"
        readme.write_text(absolute_links(readme.read_text("utf-8"), repository), encoding="utf-8")
    return folder


def absolute_links(page: str, repository: str) -> str:
    """A Markdown page whose relative links and pictures lead to the repository."""
    target = r"(?!https?://|#|mailto:)"
    page = re.sub(rf"(!\[[^\]]*\]\(){target}", rf"\1{repository}/raw/main/", page)
    return re.sub(rf"(?<!!)(\[[^\]]*\]\(){target}", rf"\1{repository}/blob/main/", page)


def relative_links(page: str) -> list[str]:
    """The links and pictures of a Markdown page that lead nowhere when it is shown elsewhere."""
    targets = re.findall(r"\]\(([^)\s]+)", page) + re.findall(r"(?:src|href)=\"([^\"]+)", page)
    return [target for target in targets if not re.match(r"https?://|#|mailto:", target)]


def faults(wheel: Path) -> list[str]:
    """Messages about files that are missing, too large or do not belong in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        texts = {
            Path(name).name: archive.read(name).decode() for name in sizes if ".dist-info/" in name
        }
    found = [f"{name} is not in the wheel" for name in NEEDED if not fnmatch.filter(sizes, name)]
    found += [
        f"{name} does not belong in the wheel"
        for name in sizes
        if not name.startswith(("napari_simmat/", "napari_simmat-")) or "__pycache__" in name
    ]
    models = {name: size for name, size in sizes.items() if name.endswith(".safetensors")}
    foundations = {name for name in models if Path(name).name.startswith("tiny")}
    found += [
        f"{name} has {models[name] / 1e6:.2f} MB, at most {LARGEST_FOUNDATION / 1e6:.0f} fit"
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
        found.append(f"the wheel has more than {LARGEST_WHEEL / 1e6:.1f} MB")
    if "Project-URL: Repository, https://" in texts["METADATA"]:
        dead = relative_links(texts["METADATA"])
        found += [f"the README's link {link} is dead on PyPI" for link in dead]
    return found + [
        f"the entry point {line!r} is missing"
        for line in (
            "napari-simmat = napari_simmat:napari.yaml",
            "simmat = napari_simmat.__main__:main",
        )
        if line not in texts.get("entry_points.txt", "")
    ]


if __name__ == "__main__":
    sys.exit(main())
