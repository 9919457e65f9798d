"""The help button: what it opens and what it copies."""

import pytest
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QApplication, QMessageBox

from napari_simmat.widgets import main
from napari_simmat.widgets.main import COPIED, docs_address, shortcuts_text
from napari_simmat.widgets.shortcuts import SHORTCUTS


@pytest.mark.all_tabs
def test_help_copies_versions_and_state_without_names(ready, monkeypatch):
    said = []
    monkeypatch.setattr(QMessageBox, "open", lambda box: said.append(box.text()))
    ready.viewer.layers["discs"].name = "Jane Doe"
    ready.workspace.fail("Jane Doe cannot be read.")
    copy = next(a for a in ready.widget.help.menu().actions() if a.text().startswith("Copy"))
    copy.trigger()
    text = QApplication.clipboard().text()
    assert said == [COPIED]
    assert "napari 0" in text
    assert "SegmentTab: failed, IMAGE cannot be read." in text
    assert "Image 200 x 220, uint8" in text
    assert "Jane" not in text


@pytest.mark.all_tabs
def test_help_opens_the_page_of_the_tab_that_is_shown(ready, monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: opened.append(url.toString()))
    urls = ["Documentation, https://example.org/docs"]
    monkeypatch.setattr(main, "metadata", lambda _: type("M", (), {"get_all": lambda *_: urls})())
    ready.widget.tabs.setCurrentWidget(ready.widget.train)
    ready.widget.help.open_page()
    assert opened == ["https://example.org/docs/train-tab/"]
    urls.clear()
    (tmp_path / "segment-tab.md").touch()
    monkeypatch.setattr(main, "_CLONE", tmp_path)
    assert docs_address("segment-tab") == (tmp_path / "segment-tab.md").as_uri()
    assert docs_address("no such page") == ""


def test_shortcuts_text_lists_every_key():
    text = shortcuts_text()
    assert all(each.text() in text and each.meaning in text for each in SHORTCUTS)
