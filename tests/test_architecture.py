"""What is imported is declared, and importing the package is free; the linter checks the layers."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import tifffile

import napari_simmat
from napari_simmat.annotation.session_image import SessionImage
from napari_simmat.engine.image_stack import StackOptions
from tests.widgets.scenes import gray

PACKAGE = "napari_simmat"
SOURCE = Path(__file__).resolve().parents[1] / "src" / PACKAGE
MODULES = sorted(SOURCE.rglob("*.py"))

WINDOW = {"napari", "qtpy", "magicgui", "superqt", "PyQt5", "PyQt6", "PySide2", "PySide6"}

# Asked for where it is there, with a sentence or another way where it is not.
OPTIONAL = {
    "nibabel",
    "pydicom",
    "highdicom",
    "simpleitk",
    "bioio",
    "npe2",
    "astropy",
    "bioio-base",
    "distributed",
    "laptrack",
    "liffile",
    "lightning-fabric",
    "matplotlib",
    "huggingface-hub",
    "anndata",
    "geopandas",
    "spatialdata",
    "ipython",
    "pandas",
    "pyarrow",
    "timm",
    "transformers",
    "tokenizers",
}
COME_WITH_NAPARI = {"vispy", "npe2", "app-model", "packaging", "psygnal"}


WITHOUT_NAPARI = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("napari", "qtpy", "PyQt6", "magicgui", "superqt", "npe2"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import napari_simmat

parts = pkgutil.walk_packages(napari_simmat.__path__, "napari_simmat.", onerror=lambda name: None)
names = [part.name for part in parts if not part.name.startswith("napari_simmat.widgets")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
assert len(names) > 50
from napari_simmat.cli import main

sys.exit(main(["segment", "image.tif", "--model", "tiny", "--prompts", "auto", "--output", "."]))
"""


def imported_by(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of each module that a file imports, wherever in the file it does."""
    own = [PACKAGE, *path.relative_to(SOURCE).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if is_import_call(node):
            yield node.lineno, node.args[0].value
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [] if node.level == 0 else own[: len(own) - node.level]
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield node.lineno, module
            if module == PACKAGE:
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def test_imports_of_the_package_are_declared():
    """A package that only comes along with another one may stop coming."""
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {name_of(requirement) for requirement in project["dependencies"]}
    of_extras = {
        name_of(requirement)
        for requirements in project["optional-dependencies"].values()
        for requirement in requirements
    }
    homes = packages_distributions()
    unknown = set()
    for path in MODULES:
        in_window = path.relative_to(SOURCE).parts[0] == "widgets"
        for _, module in imported_by(path):
            top = module.split(".")[0]
            if top == PACKAGE or top in sys.stdlib_module_names:
                continue
            # What is not installed here is not told by its import name; by its own, mostly.
            names = {name_of(home) for home in homes.get(top, [top])}
            if names <= OPTIONAL or (in_window and names & (of_extras | COME_WITH_NAPARI)):
                continue
            if not names & declared:
                unknown.add(f"{path.relative_to(SOURCE)}: {top}")
    assert not unknown


def test_no_class_name_stands_for_two_things():
    names = Counter(
        node.name
        for path in SOURCE.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_import_of_the_package_loads_nothing_heavy():
    """In a fresh interpreter; counted in modules, since a clock depends on the machine."""
    loaded = modules_after("import napari_simmat")
    assert not loaded & {"torch", "numpy", "dask", "segment_anything", *WINDOW}
    assert len([name for name in loaded if name.startswith(PACKAGE)]) == 1


def test_import_of_model_spec_loads_no_torch():
    loaded = modules_after("from napari_simmat import ModelSpec")
    assert not loaded & {"torch", "segment_anything", *WINDOW}


@pytest.mark.parametrize("name", ["Predictor", "Prompt", "Result", "ModelSpec", "load_model"])
def test_public_name_is_listed_and_resolves(name):
    import napari_simmat

    assert name in dir(napari_simmat)
    assert getattr(napari_simmat, name).__module__.startswith(PACKAGE)


def test_names_of_channels_have_one_name_in_python():
    """`channel_names`, wherever an image is given; `channels` are those that a model reads."""
    given = napari_simmat.Predictor.set_image, napari_simmat.learn_objects, SessionImage.of
    assert "channel_names" in StackOptions.__annotations__
    assert "names" not in StackOptions.__annotations__
    calls = [*given, *(getattr(napari_simmat, name) for name in ("segment", "learn", "evaluate"))]
    for call in (*calls, napari_simmat.train):
        parameters = inspect.signature(call).parameters
        assert "names" not in parameters, call
        assert "channel_names" in parameters or "more" in parameters, call


def test_unknown_name_raises_attribute_error():
    import napari_simmat

    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = napari_simmat.nonsense


def test_package_without_napari_segments_an_image(tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", gray()[::2, ::2])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NAPARI],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert tifffile.imread(tmp_path / "image_labels.tif").max() >= 3


def is_import_call(node: ast.AST) -> bool:
    """Whether this is ``import_module("name")``."""
    return (
        isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module"
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
    )


def name_of(requirement: str) -> str:
    """The normalized name in a requirement such as ``dask[array]>=2024.8``."""
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def modules_after(statement: str) -> set[str]:
    """Names of all modules that a fresh interpreter holds after a statement."""
    program = (
        f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("given", [None, "active"])
def test_import_lets_waiting_threads_sleep(monkeypatch, given):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    code = "import os, napari_simmat; print(os.environ['OMP_WAIT_POLICY'])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == (given or "passive")
