"""Commands and data sets of other distributions, found by their entry points.

A distribution is asked for only when its command or data set is, so that `simmat` starts as fast
with it as without it. The research of this repository is one; `docs/architecture.md` says how to
add another.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, TypeAlias

from cyclopts import App

from napari_simmat.progress import Job

if TYPE_CHECKING:
    from napari_simmat.datasets.dataset import Dataset

ReadJob: TypeAlias = "Callable[..., Job[Dataset]]"
"""A job that gives a data set for what stands after the colon of its name. One that draws takes
numbers by name, too: ``scenes``, and their ``side`` in pixels."""
COMMANDS = "napari_simmat.commands"
"""Group of entry points ``NAME = module:function``: the function is `simmat NAME`."""
DATASETS = "napari_simmat.datasets"
"""Group of entry points ``NAME = module:function``: a `ReadJob` for `simmat train NAME:...`."""
RESEARCH_COMMANDS = {
    "pretrain": "Train an embedded foundation on drawn scenes and real images.",
    "benchmark": "Rerun a comparison of SimMAT's paper.",
    "convert": "Convert a checkpoint of the code of SimMAT's or SimCMF's authors.",
}
"""Commands of the research, which are listed where it is not installed too."""
RESEARCH_DATASETS = {"generated": "generated:SENSOR", "aims": "aims:KEY:FOLDER"}
"""Names of its data sets, and how they are written."""
NOT_INSTALLED = (
    "{} comes with the research, which is not installed; run pip install ./research in a clone of "
    "the repository."
)


def add_commands(app: App, own: Collection[str], wanted: str) -> None:
    """List the commands of other distributions beside its own, and import the one that is wanted.

    Raises ImportError if it belongs to the research, which is not installed.
    """
    found = {name: each for name, each in _found(COMMANDS).items() if name not in own}
    for name in sorted({*found, *RESEARCH_COMMANDS}):
        if name not in app:
            says = RESEARCH_COMMANDS.get(name) or f"From {_home(found[name])}."
            app.command(App(name=name, help=says))
    for name in found:
        if wanted in (name, "--install-completion"):
            # Its own help says more than the line in the list of commands.
            app[name].help = None
            app[name].default_command = found[name].load()
    if wanted in RESEARCH_COMMANDS and wanted not in found:
        raise ImportError(NOT_INSTALLED.format(f"simmat {wanted}"))


def dataset_name(data: str) -> str:
    """``generated`` of ``generated:thermal``; empty for the path of a folder."""
    name, colon, _ = data.partition(":")
    is_dataset = bool(colon) and (name in RESEARCH_DATASETS or name in _found(DATASETS))
    return name if is_dataset else ""


def load_dataset(name: str) -> ReadJob:
    """What gives the data set of this name.

    Raises ImportError if its distribution is not installed.
    """
    found = _found(DATASETS)
    if name not in found:
        raise ImportError(NOT_INSTALLED.format(f"The data set {RESEARCH_DATASETS[name]}"))
    read_job: ReadJob = found[name].load()
    return read_job


def draws(read_job: ReadJob) -> bool:
    """Whether a data set is drawn, so that it has as many scenes as one asks for."""
    return "scenes" in inspect.signature(read_job).parameters


def _found(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by their names."""
    return {each.name: each for each in entry_points(group=group)}


def _home(entry: EntryPoint) -> str:
    """The name of an entry point's distribution."""
    return entry.dist.name if entry.dist else entry.value
