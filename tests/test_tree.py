"""The tree of the tests mirrors that of the package: a module has its tests under its name."""

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parent
SOURCE = TESTS.parent / "src/napari_simmat"

# Of the whole program: recorded results, real windows, counted costs; and what lies at the root.
WHOLE = ("golden", "window", "benchmarks", ".")


def test_file_of_tests_is_named_after_a_module():
    """``tests/FOLDER/test_MODULE.py`` or ``test_MODULE_ASPECT.py``, for ``FOLDER/MODULE.py``."""
    strangers = []
    for path in TESTS.rglob("test_*.py"):
        folder = path.parent.relative_to(TESTS)
        if str(folder) in WHOLE:
            continue
        # The package's own file, `cli/__init__.py`, goes by the folder's name.
        modules = {module.stem for module in (SOURCE / folder).glob("*.py")} | {folder.name}
        name = path.stem.removeprefix("test_")
        if not any(f"{name}_".startswith(f"{module}_") for module in modules):
            strangers.append(str(path.relative_to(TESTS)))
    assert not strangers


def test_name_of_a_test_fits_a_line():
    long = [
        f"{path.relative_to(TESTS)}: {node.name}"
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        if len(node.name) > 60
    ]
    assert not long
