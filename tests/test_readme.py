"""What the README and the documentation say can be done: the code runs, the commands exist."""

import json
import pkgutil
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from napari_simmat.cli import main
from napari_simmat.cli.extensions import RESEARCH_COMMANDS
from tests.nightly import nightly_but

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REPORTS = sorted((ROOT / "docs/reports").glob("*.md"))


def blocks(path: Path, language: str) -> list[str]:
    """The fenced code blocks of a page in one language, those within lists, too."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", path.read_text("utf-8"), re.M | re.S)
    return [textwrap.dedent(block) for block in found]


def command_lines() -> list[str]:
    """Each command of a shell block, lines joined where a backslash continues them."""
    lines = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                lines += [part.strip() for part in line.split("&&")]
    return lines


def has_python(page: Path) -> bool:
    return bool(blocks(page, "python"))


def simmat_commands() -> list[str]:
    return sorted({line for line in command_lines() if line.startswith("simmat")})


@pytest.mark.parametrize(
    "page", nightly_but(filter(has_python, PAGES), ROOT / "README.md"), ids=lambda page: page.name
)
def test_python_blocks_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    """From top to bottom, in one interpreter and a folder with the practice slide alone."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "docs/tutorials/stained.svs", "slide.svs")
    names: dict[str, object] = {"__name__": "readme"}
    for number, block in enumerate(blocks(page, "python"), start=1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)


def programs_of_pages(folder: Path) -> list[str]:
    """The Python blocks of each page as one program of a user."""
    programs = []
    for page in PAGES:
        if found := blocks(page, "python"):
            programs.append(folder / f"page_{page.stem.replace('-', '_').lower()}.py")
            programs[-1].write_text("\n".join(found))
    return [str(path) for path in programs]


@pytest.mark.slow
def test_python_blocks_of_all_pages_pass_strict_types(tmp_path):
    """As a user's own program, whose types are checked against those of the package.

    Calls of scikit-image do not count: half of it is typed.
    """
    api = pytest.importorskip("mypy.api")
    words = ["--strict", "--config-file=", "--untyped-calls-exclude=skimage"]
    cache = ROOT / ".mypy_cache/pages"  # the first time takes a quarter of a minute
    said, errors, _ = api.run([*words, f"--cache-dir={cache}", *programs_of_pages(tmp_path)])
    assert said.startswith("Success"), said + errors


@pytest.mark.slow
def test_python_blocks_of_all_pages_pass_pyright(tmp_path):
    """The checker of editors, by its usual settings; it needs node, which it may download."""
    pytest.importorskip("pyright")
    programs = programs_of_pages(tmp_path)
    settings = {
        "extraPaths": [str(ROOT / "src")],
        "useLibraryCodeForTypes": False,  # guesses from scikit-image's code are wrong
        "reportMissingImports": "none",  # packages of an example need not be here
        "reportMissingModuleSource": "none",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    words = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert len(programs) > 10
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["programmer", "embryo", "label-train-segment", "ms-lesions", "remote-sensing"]
)
def test_cells_of_a_notebook_run(name, tmp_path, monkeypatch, capsys):
    """From top to bottom, with the tutorials' images; the stored ones ran without an error."""
    notebook = ROOT / f"docs/notebooks/{name}.ipynb"
    matplotlib = pytest.importorskip("matplotlib")
    pytest.importorskip("matplotlib.pyplot")
    matplotlib.use("agg", force=True)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "docs/tutorials", tmp_path, dirs_exist_ok=True)
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code), "store it with its outputs"
    assert not any(out["output_type"] == "error" for cell in code for out in cell["outputs"])
    names: dict[str, object] = {"__name__": "notebook"}
    for number, cell in enumerate(code, start=1):
        exec(compile("".join(cell["source"]), f"{notebook.name}, cell {number}", "exec"), names)
        matplotlib.pyplot.close("all")  # as the kernel does after a cell
    assert "objects" in capsys.readouterr().out


def test_python_page_describes_every_public_name():
    import napari_simmat

    page = (ROOT / "docs/python.md").read_text("utf-8")
    described = set(re.findall(r"^::: ([\w.]+)$", page, re.M))
    names = set(napari_simmat.__all__) - {"__version__"}
    for name in names:
        assert f"{napari_simmat._HOMES[name]}.{name}" in described, name
    assert len(names) == 25, "the page says so"
    stable = page.split("### Stable names")[1].split("### Inside")[0]
    promised = {name.rsplit(".")[-1] for name in re.findall(r"^::: ([\w.]+)$", stable, re.M)}
    assert promised == names
    assert "`napari_simmat.__version__`" in page


@pytest.mark.parametrize("page", PAGES + REPORTS, ids=lambda page: page.name)
def test_picture_of_a_page_has_an_alternative_text(page):
    text = page.read_text("utf-8")
    described = re.findall(r"!\[([^\]]*)\]\(", text) + re.findall(r"<img[^>]*?alt=\"([^\"]*)", text)
    assert len(described) == len(re.findall(r"!\[|<img", text))
    assert all(len(words.split()) >= 3 for words in described)


def test_navigation_lists_every_page():
    """A page that is left out is found by nobody; mkdocs says so too, but only when it builds."""
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").split("nav:")[1].split("theme:")[0]
    listed = set(re.findall(r"[:-] ([\w/-]+\.(?:md|ipynb))$", navigation, re.M))
    pages = [*PAGES[1:], *REPORTS, *(ROOT / "docs/notebooks").glob("*.ipynb")]
    assert listed == {path.relative_to(ROOT / "docs").as_posix() for path in pages}


def test_readme_shows_code_and_commands():
    """Guards the tests of this file against finding nothing."""
    assert blocks(ROOT / "README.md", "python")
    assert "simmat demo" in simmat_commands()
    assert "tox" in command_lines()


def test_name_of_a_part_of_the_package_resolves():
    """Names such as `engine.everything.seeds.prompts_at` in the docs and in docstrings."""
    layers = [path.parent.name for path in (ROOT / "src/napari_simmat").glob("*/__init__.py")]
    named = re.compile(rf"`((?:{'|'.join(layers)})(?:\.\w+)+)`")
    sources = [*PAGES, *sorted((ROOT / "src").rglob("*.py"))]
    found = {name for path in sources for name in named.findall(path.read_text("utf-8"))}
    assert "engine.everything.seeds.prompts_at" in found
    wrong = []
    for name in sorted(found):
        try:
            pkgutil.resolve_name(f"napari_simmat.{name}")
        except (ImportError, AttributeError):
            wrong.append(name)
    assert not wrong


def test_map_of_the_architecture_names_every_module():
    """Each row of the map has the modules of its folder, and no others."""
    rows = re.findall(
        r"^\| `([\w/]+)/` \| (.*) \|$", (ROOT / "docs/architecture.md").read_text(), re.M
    )
    source = ROOT / "src/napari_simmat"
    for folder, text in rows:
        modules = {path.stem for path in (source / folder).glob("*.py")} - {"__init__"}
        assert set(re.findall(r"`(\w+)`", text)) == modules, folder
    # A folder of the window is a tab, which has its own table.
    packages = [path.parent for path in source.glob("*/**/__init__.py")]
    assert len(rows) == sum(path.parent.name != "widgets" for path in packages)


def command_of(line: str) -> tuple[str, ...]:
    """The words before the first option or value; they name a command."""
    words = line.split(" #")[0].split()[1:]
    names = words[: 2 if words[0] in ("models", "channels") else 1] if words else []
    return () if names and names[0].startswith("-") else tuple(names)


@pytest.mark.parametrize(
    "names",
    sorted(
        {command_of(line) for line in simmat_commands()} - {(name,) for name in RESEARCH_COMMANDS}
    ),
    ids=" ".join,
)
def test_command_of_a_page_exists_with_its_options(names, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # a narrow terminal may break an option's name
    monkeypatch.setenv("NO_COLOR", "1")
    assert main([*names, "--help"]) == 0
    shown = capsys.readouterr().out
    lines = [line for line in simmat_commands() if command_of(line) == names]
    words = {word.split("=")[0] for line in lines for word in line.split(" #")[0].split()}
    options = {word for word in words if word.startswith("--")} - {"--help"}
    missing = {option for option in options if not re.search(rf"{option}\b", shown)}
    assert not missing, f"simmat {' '.join(names)} has no {', '.join(sorted(missing))}"


def test_extras_that_a_page_installs_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    named = {
        name
        for page in PAGES
        for group in re.findall(r"pip install [^\n]*?\[([a-z,]+)\]", page.read_text("utf-8"))
        for name in group.split(",")
    }
    assert "all" in named
    assert named <= set(extras)


@pytest.mark.parametrize("page", PAGES + REPORTS, ids=lambda page: page.name)
def test_link_to_a_file_leads_to_one(page):
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", page.read_text("utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES + REPORTS, ids=lambda page: page.name)
def test_script_of_a_page_exists_or_is_said_to_be_in_the_history(page):
    text = page.read_text("utf-8")
    named = set(re.findall(r"scripts/(\w+\.py)", text))
    folders = (ROOT / "scripts", ROOT / "research/scripts")
    gone = [name for name in named if not any((folder / name).is_file() for folder in folders)]
    assert not gone or re.search(r"\bin the (repository's )?history\b", text), gone
