"""What the status line says of a run."""

from napari_simmat.progress import JobEvent
from napari_simmat.widgets.batch.controller import BatchController
from napari_simmat.widgets.batch.file_table import FilesModel
from napari_simmat.widgets.status_line import StatusLine


def test_status_of_a_run_estimates_the_time_left_once(qtbot):
    line, batching = StatusLine(), BatchController(FilesModel())
    qtbot.addWidget(line)
    batching.status.connect(line.set_value)
    batching.state = "running"
    step = {"done": 1, "total": 4, "message": "1/4 b.tif: encoding", "fraction": 0.4}
    batching._on_event(JobEvent(**step, left="about 3 min left"))
    assert line.value().text == step["message"]
    qtbot.waitUntil(lambda: line.left.text() == "about 3 min left")
    batching.close()
