"""What makes the package found, cited, published and installed agrees with pyproject.toml."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from napari_simmat import __version__

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "CITATION.cff").exists():
    pytest.skip("no files of the repository here", allow_module_level=True)
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
URLS = PROJECT["urls"]
# conda-forge's names where they differ.
CONDA = {
    "dask[array]": "dask-core",
    "torch": "pytorch",
    "xxhash": "python-xxhash",
    "matplotlib": "matplotlib-base",
}


@pytest.fixture
def check_package(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import check_package

    yield check_package
    sys.modules.pop("check_package", None)


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


def test_the_readme_has_no_relative_link(check_package: Any) -> None:
    """PyPI and the napari hub show it without the files beside it."""
    readme = (ROOT / "README.md").read_text("utf-8")
    assert not check_package.relative_links(readme)
    assert check_package.relative_links("[a](docs/a.md) ![b](b.png) <img src='c'>") == [
        "docs/a.md",
        "b.png",
    ]


def test_links_to_the_documentation_lead_to_its_pages() -> None:
    site = re.escape(URLS["Documentation"])
    for name in ("README.md", "SECURITY.md", *map(str, (ROOT / ".github").rglob("*.yml"))):
        for page in re.findall(rf"{site}([\w/-]*)", (ROOT / name).read_text("utf-8")):
            found = ROOT / "docs" / (page.strip("/") or "index")
            sources = (found.with_suffix(".md"), found.with_suffix(".ipynb"))
            assert any(map(Path.exists, sources)), f"{name} links to {page}"


def test_pictures_of_the_readme_are_there() -> None:
    raw = URLS["Repository"].replace("github.com", "raw.githubusercontent.com")
    pictures = re.findall(rf"{re.escape(raw)}/main/([^)\s]+)", (ROOT / "README.md").read_text())
    assert pictures
    assert all((ROOT / name).exists() for name in pictures)


def test_every_place_names_the_addresses_of_pyproject() -> None:
    """Whoever publishes elsewhere changes pyproject.toml, and is told here what else to change."""
    homes = "|".join(("napari-simmat.github.io", "/napari-simmat(?=[/\"' )]|$)"))
    named = re.compile(rf"https://[\w./-]*(?:{homes})[\w./-]*")
    raw = URLS["Repository"].replace("github.com", "raw.githubusercontent.com")
    known = (URLS["Repository"], URLS["Documentation"], raw, "https://pypi.org/")
    wrong = []
    for path in [
        *(ROOT / name for name in ("README.md", "CITATION.cff", "SECURITY.md", "mkdocs.yml")),
        *(ROOT / name for name in ("CODE_OF_CONDUCT.md", "recipe/recipe.yaml")),
        *(ROOT / ".github").rglob("*.*"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "src").rglob("*.py"),
    ]:
        found = named.findall(path.read_text("utf-8"))
        wrong += [f"{path.name}: {url}" for url in found if not url.startswith(known)]
    assert not wrong
    assert load("CITATION.cff")["repository-code"] == URLS["Repository"]
    about = load("recipe/recipe.yaml")["about"]
    assert (about["repository"], about["homepage"]) == (URLS["Repository"], URLS["Homepage"])
    site = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert f"site_url: {URLS['Documentation']}" in site
    assert f"repo_url: {URLS['Repository']}" in site


def conda_name(requirement: str) -> str:
    """``dask[array]>=2024.8`` as conda-forge has it, ``dask-core >=2024.8``."""
    name, bound = re.fullmatch(r"([\w.\[\]-]+?)(>=.*)?", requirement).groups()  # type: ignore[union-attr]
    return f"{CONDA.get(name, name)} {bound or ''}".strip()


def test_the_recipe_needs_what_pyproject_needs() -> None:
    recipe = load("recipe/recipe.yaml")
    [python, *run] = recipe["requirements"]["run"]
    assert python == "python >=${{ python_min }}"
    assert sorted(run) == sorted(map(conda_name, PROJECT["dependencies"]))
    constrained = {
        conda_name(each) for name, group in EXTRAS.items() for each in group if name != "all"
    }
    assert set(recipe["requirements"]["run_constraints"]) == constrained
    assert recipe["context"]["version"] == __version__
    assert recipe["build"]["python"]["entry_points"] == [
        f"{name} = {target}" for name, target in PROJECT["scripts"].items()
    ]


def test_the_citation_is_of_this_version() -> None:
    citation = load("CITATION.cff")
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["license"]


def test_the_oldest_napari_is_the_same_everywhere() -> None:
    main = (ROOT / "src/napari_simmat/widgets/main.py").read_text("utf-8")
    [oldest] = re.findall(r'^OLDEST_NAPARI = "(.*)"$', main, re.M)
    named = [each for group in EXTRAS.values() for each in group if each.startswith("napari")]
    bounds = {each.split(">=")[1] for each in named if ">=" in each}
    assert bounds == {oldest}


def test_a_plain_installation_brings_no_window_and_no_plots() -> None:
    names = {re.split(r"\W", each)[0] for each in PROJECT["dependencies"]}
    assert not names & {"napari", "qtpy", "superqt", "magicgui", "matplotlib"}
    assert "roifile" in names


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, ""),
        ({"CHANGELOG.md": "## 1.2.3 (unreleased)"}, "no date but 'unreleased'"),
        ({"CHANGELOG.md": "## 1.2.2 (2026-11-27)"}, "no section 1.2.3"),
        ({"CITATION.cff": "version: 1.2.2"}, "CITATION.cff lacks"),
        ({"src/napari_simmat/_text.py": '__version__ = "1.2.2"'}, "not that of the tag v1.2.3"),
    ],
)
def test_a_release_is_refused_unless_all_files_are_of_its_version(
    changed: dict[str, str], message: str, tmp_path: Path, check_package: Any
) -> None:
    files = {
        "CHANGELOG.md": "## 1.2.3 (2026-11-27)",
        "CITATION.cff": "version: 1.2.3",
        "recipe/recipe.yaml": '  version: "1.2.3"',
        "src/napari_simmat/_text.py": '__version__ = "1.2.3"',
    }
    for name, text in (files | changed).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    found = check_package.release_faults("v1.2.3", tmp_path)
    assert found == [] if not message else message in " ".join(found)
    assert len(found) <= 1


def test_workflows_run_environments_that_exist() -> None:
    tox = (ROOT / "tox.ini").read_text("utf-8")
    known = set(re.findall(r"^\[testenv:(\w+)\]", tox, re.M)) | {"py"}
    used = set()
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        workflow = yaml.safe_load(path.read_text("utf-8"))
        assert workflow["permissions"] == {"contents": "read"}
        for job in workflow["jobs"].values():
            for step in job["steps"]:
                for names in re.findall(r"tox -e ([\w,]+)", step.get("run", "")):
                    used |= set(names.split(","))
    assert {"pyside", "pre", "lowest", "docs"} <= used <= known
