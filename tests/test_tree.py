"""The tree of the tests mirrors that of the package: a module has its tests under its name."""

import ast
from collections.abc import Collection
from pathlib import Path

TESTS = Path(__file__).resolve().parent
SOURCE = TESTS.parent / "src/napari_simmat"

# Of the whole program: recorded results, real windows, counted costs; and what lies at the root.
WHOLE = ("golden", "window", "benchmarks", ".")


def strangers(tests: Path, source: Path, whole: Collection[str]) -> list[str]:
    """Files of tests that no module has given its name.

    ``FOLDER/test_MODULE.py`` or ``test_MODULE_ASPECT.py`` tests ``FOLDER/MODULE.py``.

    Parameters
    ----------
    tests, source
        The folders that mirror each other.
    whole
        Folders of tests that are of no module.
    """
    found = []
    for path in tests.rglob("test_*.py"):
        folder = path.parent.relative_to(tests)
        if str(folder) in whole:
            continue
        # The package's own file, `cli/__init__.py`, goes by the folder's name.
        modules = {module.stem for module in (source / folder).glob("*.py")} | {folder.name}
        name = path.stem.removeprefix("test_")
        if not any(f"{name}_".startswith(f"{module}_") for module in modules):
            found.append(str(path.relative_to(tests)))
    return found


def long_names(tests: Path) -> list[str]:
    """Names of tests that do not fit a line."""
    return [
        f"{path.relative_to(tests)}: {node.name}"
        for path in tests.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        if len(node.name) > 60
    ]


def test_file_of_tests_is_named_after_a_module():
    assert not strangers(TESTS, SOURCE, WHOLE)


def test_name_of_a_test_fits_a_line():
    assert not long_names(TESTS)
