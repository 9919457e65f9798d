"""What calls from Python show."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from rich import console

from napari_simmat.batch import shown as module
from napari_simmat.batch.shown import NEEDS_PANDAS, frame, shown, table_html
from napari_simmat.progress import Progress


def job():
    yield Progress(1, 4, "a < b")
    yield Progress(2, 4, "second")
    return "result"


def test_shown_in_a_notebook_is_a_bar_of_html(monkeypatch):
    seen = []
    display = ModuleType("IPython.display")
    display.HTML = str
    display.display = lambda first, display_id: (
        seen.append(first) or SimpleNamespace(update=seen.append)
    )
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(console, "_is_jupyter", lambda: True)
    assert shown(job(), True) == "result"
    bar = '<progress max=1 value="0.250"></progress> a &lt; b'
    assert seen == ["<progress max=1></progress> ", bar, seen[2], ""]


def test_shown_in_a_file_or_on_request_is_nothing_or_a_call(capsys):
    steps = []
    assert shown(job(), True) == shown(job(), False) == shown(job(), steps.append) == "result"
    assert [step.message for step in steps] == ["a < b", "second"]
    assert capsys.readouterr() == ("", "")


def test_shown_in_a_terminal_is_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(console.Console, "is_terminal", True)
    assert shown(job(), True) == "result"
    out, err = capsys.readouterr()
    assert (out, bool(err)) == ("", True)


def test_frame_without_pandas_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError) as error:
        frame([{"a": 1}])
    assert str(error.value) == NEEDS_PANDAS


def test_table_html_escapes_and_rounds():
    rows = [{"a<b": 1.23456789, "c": "<i>"}] * 9
    text = table_html(rows, ["a<b", "c"])
    assert text.count("<tr>") == 1 + module.SHOWN_ROWS
    assert "<th>a&lt;b</th><th>c</th>" in text
    assert "<td>1.235</td><td>&lt;i&gt;</td>" in text
