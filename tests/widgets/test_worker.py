import subprocess
import sys
import threading

import pytest
from qtpy.QtCore import QObject, Qt
from qtpy.QtWidgets import QApplication

from napari_simmat.progress import Job, Progress
from napari_simmat.widgets.worker import BackgroundJob, Worker, WorkerTask, sentence


class Heard(QObject):
    """What the worker told, in order, and in which thread it was heard."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self.told: list[tuple[str, WorkerTask, object]] = []
        self.threads: set[threading.Thread] = set()
        queued = Qt.ConnectionType.QueuedConnection
        worker.progressed.connect(self.on_progress, queued)
        worker.returned.connect(self.on_return, queued)
        worker.failed.connect(self.on_failure, queued)
        worker.stopped.connect(self.on_stop, queued)

    def on_progress(self, task: WorkerTask, progress: Progress) -> None:
        self._note("progressed", task, progress)

    def on_return(self, task: WorkerTask, result: object) -> None:
        self._note("returned", task, result)

    def on_failure(self, task: WorkerTask, reason: str) -> None:
        self._note("failed", task, reason)

    def on_stop(self, task: WorkerTask) -> None:
        self._note("stopped", task, None)

    def _note(self, what: str, task: WorkerTask, value: object) -> None:
        self.threads.add(threading.current_thread())
        self.told.append((what, task, value))

    def ends(self) -> list[tuple[str, WorkerTask, object]]:
        return [each for each in self.told if each[0] != "progressed"]


@pytest.fixture
def worker(qtbot):
    worker = Worker()
    yield worker
    worker.close()
    assert worker.join(10)


def counting(to: int) -> Job[int]:
    for done in range(to):
        yield Progress(done, to, "counting")
    return to


def gated(gate: threading.Event, trace: list[str]) -> Job[str]:
    """Wait at the gate in its first step; note whether it was closed."""
    try:
        yield Progress(0, 2)
        assert gate.wait(10)
        trace.append("computed")
        yield Progress(1, 2)
        trace.append("went on")
        return "result"
    finally:
        trace.append("ended")


def test_returned_is_emitted_in_the_main_thread(worker, qtbot):
    heard = Heard(worker)
    task = worker.submit("count", lambda: counting(3))
    qtbot.waitUntil(lambda: bool(heard.ends()))
    assert heard.ends() == [("returned", task, 3)]
    assert heard.told[0] == ("progressed", task, Progress(0, 3, "counting"))
    assert heard.threads == {threading.main_thread()}


@pytest.mark.parametrize("error", [RuntimeError, ValueError, MemoryError, KeyError])
def test_failed_job_is_reported_and_the_next_runs(worker, qtbot, error):
    def failing():
        yield Progress(0, 1)
        raise error("what went wrong\nand more")

    heard = Heard(worker)
    first = worker.submit("fail", failing)
    qtbot.waitUntil(lambda: len(heard.ends()) == 1)
    second = worker.submit("count", lambda: counting(1))
    qtbot.waitUntil(lambda: len(heard.ends()) == 2)
    (what, task, reason), then = heard.ends()
    assert (what, task) == ("failed", first)
    assert "what went wrong" in str(reason)
    assert "\n" not in str(reason)
    assert then == ("returned", second, 1)


def test_job_that_cannot_start_fails(worker, qtbot):
    def broken():
        raise RuntimeError("no such model")

    heard = Heard(worker)
    task = worker.submit("broken", broken)
    qtbot.waitUntil(lambda: bool(heard.ends()))
    assert heard.ends() == [("failed", task, "no such model")]


def test_jobs_of_one_rank_all_run_in_their_order(worker, qtbot):
    heard, gate, trace = Heard(worker), threading.Event(), []
    running = worker.submit("first", lambda: gated(gate, trace))
    qtbot.waitUntil(lambda: worker.running is running)
    second = worker.submit("second", lambda: counting(1))
    third = worker.submit("third", lambda: counting(2))
    gate.set()
    qtbot.waitUntil(lambda: len(heard.ends()) == 3)
    assert heard.ends() == [
        ("returned", running, "result"),
        ("returned", second, 1),
        ("returned", third, 2),
    ]


def test_canceled_job_that_waits_never_begins_and_stops(worker, qtbot):
    heard, gate, begun = Heard(worker), threading.Event(), []

    def never():
        begun.append("begun")
        return counting(1)

    running = worker.submit("first", lambda: gated(gate, []))
    qtbot.waitUntil(lambda: worker.running is running)
    waiting = worker.submit("second", never)
    waiting.cancel()
    gate.set()
    qtbot.waitUntil(lambda: len(heard.ends()) == 2)
    assert heard.ends() == [("returned", running, "result"), ("stopped", waiting, None)]
    assert not begun


@pytest.mark.parametrize("rank", [0, 1])
def test_background_jobs_of_one_rank_leave_each_other_alone(worker, qtbot, rank):
    gate, results = threading.Event(), []
    worker.submit("first", lambda: gated(gate, []))
    jobs = [BackgroundJob(worker, rank) for _ in range(2)]
    for number, job in enumerate(jobs, start=2):
        job.returned.connect(results.append)
        job.start("count", lambda number=number: counting(number))
    gate.set()
    qtbot.waitUntil(lambda: not any(job.busy for job in jobs))
    assert results == [2, 3]


def test_cancel_stops_at_the_next_yield(worker, qtbot):
    heard, gate, trace = Heard(worker), threading.Event(), []
    task = worker.submit("long", lambda: gated(gate, trace))
    qtbot.waitUntil(lambda: worker.running is task and bool(heard.told))
    task.cancel()
    gate.set()
    qtbot.waitUntil(lambda: bool(heard.ends()))
    assert heard.ends() == [("stopped", task, None)]
    assert trace == ["computed", "ended"]


def test_a_lower_rank_preempts_a_job_at_its_next_yield(worker, qtbot):
    log: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def behind():
        for step in range(4):
            log.append(f"behind {step}")
            yield Progress(step, 4)
            begun.set()
            if step == 1:
                go_on.wait(10)
        return "behind"

    def click():
        log.append("click")
        yield Progress(0, 1)
        return "click"

    ended: list[str] = []
    worker.returned.connect(lambda _, result: ended.append(result))
    worker.submit("ahead", behind, 2)
    assert begun.wait(10)
    worker.submit("click", click)
    go_on.set()
    qtbot.waitUntil(lambda: len(ended) == 2)
    assert ended == ["click", "behind"]
    assert log.index("click") < log.index("behind 3")
    assert [each for each in log if each != "click"] == [f"behind {n}" for n in range(4)]


def test_lower_ranks_go_first(worker, qtbot):
    gate = threading.Event()
    ended: list[str] = []

    def job(name):
        yield Progress(0, 1)
        gate.wait(10)
        return name

    worker.returned.connect(lambda _, result: ended.append(result))
    for name, rank in (("first", 0), ("ahead", 2), ("stack", 1)):
        worker.submit(name, lambda name=name: job(name), rank)
    gate.set()
    qtbot.waitUntil(lambda: len(ended) == 3)
    assert ended == ["first", "stack", "ahead"]


def test_worker_thread_lasts_until_close(worker, qtbot):
    idents = []

    def job():
        idents.append(threading.get_ident())
        yield Progress(0, 1)

    heard = Heard(worker)
    assert not worker.alive
    for count in range(1, 4):
        worker.submit("ident", job)
        qtbot.waitUntil(lambda count=count: len(heard.ends()) == count)
    assert len(set(idents)) == 1
    worker.close()
    assert worker.join(10)
    with pytest.raises(RuntimeError, match="closed"):
        worker.submit("late", job)


def test_close_during_a_job_ends_silently(worker, qtbot):
    heard, gate, trace = Heard(worker), threading.Event(), []
    task = worker.submit("long", lambda: gated(gate, trace))
    qtbot.waitUntil(lambda: worker.running is task)
    worker.close()
    gate.set()
    assert worker.join(10)
    QApplication.processEvents()
    assert heard.ends() == []
    assert trace[-1] == "ended"


def test_sentence_of_an_error_is_one_line():
    assert sentence(ValueError("first\nsecond")) == "first"
    assert sentence(KeyError("name")) == "KeyError: 'name'"
    assert sentence(RuntimeError()) == "RuntimeError: no reason given"


def test_import_of_the_window_loads_no_torch():
    code = (
        "import sys, napari_simmat.widgets.main\n"
        "print(*[name for name in ('torch', 'segment_anything') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
