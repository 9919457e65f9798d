"""Rehearse or begin a release: ``python scripts/release.py v0.1.0 --dry-run``.

It does, in order, all that needs no account, and says what the owner does by hand. With
``--dry-run`` nothing outside the output folder changes; without it the tag is made in the end, if
nothing failed. A check whose program is not installed is told, and counts as not done.

``pip install --group release`` brings the programs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from check_package import addresses, release_faults

ROOT = Path(__file__).resolve().parents[1]
HERE = "https://example.org"
"""In place of the repository's address until there is one; only a rehearsal has it."""


class NotDoneError(Exception):
    """A step that could not be tried, and why."""


@dataclass(frozen=True)
class Release:
    """What is released, and where its files go."""

    tag: str
    output: Path

    @property
    def version(self) -> str:
        """Of the package, ``0.1.0``."""
        return self.tag.removeprefix("v")

    @property
    def series(self) -> str:
        """Of the documentation, ``0.1``."""
        return ".".join(self.version.split(".")[:2])


@dataclass(frozen=True)
class Step:
    """Something to do: by this program, or by hand if there is nothing to run."""

    title: str
    run: Callable[[Release], str] | None = None
    """Returns what is to be said; raises CalledProcessError, ValueError or NotDoneError."""
    by_hand: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Take all steps; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tag", help="of the release, v1.2.3")
    parser.add_argument("--dry-run", action="store_true", help="make no tag")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="for the distributions")
    given = parser.parse_args(arguments)
    if not re.fullmatch(r"v\d+\.\d+\.\d+((a|b|rc)\d+)?", given.tag):
        parser.error(f"{given.tag} is no tag of a release; write it as v1.2.3.")
    release = Release(given.tag, given.output.resolve())
    release.output.mkdir(parents=True, exist_ok=True)
    states = [take(number, step, release) for number, step in enumerate(STEPS, start=1)]
    for state in ("done", "by hand", "not tried", "FAILED"):
        print(f"{state}: {states.count(state)}")
    if "FAILED" in states:
        return 1
    if not given.dry_run:
        git("tag", given.tag)
        print(f"Now: git push origin {given.tag}")
    return 0


def take(number: int, step: Step, release: Release) -> str:
    """Take one step, and say what became of it."""
    said, state = step.by_hand.format(release=release), "by hand"
    if step.run is not None:
        try:
            said, state = step.run(release), "done"
        except NotDoneError as why:
            said, state = f"{why} {said}".strip(), "not tried"
        except subprocess.CalledProcessError as error:
            tail = (error.stdout or "").strip().splitlines()[-15:]
            said, state = "\n".join(tail) or str(error), "FAILED"
        except ValueError as error:
            said, state = str(error), "FAILED"
    print(f"{number:2}. {step.title}: {state}", flush=True)
    for line in said.splitlines():
        print(f"    {line}", flush=True)
    return state


def run(*words: str, folder: Path = ROOT, **more: str) -> str:
    """The output of a program; its variables are `more`."""
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return done.stdout


def python(module: str, *words: str, folder: Path = ROOT, **more: str) -> str:
    """The output of a module of this interpreter; NotDoneError if it is not installed."""
    if find_spec(module) is None:
        raise NotDoneError(f"{module} is not installed.")
    return run(sys.executable, "-m", module, *words, folder=folder, **more)


def program(name: str) -> str:
    """The path of a program, beside this interpreter first; NotDoneError if there is none."""
    beside = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    found = shutil.which(name, path=beside)
    if found is None:
        raise NotDoneError(f"{name} is not installed.")
    return found


def git(*words: str, folder: Path = ROOT) -> str:
    """The output of git."""
    return run("git", *words, folder=folder)


def check_tree(release: Release) -> str:
    """Refuse a tree with changes, and files that are not of this release."""
    problems = release_faults(release.tag, ROOT)
    if git("status", "--porcelain"):
        problems.append("the tree has changes that are not committed")
    if problems:
        raise ValueError("\n".join(problems))
    return "version, changelog, addresses and tree fit"


def build(release: Release) -> str:
    """Source distribution and wheel, checked for what is in them and how PyPI shows the README."""
    if find_spec("twine") is None or find_spec("build") is None:
        raise NotDoneError("build or twine is not installed.")
    for old in release.output.glob("napari_simmat-*"):
        old.unlink()
    words = ["scripts/check_package.py", "--output", str(release.output)]
    run(sys.executable, *words)
    sums = [f"{digest(path)}  {path.name}" for path in distributions(release)]
    (release.output / "SHA256SUMS").write_text("".join(f"{each}\n" for each in sums))
    return "\n".join(sums)


def distributions(release: Release) -> list[Path]:
    """The files that were built; ValueError if there are none."""
    found = sorted(release.output.glob("napari_simmat-*"))
    if not found:
        raise ValueError("there are no distributions; see above")
    return found


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def install(release: Release) -> str:
    """The wheel in a folder of its own, with the dependencies of this interpreter: it starts."""
    if find_spec("cyclopts") is None:
        raise NotDoneError("The dependencies of the package are not installed.")
    wheel = next(path for path in distributions(release) if path.suffix == ".whl")
    with tempfile.TemporaryDirectory() as folder:
        python("pip", "install", "--quiet", "--no-deps", "--target", folder, str(wheel))
        known = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH", ""))))
        words = [sys.executable, "-m", "napari_simmat", "--version"]
        return run(*words, folder=Path(folder), PYTHONPATH=known).strip()


def citation(_: Release) -> str:
    """CITATION.cff by its schema, and the DOI if it has one."""
    run(program("cffconvert"), "--validate", "--infile", "CITATION.cff")
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    return "valid" if re.search(r"^doi:", text, re.M) else "valid; it has no DOI yet"


def manifest(_: Release) -> str:
    """The plugin's manifest, by npe2, and the classifier that the hub looks for."""
    if "Framework :: napari" not in (ROOT / "pyproject.toml").read_text("utf-8"):
        raise ValueError("pyproject.toml lacks the classifier Framework :: napari")
    return python("npe2", "validate", str(ROOT / "src/napari_simmat/napari.yaml")).strip()


def recipe(release: Release) -> str:
    """The recipe for conda-forge, with the address and checksum of this release."""
    sdist = next(path for path in distributions(release) if path.name.endswith(".tar.gz"))
    base = addresses(ROOT).get("Repository", HERE)
    url = f"{base}/releases/download/{release.tag}/{sdist.name}"
    text = (ROOT / "recipe/recipe.yaml").read_text("utf-8")
    source = f"  url: {url}\n  sha256: {digest(sdist)}"
    filled, count = re.subn(r"^  path: \.\.$", source, text, flags=re.M)
    if count != 1:
        raise ValueError("recipe/recipe.yaml has no line `path: ..` to replace")
    target = release.output / "recipe.yaml"
    target.write_text(filled, encoding="utf-8")
    tool = shutil.which("rattler-build")
    if tool is None:
        return f"{target.name} is written; rattler-build, which would build it, is not installed"
    run(tool, "build", "--recipe", "recipe", "--render-only")
    return f"{target.name} is written and rendered"


def container(_: Release) -> str:
    """The Containerfile by hadolint; built if there is a builder."""
    run(program("hadolint"), "--failure-threshold", "warning", "Containerfile")
    builder = shutil.which("podman") or shutil.which("docker")
    if builder is None:
        return "hadolint has no remark; there is no podman or docker to build it"
    run(builder, "build", "--file", "Containerfile", "--tag", "napari-simmat", ".")
    return "built, hadolint has no remark"


def documentation(release: Release) -> str:
    """The pages without a warning, then as a version beside others, in a copy of the repository."""
    mike = program("mike")
    if find_spec("material") is None:
        raise NotDoneError("mkdocs-material is not installed.")
    who = {
        f"GIT_{role}_{key}": "release"
        for role in ("AUTHOR", "COMMITTER")
        for key in ("NAME", "EMAIL")
    }
    with tempfile.TemporaryDirectory() as temporary:
        copy, site = Path(temporary) / "copy", Path(temporary) / "site"
        git("clone", "--quiet", str(ROOT), str(copy))
        python("mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site), folder=copy)
        run(mike, "deploy", "--update-aliases", release.series, "latest", folder=copy, **who)
        return f"versions: {run(mike, 'list', folder=copy).strip()}"


STEPS = (
    Step("Version, changelog, addresses", check_tree),
    Step("Distributions: built and checked", build),
    Step("The wheel starts", install),
    Step("Citation", citation),
    Step("Manifest and hub", manifest),
    Step("Recipe for conda-forge", recipe),
    Step("Container", container),
    Step("Documentation, with versions", documentation),
    Step(
        "Push",
        by_hand="git push origin {release.tag}: the workflow `release` publishes on PyPI. Its "
        "attestations (PEP 740) are the signatures, made by Sigstore with the workflow's identity.",
    ),
    Step(
        "Verify the signature",
        by_hand="pip install pypi-attestations, then pypi-attestations verify pypi --repository "
        "ADDRESS pypi:NAME-OF-THE-WHEEL",
    ),
    Step(
        "DOI",
        by_hand="Zenodo archives the release on GitHub; write its DOI into CITATION.cff (doi:) and "
        "docs/help.md",
    ),
    Step("Container", by_hand="push the image that was built to the registry of your choice"),
    Step(
        "conda-forge",
        by_hand="a pull request to conda-forge/staged-recipes with the file recipe.yaml",
    ),
    Step("napari hub", by_hand="it lists the package within a day of PyPI; look at its page"),
    Step(
        "Notebooks and workflows",
        by_hand="docs/notebooks.md has the addresses of hosted notebooks; open one, and put the "
        "line that installs the published package before it. The published container goes into "
        "workflows/nextflow/modules/simmat/segment/main.nf",
    ),
)

if __name__ == "__main__":
    sys.exit(main())
