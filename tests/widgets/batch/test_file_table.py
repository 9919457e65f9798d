"""The table of files."""

from napari_simmat.widgets.batch.file_table import FileRow
from napari_simmat.widgets.batch.tab import FilesTable


def test_files_table_shows_a_whole_message(qtbot):
    table = FilesTable()
    qtbot.addWidget(table)
    table.resize(300, 200)
    table.show()
    table.files.set_rows([FileRow("a.tif", "written", 12, 3.4), FileRow("b.tif", "waiting")])
    message = "b.tif is no TIFF file; save the image again, or leave it out."
    table.files.update(1, "failed", {"error": message})
    assert table.columnWidth(4) > table.fontMetrics().horizontalAdvance(message)
    bar = table.horizontalScrollBar()
    assert bar.maximum() > 0, "the message scrolls into view"
