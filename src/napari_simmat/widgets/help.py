"""The help button: shortcuts, the page of the docs for what is shown, and a report to copy."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

from qtpy import API_NAME, QT_VERSION
from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QApplication, QMenu, QMessageBox, QToolButton, QWidget

from napari_simmat.io.files import log_file
from napari_simmat.widgets.shortcuts import SHORTCUTS

_PACKAGES = ("napari-simmat", "napari", "torch", "numpy", "tifffile", "zarr", "dask")
_ADDRESSES = ("Documentation", "Homepage")
NO_DOCS = "The page of the documentation is called {page}; this version does not know its address."
COPIED = "Copied: paste it into your report, with what you did and what you expected."
_CLONE = Path(__file__).parents[3] / "docs"


class HelpButton(QToolButton):
    """Opens a menu with what helps.

    Parameters
    ----------
    page
        Returns the name of the documentation's page about what is shown.
    state
        Returns lines that say what is shown.
    """

    def __init__(
        self, page: Callable[[], str], state: Callable[[], list[str]], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._page, self._state = page, state
        self.setText("Help")
        self.setToolTip("Shortcuts, documentation, and what to report")
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.setStyleSheet(
            "QToolButton { padding: 2px 8px; } QToolButton::menu-indicator { image: none; }"
        )
        menu = QMenu(self)
        menu.addAction("Shortcuts", self.show_shortcuts)
        menu.addAction("Documentation of this tab", self.open_page)
        menu.addAction("Copy what to report", self.copy_report)
        self.setMenu(menu)

    def show_shortcuts(self) -> None:
        """List the keys that act on the canvas."""
        self._say("Shortcuts", shortcuts_text())

    def open_page(self) -> None:
        """Open the documentation where it is about what is shown."""
        page = self._page()
        if address := docs_address(page):
            QDesktopServices.openUrl(QUrl(address))
        else:
            self._say("Documentation", NO_DOCS.format(page=page))

    def copy_report(self) -> None:
        """Copy versions and what is shown."""
        QApplication.clipboard().setText(report(self._state()))
        self._say("Report", COPIED)

    def _say(self, title: str, text: str) -> None:
        box = QMessageBox(QMessageBox.Icon.NoIcon, title, text, parent=self.window())
        box.setTextFormat(Qt.TextFormat.RichText if "<" in text else Qt.TextFormat.PlainText)
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        box.open()


def shortcuts_text() -> str:
    """All shortcuts as a table in HTML."""
    rows = "".join(
        f"<tr><td><b>{each.binding()}</b>&nbsp;&nbsp;</td><td>{each.meaning}"
        + (f" (on shapes: {each.binding(shapes=True)})" if each.on_shapes is not None else "")
        + "</td></tr>"
        for each in SHORTCUTS
    )
    return f"<p>On the canvas, while the Segment tab is shown:</p><table>{rows}</table>"


def docs_address(page: str) -> str:
    """Where a page is: on the site that the package names, or in the clone that it runs from."""
    urls: dict[str, str] = {}
    with suppress(PackageNotFoundError):
        for line in metadata("napari-simmat").get_all("Project-URL") or []:
            name, _, address = line.partition(", ")
            urls[name] = address
    if site := next((urls[name] for name in _ADDRESSES if name in urls), ""):
        return f"{site.rstrip('/')}/{page}/"
    file = _CLONE / f"{page}.md"
    return file.as_uri() if file.is_file() else ""


def report(state: list[str]) -> str:
    """Versions, and lines that say what is shown."""
    lines = [f"Python {platform.python_version()}, {platform.platform()}"]
    lines.append(f"{API_NAME}, Qt {QT_VERSION}")
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            lines.append(f"{name} {version(name)}")
    log = log_file()
    return "\n".join([*lines, *state, *([] if log is None else [f"Log {log}"])])
