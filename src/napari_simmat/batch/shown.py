"""How calls from Python show themselves: bars in terminals and notebooks, tables, HTML."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from napari_simmat._text import import_problem
from napari_simmat.progress import Job, Progress, finish

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
ShowProgress = bool | Callable[[Progress], object]
"""Whether a bar is shown, or what is called with each step."""
NEEDS_PANDAS = "A table as a DataFrame needs pandas; install it (pip install pandas)."
SHOWN_ROWS = 5
"""Of a table in a notebook."""


def shown(job: Job[T], progress: ShowProgress) -> T:
    """The result of a job, with a bar in a terminal or notebook, or told step by step."""
    if callable(progress):
        return finish(job, progress)
    from rich.console import Console

    console = Console(stderr=True)
    if not progress or not (console.is_terminal or console.is_jupyter):
        return finish(job)
    return _in_notebook(job) if console.is_jupyter else _in_terminal(job, console)


def _in_terminal(job: Job[T], console: Any) -> T:
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def show(step: Progress) -> None:
            bar.update(task, completed=step.fraction or 0.0, description=step.message)

        return finish(job, show)


def _in_notebook(job: Job[T]) -> T:
    """With a bar that is plain HTML: the bars of rich and tqdm need ipywidgets to be one there."""
    from IPython.display import HTML, display

    page: Any = HTML

    def bar(fraction: float | None, message: str) -> Any:
        value = "" if fraction is None else f' value="{fraction:.3f}"'
        return page(f"<progress max=1{value}></progress> {html.escape(message)}")

    handle: Any = display(bar(None, ""), display_id=True)  # type: ignore[no-untyped-call]
    try:
        return finish(job, lambda step: handle.update(bar(step.fraction, step.message)))
    finally:
        handle.update(page(""))


def frame(
    rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Rows as a DataFrame; ImportError without pandas."""
    names = None if columns is None else list(columns)
    table: pd.DataFrame = pandas_module().DataFrame(list(rows), columns=names)
    return table


def pandas_module() -> Any:
    """The module pandas; ImportError says in a sentence that it is missing."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(import_problem(error, "pandas", NEEDS_PANDAS)) from error
    return pandas


def table_html(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """The first rows of a table as HTML."""
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    lines = [
        "".join(f"<td>{html.escape(_cell(row.get(name, '')))}</td>" for name in columns)
        for row in rows[:SHOWN_ROWS]
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div style="overflow-x:auto"><table><tr>{heads}</tr>{body}</table></div>'


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
