"""What makes the package found, cited, published and installed agrees with pyproject.toml."""

import csv
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from napari_simmat.checkpoints.registry import list_models
from napari_simmat.io.files import SAMPLES

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "CITATION.cff").exists():
    pytest.skip("no files of the repository here", allow_module_level=True)
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
URLS = PROJECT["urls"]
TEXTS = (
    "*.*",
    "Containerfile",
    ".github/**/*.*",
    "recipe/*",
    "docs/**/*.md",
    "src/**/*.py",
    "scripts/*.py",
    "research/*.*",
    "research/src/**/*.py",
    "research/scripts/*.py",
)
# conda-forge's names where they differ.
CONDA = {
    "openslide-bin": "openslide",
    "dask[array]": "dask-core",
    "docstring-parser": "docstring_parser",
    "torch": "pytorch",
    "xxhash": "python-xxhash",
    "matplotlib": "matplotlib-base",
    "SimpleITK": "simpleitk",
}


@pytest.fixture
def check_package(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import check_package

    yield check_package
    sys.modules.pop("check_package", None)


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


def test_readme_on_pypi_has_absolute_links_alone(check_package):
    """PyPI and the napari hub show it without the files beside it."""
    readme = (ROOT / "README.md").read_text("utf-8")
    assert check_package.relative_links(readme)
    absolute = check_package.absolute_links(readme, "https://host/owner/name")
    assert not check_package.relative_links(absolute)
    assert "](https://host/owner/name/raw/main/docs/images/demo.webp)" in absolute
    assert "](https://host/owner/name/blob/main/docs/quickstart.md)" in absolute


def test_addresses_are_those_of_pyproject(check_package):
    """Empty until the names are registered: nothing may point at one that anybody could take."""
    assert all(path.read_text("utf-8") == text for path, text in check_package.filled(ROOT).items())
    named = re.compile(
        r"https?://[\w./-]*napari[-_]simmat[\w./-]*|pip install [^\n`]*napari-simmat[^\n`]*"
    )
    wrong = []
    for path in filter(Path.is_file, (path for pattern in TEXTS for path in ROOT.glob(pattern))):
        found = named.findall(path.read_text("utf-8"))
        wrong += [
            f"{path.relative_to(ROOT)}: {each}"
            for each in found
            if not each.startswith((*URLS.values(), *(["pip"] if URLS else [])))
        ]
    assert not wrong


def test_addresses_once_filled_reach_every_file(check_package, tmp_path):
    for name in ("CITATION.cff", "mkdocs.yml", "recipe", "src/napari_simmat/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    urls = {"Homepage": "https://a", "Repository": "https://b", "Documentation": "https://c"}
    lines = [f'{name} = "{url}"' for name, url in urls.items()]
    (tmp_path / "pyproject.toml").write_text("[project.urls]\n" + "\n".join(lines))
    for path, text in check_package.filled(tmp_path).items():
        path.write_text(text)
    assert yaml.safe_load((tmp_path / "CITATION.cff").read_text())["url"] == "https://a"
    about = yaml.safe_load((tmp_path / "recipe/recipe.yaml").read_text())["about"]
    assert [about[name] for name in ("homepage", "repository", "documentation")] == [*urls.values()]
    assert "site_url: https://c\nrepo_url: https://b\n" in (tmp_path / "mkdocs.yml").read_text()


def conda_name(requirement: str) -> str:
    """``dask[array]>=2024.8`` as conda-forge has it, ``dask-core >=2024.8``."""
    name, bound = re.fullmatch(r"([\w.\[\]-]+?)(>=.*)?", requirement).groups()  # type: ignore[union-attr]
    return f"{CONDA.get(name, name)} {bound or ''}".strip()


def test_recipe_requires_what_pyproject_requires():
    recipe = load("recipe/recipe.yaml")
    [python, *run] = recipe["requirements"]["run"]
    assert python == "python >=${{ python_min }}"
    assert sorted(run) == sorted(map(conda_name, PROJECT["dependencies"]))
    constrained = {
        conda_name(each)
        for name, group in EXTRAS.items()
        for each in group
        if name not in ("all", "pyside")
    }
    assert set(recipe["requirements"]["run_constraints"]) == constrained
    assert recipe["build"]["python"]["entry_points"] == [
        f"{name} = {target}" for name, target in PROJECT["scripts"].items()
    ]


def test_citation_has_the_license_of_the_project():
    assert load("CITATION.cff")["license"] == PROJECT["license"]


def test_source_of_training_images_is_credited():
    sources = {
        name: (values["source"], values["license"])
        for model in list_models()
        for name, values in (model.spec.training.get("sources", {}) if model.spec else {}).items()
    }
    with (ROOT / "docs/reports/data/tiny-5-sources.csv").open(newline="", encoding="utf-8") as file:
        table = {row["folder"]: (row["source"], row["license"]) for row in csv.DictReader(file)}
    assert sources == table
    text = (ROOT / "THIRD_PARTY.md").read_text("utf-8")
    rows = {row.split("`")[1]: row for row in text.splitlines() if row.startswith("| `")}
    for name, (source, license_) in sources.items():
        address, commit = re.findall(r"(github[.]com/\S+) (@\w+)", source)[0]
        assert f"| {address} {commit} | {license_.replace('CC-BY', 'CC BY')} |" in rows[name], name


def test_oldest_napari_is_the_same_everywhere():
    main = (ROOT / "src/napari_simmat/widgets/main.py").read_text("utf-8")
    [oldest] = re.findall(r'^OLDEST_NAPARI = "(.*)"$', main, re.M)
    named = [each for group in EXTRAS.values() for each in group if each.startswith("napari")]
    bounds = {each.split(">=")[1] for each in named if ">=" in each}
    assert bounds == {oldest}


def test_plain_installation_brings_no_window_and_no_plots():
    names = {re.split(r"\W", each)[0] for each in PROJECT["dependencies"]}
    assert not names & {"napari", "qtpy", "superqt", "magicgui", "matplotlib"}
    assert "roifile" in names


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, ""),
        ({"CHANGELOG.md": "## 1.2.3 (unreleased)"}, "no date but 'unreleased'"),
        ({"CHANGELOG.md": "## 1.2.2 (2026-11-27)"}, "no section 1.2.3"),
        ({"CITATION.cff": "version: 1.2.2"}, "CITATION.cff has another version"),
        ({"pyproject.toml": "[project.urls]"}, "has no [project.urls]"),
        ({"src/napari_simmat/__init__.py": '__version__ = "1.2.2"'}, "not that of the tag v1.2.3"),
    ],
)
def test_release_with_a_file_of_another_version_is_refused(
    changed, message, tmp_path, check_package
):
    files = {
        "CHANGELOG.md": "## 1.2.3 (2026-11-27)",
        "CITATION.cff": "version: 1.2.3",
        "mkdocs.yml": "",
        "pyproject.toml": '[project.urls]\nIssues = "https://a"',
        "recipe/recipe.yaml": '  version: "1.2.3"',
        "src/napari_simmat/__init__.py": '__version__ = "1.2.3"',
    }
    for name, text in (files | changed).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    found = check_package.release_faults("v1.2.3", tmp_path)
    assert message in " ".join(found)
    assert bool(found) == bool(message)


def test_workflows_run_environments_that_exist():
    tox = (ROOT / "tox.ini").read_text("utf-8")
    known = set(re.findall(r"^\[testenv:(\w+)\]", tox, re.M)) | {"py"}
    used = set()
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        text = path.read_text("utf-8")
        assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
        for names in re.findall(r"(?:tox -e|environment:) \[?(\w[\w, ]*)", text):
            used |= set(re.split(r"\W+", names.strip()))
    assert known - {"py", "release"} <= used | {"lint"}  # the owner rehearses before the tag
    assert used - {"pypi", "github"} <= known


def test_stored_samples_together_have_at_most_400_kilobytes():
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) <= 400_000


@pytest.fixture
def release(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import release

    yield release
    for name in ("release", "check_package"):
        sys.modules.pop(name, None)


def test_release_goes_on_after_a_fault(release, tmp_path, monkeypatch, capsys):
    def refuse(_):
        raise ValueError("the tree has changes")

    def cannot(_):
        raise release.NotDoneError("hadolint is not installed.")

    def fail(_):
        release.run(sys.executable, "-c", "print('why'); raise SystemExit(3)")

    steps = [
        release.Step("Tree", refuse),
        release.Step("Container", cannot),
        release.Step("Build", fail),
        release.Step("Series", lambda made: made.series),
        release.Step("Push", by_hand="git push origin {release.tag}"),
    ]
    monkeypatch.setattr(release, "STEPS", steps)
    monkeypatch.setattr(release, "git", lambda *_: pytest.fail("no tag after a fault"))
    assert release.main(["v1.2.3", "--output", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:10] == [
        " 1. Tree: FAILED", "    the tree has changes",
        " 2. Container: not tried", "    hadolint is not installed.",
        " 3. Build: FAILED", "    why",
        " 4. Series: done", "    1.2",
        " 5. Push: by hand", "    git push origin v1.2.3",
    ]  # fmt: skip
    made = []
    monkeypatch.setattr(release, "STEPS", steps[3:])
    monkeypatch.setattr(release, "git", lambda *words: made.append(words))
    assert release.main(["v1.2.3", "--output", str(tmp_path), "--dry-run"]) == 0
    assert made == []
    assert release.main(["v1.2.3", "--output", str(tmp_path)]) == 0
    assert made == [("tag", "v1.2.3")]
    with pytest.raises(SystemExit):
        release.main(["1.2"])


def test_release_recipe_has_address_and_checksum(release, tmp_path, monkeypatch):
    monkeypatch.setattr(release.shutil, "which", lambda *_, **__: None)
    sdist = tmp_path / "napari_simmat-1.2.3.tar.gz"
    sdist.write_bytes(b"abc")
    made = release.Release("v1.2.3", tmp_path)
    assert "recipe.yaml is written" in release.recipe(made)
    source = yaml.safe_load((tmp_path / "recipe.yaml").read_text())["source"]
    assert source["url"].endswith("/releases/download/v1.2.3/napari_simmat-1.2.3.tar.gz")
    # echo -n abc | sha256sum
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert source["sha256"] == known
    sdist.unlink()
    with pytest.raises(ValueError, match="there are no distributions"):
        release.recipe(made)


def test_hosted_notebooks_are_filled_in_by_the_repository(check_package, tmp_path):
    (tmp_path / "docs/notebooks").mkdir(parents=True)
    (tmp_path / "docs/notebooks/one.ipynb").touch()
    urls = "[project]\n[project.urls]\nRepository = "
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    assert check_package.hosted_line(tmp_path) == "<!-- hosted -->"
    (tmp_path / "pyproject.toml").write_text(f'{urls}"https://github.com/who/what"\n')
    begin = "https://colab.research.google.com/github/who/what/blob/main/docs/notebooks"
    line = f"<!-- hosted --> Open in Colab: [one]({begin}/one.ipynb)."
    assert check_package.hosted_line(tmp_path) == line
    assert "<!-- hosted -->" in (ROOT / "docs/notebooks.md").read_text().splitlines()
