"""The command line: one thin command per job.

Starting it imports neither torch nor numpy; commands import what they need when they run.
"""

from __future__ import annotations

import logging
import sys
import tomllib
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path

from cyclopts import App, Parameter
from cyclopts.config import Dict
from cyclopts.exceptions import CycloptsError

from napari_simmat import __version__
from napari_simmat._text import CANCELED, CANCELED_MESSAGE, NO_SEGMENT_ANYTHING
from napari_simmat.cli.channels import channels_app
from napari_simmat.cli.check import check
from napari_simmat.cli.demo import demo
from napari_simmat.cli.evaluate import evaluate
from napari_simmat.cli.extensions import add_commands
from napari_simmat.cli.info import info
from napari_simmat.cli.measure import measure
from napari_simmat.cli.models import models
from napari_simmat.cli.segment import encode, segment
from napari_simmat.cli.streams import lasting_streams
from napari_simmat.cli.terminal import Terminal
from napari_simmat.cli.train import train
from napari_simmat.io.files import check_size, logged

logger = logging.getLogger("napari_simmat")

_CONFIG_BYTES = 1 << 20
"""Of a file of options, at most."""
HELP = """Segment images of any modality with a click.

First steps, offline and without an image of your own:

```
simmat demo
simmat models
```

Then your own image: everything in it, or what clicks mean that napari saved as CSV:

```
simmat segment image.tif
simmat segment image.tif --prompts points.csv
```

`simmat COMMAND --help` explains a command with examples.
"""

IS_AN_IMAGE = "{0} is no command. To segment everything in it, run simmat segment {0}"


def _shown_default(value: object) -> str | None:
    """A default in the help; None hides one that says nothing."""
    if value is None:
        return None
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or None
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value) or None


app = App(
    name="simmat",
    help=HELP,
    help_format="markdown",
    version=__version__,
    default_parameter=Parameter(show_default=_shown_default),
)
app.register_install_completion_command(
    help="Complete commands and options in this shell (bash, zsh or fish) with the Tab key."
)
app.command(demo)
app.command(models)
app.command(segment)
app.command(encode)
app.command(channels_app)
app.command(measure)
app.command(evaluate)
app.command(train)
app.command(info)
app.command(check)
OWN = frozenset(word for word in app if not word.startswith("-"))
"""The commands that start without a look at other distributions."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments
        What follows ``simmat`` on the command line; `sys.argv` by default.

    Returns
    -------
    int
        Exit status: 0 success, 1 failure, 2 invalid arguments, 130 canceled.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    # As on stderr, characters that the terminal cannot encode are escaped: file names have any.
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    if arguments is None and "--debug" not in given:
        quiet_libraries()
    terminal = Terminal(as_json="--json" in given)
    level = logging.DEBUG if "--verbose" in given else logging.WARNING
    with (
        lasting_streams(terminal.complain) as (out, err),
        logged(),
        _notes_on_stderr(terminal, level),
    ):
        try:
            status = _status(given, terminal)
            out.flush()
        except BrokenPipeError:  # the pipe was closed, e.g. by `simmat models | head -1`
            out.discard()
            return 1
    return status or int(out.is_lost or err.is_lost)


def _status(given: Sequence[str], terminal: Terminal) -> int:
    """Run the command, and print why it fails; its exit status."""
    try:
        return _run(given)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        terminal.fail(CANCELED_MESSAGE)
        return CANCELED
    except CycloptsError as error:
        commands = {word for word in app if not word.startswith("-")}
        if given and given[0] not in commands and _is_image(given[0]):
            terminal.fail(IS_AN_IMAGE.format(given[0]))
            return 2
        named = next((f"{word} " for word in given if word in commands), "")
        terminal.fail(f"{str(error).strip()} See simmat {named}--help.")
        return 2
    except Exception as error:
        logger.debug("failed", exc_info=True)
        if "--debug" in given:
            traceback.print_exc()
        terminal.fail(_sentence(error))
        return 1


def _is_image(word: str) -> bool:
    """Whether a word in place of a command names a file or folder, or an image by its ending."""
    from napari_simmat.io.readers import IMAGE_ENDINGS

    return "." in word and (Path(word).exists() or word.lower().endswith(IMAGE_ENDINGS))


def _run(given: Sequence[str]) -> int:
    """Find the command that the words name, and run it; its exit status."""
    _check_characters(given)
    wanted = given[0] if given else ""
    if wanted not in OWN:
        add_commands(app, OWN, wanted)
    options = _options_of_file(given)
    _check_characters(options)
    app.config = Dict(data=options, source=_config_path(given)) if options else ()
    command, bound, unparsed = app.parse_args(given, exit_on_error=False, print_error=False)
    logger.info("simmat %s (%s)", " ".join(given), __version__)
    typed = frozenset(_typed(given, options.get(wanted, {})))
    status = command(*bound.args, **bound.kwargs, **dict.fromkeys(unparsed, typed))
    return status if isinstance(status, int) else 0


def _typed(given: Sequence[str], written: Mapping[str, object]) -> list[str]:
    """The options that the user gave, as ``--name``: as words, or written in a file."""
    words = [word.partition("=")[0] for word in given]
    return [*(f"--{name.replace('_', '-')}" for name in written), *words]


NULL_CHARACTER = "{} has a null character, which no name of a file has; remove it."


def _check_characters(value: object) -> None:
    """Refuse a null character anywhere in words, or in the tables of a file of options."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError(NULL_CHARACTER.format(repr(value)[:80]))
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_characters(item)


def _config_path(given: Sequence[str]) -> str:
    """The file that ``--config`` names; empty without it."""
    words = [*given, ""]
    for word, following in pairwise(words):
        if word == "--config":
            return following
        if word.startswith("--config="):
            return word.removeprefix("--config=")
    return ""


def _options_of_file(given: Sequence[str]) -> dict[str, dict[str, object]]:
    """The tables of the file that ``--config`` names, one for each command.

    Raises ValueError if it cannot be read, or has no table for this command.
    """
    path = _config_path(given)
    if not path:
        return {}
    try:
        check_size(Path(path), _CONFIG_BYTES)
        tables = tomllib.loads(Path(path).read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file ({error}); correct it.") from None
    except RecursionError:
        raise ValueError(f"{path} nests its values too deep to be read; correct it.") from None
    if not isinstance(tables.get(given[0]), dict):
        raise ValueError(
            f"{path} has no table [{given[0]}]; write the options of simmat {given[0]} below "
            "such a line."
        )
    return tables


def quiet_libraries() -> None:
    """Keep what libraries remark on a damaged file from the terminal: the user gets a sentence.

    ``python -W`` and PYTHONWARNINGS still show warnings, ``--debug`` shows everything.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for name in ("nibabel", "PIL", "pydicom", "tifffile", "zarr"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _sentence(error: Exception) -> str:
    """An error as a sentence; those of this project are sentences already."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("segment_anything"):
        return NO_SEGMENT_ANYTHING
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.filename or 'A file'} could not be used: {error.strerror}."
    if isinstance(error, (ValueError, TypeError, OSError, MemoryError, ImportError)):
        return str(error) or type(error).__name__
    return (
        f"Something unexpected went wrong ({type(error).__name__}: {error}). Run it again with "
        "--debug and report what it prints."
    )


@contextmanager
def _notes_on_stderr(terminal: Terminal, level: int) -> Iterator[None]:
    """Print the library's warnings as notes while a command runs."""

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            terminal.note(record.getMessage())

    handler = Notes(level)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
