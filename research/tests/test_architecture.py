"""What research imports is declared, and the command line starts without it."""

import ast
import sys
import tomllib
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path

import pytest

from napari_simmat.cli.extensions import COMMANDS, DATASETS
from tests.test_architecture import modules_after, name_of

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "research/src/simmat_research"


def dependencies(folder):
    """Names of the distributions that the project in a folder asks for."""
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    return {name_of(each) for each in project["dependencies"]}


def imported():
    """The packages that any file imports, wherever in the file it does."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module.split(".")[0]


def test_imports_are_declared_here_or_by_the_product():
    declared = dependencies(ROOT) | dependencies(ROOT / "research")
    homes = packages_distributions()
    unknown = {
        name
        for name in imported()
        if name not in {SOURCE.name, *sys.stdlib_module_names}
        and not {name_of(home) for home in homes.get(name, [name])} & declared
    }
    assert not unknown


@pytest.mark.parametrize(
    ("group", "names"), [(COMMANDS, {"benchmark", "pretrain"}), (DATASETS, {"generated"})]
)
def test_entry_points_of_research_are_installed_and_load(group, names):
    found = {each.name: each.load() for each in entry_points(group=group)}
    assert names <= set(found)
    assert all(found[name].__module__.startswith("simmat_research.") for name in names)


def test_help_lists_the_commands_without_importing_research():
    loaded = modules_after("from napari_simmat.cli import main; main(['--help'])")
    assert "napari_simmat.cli" in loaded
    assert not loaded & {"simmat_research", "torch"}


def test_commands_load_no_torch():
    assert "torch" not in modules_after("import simmat_research.cli")
