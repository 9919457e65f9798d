"""The size of the project: ``python scripts/size.py [root of a checkout]``.

Prints files, lines, code lines, functions and functions of one statement for each folder of the
package, then the totals of product, research, tests and docs that `docs/contributing.md` names.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

SKIPPED = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
COLUMNS = ("files", "lines", "code", "functions", "of one statement", "largest")


def measure(path: Path) -> Counter[str]:
    """Counts of one file; an ``__init__.py`` counts no file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    docstrings: set[int] = set()
    counts: Counter[str] = Counter(files=int(path.name != "__init__.py"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        # Strings that stand alone are docstrings, those of attributes included.
        alone = [each for each in body if _is_string(each)]
        docstrings.update(n for each in alone for n in range(each.lineno, each.end_lineno + 1))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            counts["functions"] += 1
            counts["of one statement"] += len(body) - len(alone) == 1
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    code = {
        line
        for token in tokens
        if token.type not in SKIPPED
        for line in range(token.start[0], token.end[0] + 1)
    }
    counts["code"] = len(code - docstrings)
    counts["lines"] = text.count("\n")
    return counts


def _is_string(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def total(paths: list[Path]) -> Counter[str]:
    """Sums over files, and the lines of the largest."""
    each = [measure(path) for path in paths]
    counts: Counter[str] = Counter()
    for one in each:
        counts.update(one)
    counts["largest"] = max((one["lines"] for one in each), default=0)
    return counts


def importers(package: Path) -> tuple[int, int]:
    """How many modules exactly one other module imports, and how many modules there are."""
    names = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts): path
        for path in package.rglob("*.py")
        if path.name != "__init__.py"
    }
    imported: dict[str, set[str]] = {name: set() for name in names}
    for path in package.rglob("*.py"):
        here = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for module in {node.module, *(f"{node.module}.{a.name}" for a in node.names)}:
                    if module in imported and module != here:
                        imported[module].add(here)
    return sum(len(by) == 1 for by in imported.values()), len(names)


def main(root: Path) -> None:
    """Print the tables."""
    package = root / "src" / "napari_simmat"
    folders: dict[str, list[Path]] = {}
    for path in sorted(package.rglob("*.py")):
        folders.setdefault(str(path.parent.relative_to(package)), []).append(path)
    research = [path for path in package.rglob("*.py") if path.is_relative_to(package / "research")]
    product = [path for path in package.rglob("*.py") if path not in research]
    rows = {**folders, "PRODUCT": product, "RESEARCH": research, "TOGETHER": product + research}
    rows["TESTS"] = sorted((root / "tests").rglob("*.py"))
    rows["SCRIPTS"] = sorted((root / "scripts").glob("*.py"))
    print(f"{'':22}" + "".join(f"{name:>18}" for name in COLUMNS))
    for name, paths in rows.items():
        counts = total(paths)
        print(f"{name:22}" + "".join(f"{counts[column]:>18,}" for column in COLUMNS))
    alone, modules = importers(package)
    print(f"modules with one importer: {alone} of {modules}, {100 * alone / modules:.1f} %")
    docs = root / "docs"
    pages = [path for path in docs.rglob("*.md") if not path.is_relative_to(docs / "reports")]
    words = sum(len(path.read_text(encoding="utf-8").split()) for path in pages)
    print(f"user docs: {len(pages)} pages, {words:,} words")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
