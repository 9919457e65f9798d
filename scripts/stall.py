"""How long the window does not answer, and why: a timer in the event loop, over the main job.

Run ``python tests/with_screen.py python scripts/stall.py``. Each run is a process of its own
that opens the real window, lets it import torch, load and encode with ``tiny`` and with vit_b
(random weights) on the CPU, and clicks; between the two it learns from objects, and a training is
started and runs for a while. Cancel is pressed while vit_b encodes, and at the end a plane of a
stack is clicked while the others are encoded in the background. A timer is due every 5 ms, and what
it comes late is when the window was deaf. While it is late a second thread looks at what the main
thread does. Printed are medians over the runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

DUE = 0.005
"""Seconds between two ticks of the timer."""
LATE = 0.03
"""A tick that is later than this is looked into."""
SIDE = 1024
CLICKS = 6
PLANES = 3
OBJECTS = 10
LEARNING = 30.0
"""Objects that are learned from, and seconds of that that are looked at."""
TRAINING = 20.0
"""Seconds of a training that are looked at."""
PATIENCE = 100.0


def main() -> None:
    """Measure in several processes and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--once", type=Path, metavar="WEIGHTS", help="measure here, print JSON")
    chosen = parser.parse_args()
    if chosen.once is not None:
        print(json.dumps(Run(chosen.once).measure()))
        return
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_SIMMAT_HOME"] = home
        os.environ["NAPARI_CONFIG"] = str(Path(home) / "napari.yaml")
        weights = Path(home) / "random_vit_b.pth"
        save_random_vit_b(weights)
        runs = []
        for number in range(chosen.runs):
            command = [sys.executable, __file__, "--once", str(weights)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"run {number + 1} of {chosen.runs}", file=sys.stderr, flush=True)
    show(runs)


def save_random_vit_b(path: Path) -> None:
    """Weights in the format of SAM's published ones, made by a process that then ends."""
    code = (
        "import sys, torch\n"
        "from segment_anything import sam_model_registry\n"
        "torch.manual_seed(0)\n"
        "torch.save(sam_model_registry['vit_b']().state_dict(), sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def show(runs: list[dict[str, Any]]) -> None:
    """Print medians; the cause is that of the run whose maximum is the median one."""
    print(f"\nThe main thread's gaps in ms (a tick is due every {1000 * DUE:.0f} ms); medians of")
    print(f"{len(runs)} runs; {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}\n")
    print(f"{'phase':<16}{'s':>7}{'p50':>7}{'p99':>7}{'max':>7}  cause of the maximum")
    for phase in runs[0]["phases"]:
        rows = [run["phases"][phase] for run in runs if phase in run["phases"]]
        middle = sorted(rows, key=lambda row: row["max"])[len(rows) // 2]
        figures = [statistics.median(row[name] for row in rows) for name in ("p50", "p99", "max")]
        seconds = statistics.median(row["seconds"] for row in rows)
        shown = "".join(f"{figure:7.0f}" for figure in figures)
        print(f"{phase:<16}{seconds:7.1f}{shown}  {middle['cause']}")
    said = statistics.median(run["canceled"] for run in runs)
    stopped = statistics.median(run["stopped"] for run in runs)
    print(f"\nCancel while vit_b encodes: the window says so after {said:.0f} ms,", end=" ")
    print(f"the computation has stopped after {stopped:.0f} ms")
    learning = statistics.median(run["learning"] for run in runs)
    print(f"Cancel while it learns: the computation has stopped after {learning:.0f} ms")


class Meter:
    """Gaps between ticks of a timer in the event loop, and what went on during long ones."""

    def __init__(self, worker: Any) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.phase = ""
        self.gaps: dict[str, list[float]] = {}
        self.longest: dict[str, tuple[float, str]] = {}
        self._worker = worker
        self._main = threading.get_ident()
        self._last = 0.0
        self._seen: list[tuple[str, str]] = []
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(int(1000 * DUE))
        self._timer.timeout.connect(self._tick)

    def start(self) -> None:
        """Begin to measure."""
        self._last = time.perf_counter()
        self._timer.start()
        self._watcher.start()

    def stop(self) -> None:
        """End the timer and the thread."""
        self._timer.stop()
        self._ended.set()
        self._watcher.join()

    def _tick(self) -> None:
        now = time.perf_counter()
        gap, seen = now - self._last, self._seen
        self._last, self._seen = now, []
        if self.phase:
            self.gaps.setdefault(self.phase, []).append(gap)
            if gap > self.longest.get(self.phase, (LATE, ""))[0]:
                self.longest[self.phase] = (gap, _cause(seen))

    def _watch(self) -> None:
        while not self._ended.wait(DUE):
            if time.perf_counter() - self._last > LATE:
                frames = sys._current_frames()
                thread = self._worker._thread
                other = frames.get(thread.ident) if thread is not None else None
                self._seen.append((_where(frames.get(self._main)), _where(other)))


def _cause(seen: list[tuple[str, str]]) -> str:
    """What was seen most often while the main thread was late."""
    if not seen:
        return "none could look: the interpreter's lock was held throughout"
    (main, worker), times = Counter(seen).most_common(1)[0]
    idle = main.startswith("stall.py")  # nothing to do but to get a turn
    if idle:
        return f"no turn for the main thread, worker in {worker} ({times} of {len(seen)} looks)"
    return f"{main} ({times} of {len(seen)} looks)"


def _where(frame: FrameType | None) -> str:
    """The innermost function, and through which of our own files it was called."""
    if frame is None:
        return "nothing"
    inner = f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"
    caller: FrameType | None = frame
    while caller is not None:
        path = Path(caller.f_code.co_filename)
        if "napari_simmat" in path.parts and caller is not frame:
            return f"{inner} < {path.name}:{caller.f_code.co_name}"
        caller = caller.f_back
    return inner


class Run:
    """One run of the main job in this process.

    Parameters
    ----------
    weights
        File of vit_b.
    """

    def __init__(self, weights: Path) -> None:
        import napari

        from napari_simmat.widgets.main import SimMATWidget

        self.weights = weights
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1200, 800)
        self.widget = SimMATWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.widget, name="SimMAT", area="right")
        self.tab = self.widget.segment
        self.workspace, self.controller = self.tab.workspace, self.tab.controller
        self.meter = Meter(self.controller.inference.worker)

    def measure(self) -> dict[str, Any]:
        """All phases in their order, as numbers for JSON."""
        gate = threading.Event()
        holding = self.controller.inference.worker.submit("hold", lambda: _held(gate))
        self.until(lambda: self.controller.inference.worker.running is holding)
        self.viewer.add_image(blobs(), name="image")
        self.until(lambda: self.controller.busy and not self.tab._later.isActive())
        self.turns(50)  # napari draws the new layers
        self.meter.start()
        self.workspace.status.connect(self.follow)
        self.model = "tiny"
        gate.set()
        self.until(self.idle)
        self.click("clicks, tiny")
        learning = self.learn()
        self.train()
        self.model = "vit_b"
        self.meter.phase = "choose vit_b"
        self.tab.models.set_value(self.weights)
        self.until(self.idle)
        self.click("clicks, vit_b")
        self.meter.phase = "-"
        canceled, stopped = self.cancel()
        self.stack()
        self.meter.stop()
        self.widget.release()
        self.controller.inference.worker.join(PATIENCE)
        self.viewer.close()
        return {
            "phases": {phase: self.figures(phase) for phase in self.meter.gaps if phase != "-"},
            "canceled": canceled,
            "stopped": stopped,
            "learning": learning,
        }

    def follow(self, status: Any) -> None:
        """Tell by the status line's words what the worker does."""
        text = status.text
        if status.kind != "working" or self.meter.phase.startswith(("clicks", "open", "-")):
            return
        if text.startswith("Loading torch"):
            self.meter.phase = "import torch"
        elif text.startswith(("Encoding", "Measuring")):
            self.meter.phase = f"encode, {self.model}"
        else:
            self.meter.phase = f"load, {self.model}"

    def click(self, phase: str) -> None:
        """Press on the image several times, one press after the other's answer."""
        self.meter.phase = ""
        self.tab.buttons.tools["point"].click()
        self.turns(20)
        self.meter.phase = phase
        for number in range(CLICKS):
            self.press(300 + 40 * number, 500)
            self.until(self.idle)
            self.turns(4)
        assert len(self.workspace.prompt_layers.points.data) == CLICKS
        self.meter.phase = ""
        self.tab.buttons.clear.click()
        self.until(self.idle)

    def press(self, x: float, y: float) -> None:
        """Press the left button on a position of the world."""
        from qtpy.QtCore import QPoint, Qt
        from qtpy.QtTest import QTest

        canvas = self.viewer.window._qt_viewer.canvas
        x, y = canvas.view.scene.transform.map((x, y))[:2]
        where, none = QPoint(round(float(x)), round(float(y))), Qt.KeyboardModifier.NoModifier
        QTest.mouseClick(canvas.native, Qt.MouseButton.LeftButton, none, where)

    def stack(self) -> None:
        """Press on a plane of a stack, again and again, while the others are encoded ahead."""
        self.viewer.layers.remove("image")
        planes = [np.roll(blobs(), 60 * number, axis=1) for number in range(PLANES)]
        self.viewer.add_image(np.stack(planes), name="stack")
        self.viewer.dims.set_current_step(0, 0)
        self.until(lambda: self.workspace.session is not None and not self.tab.busy)
        self.tab.buttons.tools["point"].click()
        self.turns(20)
        worker = self.controller.inference.worker
        self.until(lambda: worker.running is not None)  # encoding ahead has begun
        self.meter.phase = "clicks, encoding"
        presses = 0
        while self.controller.inference.worker.running is not None:
            self.press(300 + 40 * (presses % CLICKS), 500)
            self.until(lambda: not self.tab.busy)
            self.turns(20)
            presses += 1
            if presses % CLICKS == 0:
                self.tab.buttons.clear.click()
                self.until(lambda: not self.tab.busy)
        self.meter.phase = "-"
        assert presses > CLICKS, "it was encoded before anything was clicked"

    def learn(self) -> float:
        """Learn from objects, click meanwhile, and cancel: milliseconds until nothing runs."""
        from scipy.ndimage import gray_dilation, label

        self.meter.phase = ""
        labels, _ = label(blobs() > 100)
        # Wider than they look, so that there is something to learn.
        labels = gray_dilation(np.where(labels <= OBJECTS, labels, 0), 25)
        objects = self.viewer.add_labels(labels, name="objects")
        self.workspace.use_objects(objects)
        learning, button = self.tab.learning, self.tab.learn_panel.start
        self.until(button.isEnabled)
        self.turns(20)
        self.meter.phase = "learning"
        button.click()
        begun = time.monotonic()
        self.until(lambda: time.monotonic() - begun > LEARNING / 2 or not learning.learns)
        self.click("clicks, learning")
        self.meter.phase = "learning"
        self.until(lambda: time.monotonic() - begun > LEARNING or not learning.learns)
        self.meter.phase = ""
        if not learning.learns:
            raise SystemExit(f"the learning has ended: {self.tab.status.value()}")
        begun = time.monotonic()
        button.click()
        self.until(lambda: learning.worker.running is None)
        stopped = 1000 * (time.monotonic() - begun)
        self.viewer.layers.remove("objects")
        self.until(self.idle)
        return stopped

    def train(self) -> None:
        """Train a network of the same foundation in its own process, and go on with the mouse."""
        from napari.layers import Labels

        tab, training = self.widget.train, self.widget.train.training
        labels = (blobs() > 100).astype(np.uint8)
        labels[SIDE // 2 :] *= 2
        self.viewer.layers.insert(1, Labels(labels, name="objects"))
        self.turns(50)  # napari draws the new layer
        self.meter.phase = "open Train tab"
        self.widget.tabs.setCurrentWidget(tab)
        self.until(lambda: not tab._later.isActive())
        tab.form.name.setText("trained")
        self.turns(20)
        self.meter.phase = "training starts"
        tab.train.click()
        self.until(lambda: bool(training.history.loss) or not training.busy)
        self.meter.phase = "training runs"
        begun = time.monotonic()
        self.until(lambda: time.monotonic() - begun > TRAINING or not training.busy)
        if not training.busy:
            raise SystemExit(f"the training has ended: {tab.status.value()}")
        self.meter.phase = ""
        for _ in range(2):  # at once
            tab.stop.click()
        self.until(lambda: not training.busy)
        tab.discard.click()
        self.widget.tabs.setCurrentWidget(self.tab)
        self.viewer.layers.remove("objects")
        self.until(self.idle)

    def cancel(self) -> tuple[float, float]:
        """Milliseconds from pressing Cancel until the window says so, and until nothing runs."""
        self.viewer.layers["image"].data = blobs()[::-1].copy()
        self.until(lambda: self.encoded() > 0.2)
        begun = time.perf_counter()
        self.tab.status.cancel.click()
        said = time.perf_counter()
        assert self.tab.status.value().kind == "canceled"
        self.until(lambda: self.controller.inference.worker.running is None)
        return 1000 * (said - begun), 1000 * (time.perf_counter() - begun)

    def encoded(self) -> float:
        """Which part of the encoder's blocks is done."""
        status = self.tab.status.value()
        return (status.fraction or 0.0) if status.text.startswith("Encoding") else 0.0

    def figures(self, phase: str) -> dict[str, Any]:
        """Of the gaps of a phase, in ms."""
        gaps = np.array(self.meter.gaps[phase])
        return {
            "seconds": float(gaps.sum()),
            "p50": 1000 * float(np.percentile(gaps, 50)),
            "p99": 1000 * float(np.percentile(gaps, 99)),
            "max": 1000 * float(gaps.max()),
            "cause": self.meter.longest.get(phase, (0, "none above 30 ms"))[1],
        }

    def idle(self) -> bool:
        """Whether the window and the worker have nothing left to do."""
        return not self.tab.busy and self.controller.inference.worker.running is None

    def until(self, condition: Callable[[], bool]) -> None:
        """Let the event loop run until the condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.turns(1)
            if time.monotonic() > deadline:
                raise SystemExit(f"nothing came of it: {self.tab.status.value()}")

    def turns(self, count: int) -> None:
        """Turns of the event loop; each waits for something to do, such as a tick."""
        from qtpy.QtCore import QEventLoop, QTimer
        from qtpy.QtWidgets import QApplication

        for _ in range(count):
            QTimer.singleShot(int(1000 * DUE), lambda: None)
            flag = QEventLoop.ProcessEventsFlag
            QApplication.processEvents(flag.AllEvents)
            QApplication.instance().processEvents(flag.WaitForMoreEvents)


def _held(gate: threading.Event) -> Any:
    from napari_simmat.progress import Progress

    yield Progress(0, 1, "held")
    gate.wait(PATIENCE)


def blobs() -> np.ndarray:
    """Bright discs on a dark ground, uint8."""
    y, x = np.indices((SIDE, SIDE))
    rings = np.cos(y / 40) * np.cos(x / 40)
    return (40 + 160 * (rings > 0.3)).astype(np.uint8)


if __name__ == "__main__":
    main()
