from qtpy.QtWidgets import QWidget

from napari_simmat.widgets.controls import VerticalScroll, vbox


def test_scroll_bar_covers_no_content_at_the_least_width(qtbot):
    wide, content = QWidget(), QWidget()
    wide.setMinimumSize(200, 600)
    vbox(wide, parent=content)
    scroll = VerticalScroll(content)
    qtbot.addWidget(scroll)
    scroll.show()
    scroll.resize(scroll.minimumSizeHint().width(), 300)
    qtbot.waitUntil(scroll.verticalScrollBar().isVisible)
    qtbot.waitUntil(lambda: scroll.viewport().width() >= 200)
