"""A real `dask.distributed` cluster of two worker processes, one of which is killed."""

import os
import signal
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tifffile
from skimage.data import coins

from napari_simmat.batch.cluster import run_on_cluster_job
from napari_simmat.batch.inputs import find_inputs
from napari_simmat.batch.plan import OutputFiles, SegmentConfig, SegmentTask, plan
from napari_simmat.batch.run_plan import run_plan_job
from napari_simmat.batch.segment_image import TaskOutcome
from napari_simmat.batch.tasks import BatchProgress
from napari_simmat.engine.settings import Compute
from napari_simmat.progress import finish
from tests.batch.folders import contents

distributed = pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.slow,
    # What Dask says while a worker that was killed is missed.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CONFIG = SegmentConfig(model="tiny", compute=Compute(device="cpu"))
CLICK = "index,axis-0,axis-1,label,object\n0,20,20,1,1\n1,50,60,1,2\n"


@pytest.fixture
def data(tmp_path):
    """Eight photographs, and one file that is no image."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(8):
        top = 20 * number
        tifffile.imwrite(folder / f"{number}.tif", coins()[top : top + 90, 20:150])
    (folder / "4a.tif").write_text("this is no image")
    (tmp_path / "clicks.csv").write_text(CLICK)
    return folder


@pytest.fixture
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as cluster:
        yield cluster


def planned(data: Path, output: Path) -> Any:
    prompts = str(data.parent / "clicks.csv")
    return plan(find_inputs([data]), output=output, prompts=prompts)


@pytest.mark.skipif(os.name == "nt", reason="no such signal there")
def test_cluster_losing_a_worker_writes_the_same_files(data, tmp_path, cluster, monkeypatch):
    monkeypatch.chdir(tmp_path)  # workers were started elsewhere
    made = planned(Path("data"), Path("out"))
    address = cluster.scheduler_address
    victim = next(iter(cluster.workers.values())).pid
    job, killed, states = run_plan_job(made, CONFIG, scheduler=address), False, []
    while True:
        try:
            progress = next(job)
        except StopIteration as end:
            outcomes = end.value
            break
        states.append(getattr(progress, "state", ""))
        if not killed and "written" in states:
            os.kill(victim, signal.SIGKILL)
            killed = True
    assert killed
    assert [one.status for one in outcomes].count("written") == 8
    assert outcomes[5].status == "failed"
    assert "Cannot read 4a.tif: unsupported file type" in outcomes[5].note
    assert outcomes[0].task.image == Path("data/0.tif"), "as it was given"
    assert outcomes[0].thumbnail.startswith(b"\x89PNG")
    assert not list(Path("out").rglob("*.part"))
    finish(run_plan_job(planned(data, tmp_path / "here"), CONFIG))
    assert contents(tmp_path / "out") == contents(tmp_path / "here")


class Future:
    """Of a task that is done after so many looks at it."""

    def __init__(self, task: SegmentTask, looks: int) -> None:
        self.task, self.looks = task, looks

    def done(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def result(self) -> TaskOutcome:
        return TaskOutcome(self.task, "written")


class Client:
    """Its workers do the second task first."""

    def __init__(self) -> None:
        self.looks = [4, 0, 6]

    def submit(self, _: Any, task: SegmentTask, *__: Any, **___: Any) -> Future:
        return Future(task, self.looks.pop(0))

    def scheduler_info(self, **_: Any) -> dict[str, Any]:
        return {"workers": {}}

    def cancel(self, futures: Any, **_: Any) -> None: ...


def test_cluster_task_done_early_stays_done(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_simmat.engine.remote.client", lambda *_: nullcontext(Client()))
    monkeypatch.setattr("napari_simmat.batch.cluster._CLUSTER_POLL", 0)
    images = [tmp_path / name for name in ("a.tif", "b.tif", "c.tif")]
    tasks = [SegmentTask(image, None, OutputFiles.of(image, tmp_path)) for image in images]
    states: dict[int, list[str]] = {0: [], 1: [], 2: []}
    job = run_on_cluster_job("tcp://127.0.0.1:8786", tasks, CONFIG)
    for step in job:
        if isinstance(step, BatchProgress):
            states[step.number].append(step.state)
    assert states[1] == ["written"]
    assert all(each[-1] == "written" for each in states.values())
    assert "segmenting" in states[0]


def test_cluster_that_does_not_fit_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_simmat.engine.remote.SCHEDULER_TIMEOUT", 1)
    made = planned(data, tmp_path / "out")
    with pytest.raises(OSError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        finish(run_plan_job(made, CONFIG, scheduler="tcp://127.0.0.1:9"))
    local = partial(distributed.LocalCluster, processes=False, dashboard_address=":0")
    with local(n_workers=0) as empty, pytest.raises(OSError, match=r"has no workers\. Start"):
        finish(run_plan_job(made, CONFIG, scheduler=empty.scheduler_address))
    monkeypatch.setattr("napari_simmat.engine.remote.__version__", "0.0.1")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0"
        ) as other,
        pytest.raises(OSError, match=r"have napari-simmat \d+\.\S+, but here is 0\.0\.1"),
    ):
        finish(run_plan_job(made, CONFIG, scheduler=other.scheduler_address))
    assert not (tmp_path / "out").exists()
