"""How long the window does not answer, and why: a timer in the event loop, over the main jobs.

Run ``python tests/with_screen.py python scripts/stall.py``. Each run is a process of its own that
opens the real window and the tab, and then goes through `JOBS`, each on an image of its own. A
timer is due every 5 ms, and what it comes late is when the window was deaf. While it is late a
second thread looks at what the main thread does. Other programs lengthen gaps, so that the figure
to read is how long the main thread computed in one gap. Printed is the run where that is the
shortest; beside it the floor: what napari alone takes for the same layers and as many widgets.
*All* is the time of the processor in all threads, in seconds, over the whole phase, but for those
of Mesa that draw in place of a graphics card (Linux).

``--cold`` empties the disk cache of the system before each run (Linux, as root).
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

DUE = 0.005
"""Seconds between two ticks of the timer."""
LATE = 0.03
"""A tick that is later than this is looked into."""
SIDE, CLICKS, OBJECTS = 1024, 6, 10
"""Of the small image; objects that are learned from."""
LARGE, EVERYTHING, MANY = 4000, 2048, 2000
"""Sides of the large images; objects that are saved."""
PYRAMID = 5120, 7680
"""Rows and columns of the finest level of a slide, which is segmented at half of it."""
WORKS, STEPS = 6, 3000
"""Sessions of earlier work on an image, and commands in each."""
PLANE, PLANES = 512, 12
"""Side and number of the planes of the stack."""
LOOKED_AT = 20.0
"""Seconds of learning, training and segmenting everything that are looked at."""
FLOOR, WIDGETS = "floor", 450
"""The job of napari alone; widgets in its dock, as many as the Segment tab has."""
PATIENCE = 1200.0


def main() -> None:
    """Measure in several processes and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--jobs", nargs="*", default=list(JOBS), choices=[*JOBS, FLOOR])
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--once", type=Path, metavar="WEIGHTS", help="measure here, print JSON")
    chosen = parser.parse_args()
    if chosen.once is not None:
        run = Run(chosen.once)
        print(json.dumps(run.floor() if FLOOR in chosen.jobs else run.measure(chosen.jobs)))
        return
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_SIMMAT_HOME"] = home
        os.environ["NAPARI_CONFIG"] = str(Path(home) / "napari.yaml")
        weights = Path(home) / "random_vit_b.pth"
        if "load vit_b" in chosen.jobs:
            save_random_vit_b(weights)
        runs, floors = [], []
        for number in range(chosen.runs):
            for results, jobs in ((floors, [FLOOR]), (runs, chosen.jobs)):
                if chosen.cold:
                    os.sync()
                    Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
                command = [sys.executable, __file__, "--once", str(weights), "--jobs", *jobs]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                results.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"run {number + 1} of {chosen.runs}", file=sys.stderr, flush=True)
    show(runs, floors)


def save_random_vit_b(path: Path) -> None:
    """Weights in the format of SAM's published ones, made by a process that then ends."""
    code = (
        "import sys, torch\n"
        "from segment_anything import sam_model_registry\n"
        "torch.manual_seed(0)\n"
        "torch.save(sam_model_registry['vit_b']().state_dict(), sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def show(runs: list[dict[str, Any]], floors: list[dict[str, Any]]) -> None:
    """Print for each phase the run where the main thread computed least in its longest gap."""
    print(
        f"\nThe main thread's gaps in ms (a tick is due every {1000 * DUE:.0f} ms), of the best of"
    )
    print(f"{len(runs)} runs; {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}\n")
    print(
        f"{'while':<28}{'s':>7}{'all':>7}{'p50':>6}{'max':>6}{'cpu':>6}{'floor':>6}"
        "  where most was computed"
    )
    for phase in runs[0]:
        best = min((run[phase] for run in runs if phase in run), key=lambda row: row["cpu"])
        figures = "".join(f"{best[name]:6.0f}" for name in ("p50", "max", "cpu"))
        floor = min((each[phase]["cpu"] for each in floors if phase in each), default=None)
        alone = "" if floor is None else f"{floor:.0f}"
        times = f"{best['seconds']:7.1f}{best['all']:7.1f}"
        print(f"{phase:<28}{times}{figures}{alone:>6}  {best['cause']}")


class Meter:
    """Gaps between ticks of a timer in the event loop, and what went on during long ones."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self._phase = ""
        self._drawn = 0.0  # seconds of Mesa's threads when the phase began
        self.worker: Any = None
        self.gaps: dict[str, list[float]] = {}
        self.longest: dict[str, tuple[float, str]] = {}
        self._main = threading.get_ident()
        self.spent: Counter[str] = Counter()
        self._last = self._computed = self._of_all = 0.0
        self._seen: list[tuple[str, str]] = []
        self._stacks = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the meter
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(int(1000 * DUE))
        self._timer.timeout.connect(self._tick)

    @property
    def phase(self) -> str:
        """What is measured now; empty for nothing."""
        return self._phase

    @phase.setter
    def phase(self, phase: str) -> None:
        drawn = _drawing_seconds()
        if self._phase:
            self.spent[self._phase] -= drawn - self._drawn
        self._phase, self._drawn = phase, drawn

    def start(self) -> None:
        """Begin to measure."""
        self._last, self._computed = time.perf_counter(), time.thread_time()
        self._of_all = time.process_time()
        self._timer.start()
        self._watcher.start()

    def stop(self) -> None:
        """End the timer and the thread."""
        self._timer.stop()
        self._ended.set()
        self._watcher.join()
        self._stacks.close()

    def figures(self, phase: str) -> dict[str, Any]:
        """Of the gaps of a phase, in ms."""
        gaps = 1000 * np.array(self.gaps[phase])
        computed, cause = self.longest.get(phase, (0.0, ""))
        return {
            "seconds": float(gaps.sum()) / 1000,
            "all": self.spent[phase],
            "p50": float(np.percentile(gaps, 50)),
            "max": float(gaps.max()),
            "cpu": 1000 * computed,
            "cause": cause,
        }

    def _tick(self) -> None:
        now, computed, of_all = time.perf_counter(), time.thread_time(), time.process_time()
        gap, work, seen = now - self._last, computed - self._computed, self._seen
        spent, self._of_all = of_all - self._of_all, of_all
        self._last, self._computed, self._seen = now, computed, []
        if self.phase:
            self.spent[self.phase] += spent
            self.gaps.setdefault(self.phase, []).append(gap)
            if work > self.longest.get(self.phase, (0.0, ""))[0]:
                self.longest[self.phase] = work, _cause(seen)

    def _watch(self) -> None:
        while not self._ended.wait(DUE):
            if time.perf_counter() - self._last > LATE:
                self._stacks.seek(0)
                self._stacks.truncate()
                faulthandler.dump_traceback(self._stacks)
                self._stacks.seek(0)
                stacks = _stacks(self._stacks.read())
                worker = None if self.worker is None else self.worker._thread
                idents = (self._main, None if worker is None else worker.ident)
                main, other = (_where(stacks.get(ident, [])) for ident in idents)
                self._seen.append((main, other))


def _drawing_seconds() -> float:
    """Processor time of the threads in which Mesa draws without a graphics card."""
    ticks = 0
    for task in Path("/proc/self/task").glob("*/stat"):
        with suppress(OSError):  # it may have ended
            name, _, rest = task.read_text().partition("(")[2].rpartition(")")
            if name.startswith("llvmpipe"):
                ticks += sum(map(int, rest.split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else 0.0


def _cause(seen: list[tuple[str, str]]) -> str:
    """What was seen most often while the main thread was late."""
    if not seen:
        return f"below {1000 * LATE:.0f} ms, or the interpreter's lock was held throughout"
    (main, worker), times = Counter(seen).most_common(1)[0]
    if main.startswith("stall.py"):  # nothing to do but to get a turn
        return f"no turn for the main thread, worker in {worker} ({times} of {len(seen)} looks)"
    return f"{main} ({times} of {len(seen)} looks)"


def _stacks(text: str) -> dict[int, list[tuple[Path, str]]]:
    """File and function of each call of each thread, the innermost first.

    `faulthandler` makes no frame objects: one of those, held here while its function returns, keeps
    that function's QPainter alive, and Qt crashes when the widget is painted the next time.
    """
    stacks: dict[int, list[tuple[Path, str]]] = {}
    for line in text.splitlines():
        if found := re.match(r"(?:Current t|T)hread 0x([0-9a-f]+)", line):
            calls = stacks[int(found[1], 16)] = []
        elif found := re.match(r'  File "(.*)", line \d+ in (.*)', line):
            calls.append((Path(found[1]), found[2]))
    return stacks


def _where(calls: list[tuple[Path, str]]) -> str:
    """The innermost function, and through which of our own files it was called."""
    if not calls:
        return "nothing"
    named = [f"{path.name}:{function}" for path, function in calls]
    for (path, _), caller in zip(calls[1:], named[1:], strict=True):
        if "napari_simmat" in path.parts:
            return f"{named[0]} < {caller}"
    return named[0]


class Run:
    """One run of the jobs in this process.

    Parameters
    ----------
    weights
        File of vit_b.
    """

    def __init__(self, weights: Path) -> None:
        import napari

        self.weights = weights
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1200, 800)
        self.meter = Meter()

    def measure(self, jobs: list[str]) -> dict[str, Any]:
        """All jobs in their order, as numbers for JSON."""
        self.viewer.add_image(blobs(SIDE), name="image")
        self.turns(50)  # napari draws the new layer
        self.meter.start()
        self.meter.phase = "open the tab"
        _, self.widget = self.viewer.window.add_plugin_dock_widget("napari-simmat")
        self.until(lambda: hasattr(self.widget, "tabs") and self.widget.tabs.isVisible())
        self.tab = self.widget.segment
        self.workspace, self.controller = self.tab.workspace, self.tab.controller
        self.meter.worker = self.controller.inference.worker
        self.until(lambda: self.workspace.session is not None)
        self.meter.phase = "load and encode, tiny"
        self.until(self.idle)
        for job in jobs:
            print(job, file=sys.stderr, flush=True)
            self.meter.phase = ""
            JOBS[job](self)
        self.meter.stop()
        self.widget.release()
        self.viewer.close()
        return {phase: self.meter.figures(phase) for phase in self.meter.gaps}

    def floor(self) -> dict[str, Any]:
        """What napari alone takes for the steps that are also its own, as numbers for JSON."""
        import napari
        from napari.layers import Image, Labels
        from qtpy.QtWidgets import QLabel, QScrollArea, QVBoxLayout, QWidget

        content, scroll, viewer = QWidget(), QScrollArea(), self.viewer
        rows = QVBoxLayout(content)
        for number in range(WIDGETS):
            rows.addWidget(QLabel(str(number)))
        scroll.setWidget(content)
        viewer.add_image(blobs(SIDE), name="image")
        self.turns(50)
        self.meter.start()
        layers = viewer.layers

        def click() -> None:
            layers["Points"].add((SIDE / 2, SIDE / 2))
            layers["Labels"].data[SIDE // 4 : SIDE // 2, SIDE // 2 :] += 1
            layers["Labels"].refresh()

        def show(side: int) -> None:
            for name in ("image", "Labels"):
                layers.remove(name)
            layers.insert(0, Image(blobs(side), name="image"))
            layers.insert(1, Labels(np.zeros((side, side), np.uint8), name="Labels"))
            viewer.reset_view()

        def choose(side: int) -> None:
            layers["chosen"].data = np.ones((side, side), np.uint8)
            layers["chosen"].contour = 1

        def replace_image() -> None:
            layers.remove("image")
            layers.insert(0, Image(np.roll(blobs(SIDE), 3), name="image"))
            viewer.reset_view()

        folder = tempfile.TemporaryDirectory()
        others: list[napari.Viewer] = []

        def open_another() -> None:
            others.append(napari.Viewer(show=True))
            others[0].add_image(blobs(512), name="image")
            others[0].window.add_dock_widget(QLabel("another"), name="floor")

        slide = Path(folder.name) / "tissue.ome.tif"
        write_pyramid(slide)
        finest = PYRAMID[0] // 2, PYRAMID[1] // 2

        def open_slide() -> None:
            import dask.array
            import tifffile
            import zarr

            store = zarr.open(tifffile.imread(slide, aszarr=True), mode="r")
            levels = [dask.array.from_zarr(store[str(level)]) for level in range(4)]
            viewer.add_image(levels, rgb=True, name="pyramid")

        def paint_half() -> None:
            labels = layers["objects"]
            labels.data[: int(0.48 * finest[0])] = 1
            labels.refresh()

        for phase, *steps in (
            ("the demo's window", open_another),
            (
                "the demo's start",
                lambda: others[0].add_labels(np.zeros((512, 512), np.uint8)),
                lambda: others[0].add_points(ndim=2),
                lambda: others[0].add_shapes(ndim=2),
            ),
            ("", lambda: others[0].close()),
            (
                "open the tab",
                lambda: viewer.window.add_dock_widget(scroll, name="floor"),
                lambda: viewer.add_labels(np.zeros((SIDE, SIDE), np.uint8)),
                lambda: viewer.add_points(ndim=2),
                lambda: viewer.add_shapes(ndim=2),
            ),
            ("clicks, tiny", *(click,) * CLICKS),
            (
                "the first commit",
                lambda: viewer.add_labels(np.zeros((SIDE, SIDE), np.int32), name="objects"),
            ),
            (
                "rows of the table",
                lambda: viewer.add_labels(np.zeros((40, 40), np.uint8), name="chosen"),
                *(lambda side=side: choose(side) for side in (30, 50)),
            ),
            ("next image", replace_image),
            ("", lambda: viewer.add_image(np.roll(blobs(SIDE), 7, axis=1), name="second")),
            ("an image is removed", lambda: layers.remove("second")),
            ("", lambda: layers.remove("objects"), lambda: layers.remove("chosen")),
            ("", lambda: show(LARGE)),
            (f"first click, {LARGE} x {LARGE}", click),
            (
                f"first commit, {LARGE} x {LARGE}",
                lambda: viewer.add_labels(np.zeros((LARGE, LARGE), np.int32), name="objects"),
            ),
            ("", lambda: layers.remove("objects")),
            ("a slide is opened", open_slide),
            (
                "commit of half a slide",
                lambda: viewer.add_labels(np.zeros(finest, np.int32), name="objects"),
                paint_half,
            ),
            ("", lambda: layers.remove("objects"), lambda: layers.remove("pyramid")),
            ("", lambda: show(EVERYTHING)),
            (f"everything, {EVERYTHING} x {EVERYTHING}", click),
            (
                "close while busy",
                lambda: viewer.window.remove_dock_widget(scroll),
                lambda: layers.remove("Labels"),
            ),
        ):
            self.meter.phase = phase
            for step in steps:
                step()
                self.turns(20)
        self.meter.stop()
        viewer.close()
        folder.cleanup()
        return {phase: self.meter.figures(phase) for phase in self.meter.gaps}

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

    def objects(self) -> None:
        """Commit the first objects, and choose them in the table one after the other."""
        self.tab.buttons.tools["point"].click()
        for number in range(3):
            self.meter.phase = ""
            self.press(300 + 250 * number, 500)
            self.until(self.idle)
            self.turns(20)
            self.meter.phase = "another commit" if number else "the first commit"
            self.tab.act("commit")
            self.until(self.idle)
            self.turns(20)
        table = self.tab.object_panel.table
        self.meter.phase = "rows of the table"
        for label in (1, 2, 3, 1, 2):
            table.choose([label])
            self.turns(20)
        self.meter.phase = ""
        for _ in range(len(self.workspace.session.history)):
            self.tab.act("undo")
        self.until(self.idle)

    def pen(self) -> None:
        """Draw around objects with the pen, one after the other, and along one."""
        self.tab.buttons.tools["pen"].click()
        self.turns(20)
        for number in range(3):
            turn = np.linspace(0, 2 * np.pi, 120)
            line = np.stack([500 + 60 * np.cos(turn), 252 + 250 * number + 60 * np.sin(turn)], 1)
            self.draw(line, "lines of the pen", "what a line of the pen gives")
        self.meter.phase = "its commit"
        self.tab.act("commit")
        self.until(self.idle)
        self.turns(20)
        self.meter.phase = ""
        for _ in range(len(self.workspace.session.history)):
            self.tab.act("undo")
        self.until(self.idle)

    def two_images(self) -> None:
        """Go over from one image with open prompts to another, and back."""
        self.press(300, 500)
        self.until(self.idle)
        self.viewer.add_image(np.roll(blobs(SIDE), 9, axis=1), name="second")
        self.until(self.idle)
        self.turns(50)
        choice = self.tab.channels.image
        for name in ("image", "second", "image"):
            self.meter.phase = "another of two images"
            choice.setCurrentIndex(choice.findText(name))
            choice.activated.emit(choice.currentIndex())
            self.until(self.idle)
            self.turns(20)
        self.meter.phase = ""
        self.viewer.layers.remove("second")
        self.tab.buttons.clear.click()
        self.until(self.idle)

    def slide(self) -> None:
        """Click on a large image, and commit what is shown."""
        self.show("slide", LARGE)
        self.until(lambda: self.workspace.session.geometry.name == "slide" and not self.tab.busy)
        self.tab.buttons.tools["point"].click()
        self.turns(20)
        self.press(LARGE // 2, LARGE // 2 + 60)
        self.until(lambda: not self.tab.busy and len(self.workspace.session.predictions) > 0)
        self.turns(50)
        for which in ("first", "second"):
            self.meter.phase = f"{which} commit, {LARGE} x {LARGE}"
            self.tab.act("commit")
            self.until(self.idle)
            self.turns(20)
            self.meter.phase = ""
            self.press(LARGE // 2 + 300, LARGE // 2 + 60)
            self.until(self.idle)
        self.tab.buttons.clear.click()
        self.viewer.layers.remove(self.workspace.objects)
        self.show("image", SIDE)
        self.until(self.idle)

    def pyramid(self) -> None:
        """Click on a slide at once, and commit half of it, which was outlined."""
        for layer in [each for each in self.viewer.layers if type(each).__name__ == "Image"]:
            self.viewer.layers.remove(layer)
        self.turns(20)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tissue.ome.tif"
            write_pyramid(path)
            self.turns(2)
            self.meter.phase = "a slide is opened"
            self.viewer.open(path, plugin="napari-simmat")
            self.viewer.reset_view()
            self.until(lambda: self.workspace.session is not None and not self.tab.busy)
            self.tab.buttons.tools["point"].click()
            self.turns(20)
            self.meter.phase = "first mask on a slide"
            height, width = PYRAMID
            self.press(width // 2, height // 2 + 120)
            self.until(lambda: len(self.workspace.session.predictions) > 0)
            self.turns(20)
            self.meter.phase = ""
            self.tab.buttons.clear.click()
            self.until(self.idle)
            self.tab.buttons.tools["pen"].click()
            turn = np.linspace(0, 2 * np.pi, 200)
            places = width / 2 * (1 + 0.72 * np.cos(turn)), height / 2 * (1 + 0.87 * np.sin(turn))
            self.draw(np.stack(places, axis=1), "", "")
            self.meter.phase = "commit of half a slide"
            self.tab.act("commit")
            self.until(self.idle)
            self.turns(20)
            self.meter.phase = ""
            committed = np.count_nonzero(self.workspace.objects.data)
            assert committed > 4_500_000, f"{committed} pixels, {self.tab.status.value().text}"
            self.viewer.layers.remove(self.workspace.objects)
            self.show("image", SIDE)
            self.until(self.idle)

    def earlier(self) -> None:
        """Open the menu where there are long sessions of earlier work on the image."""
        from napari_simmat.annotation.history import Command
        from napari_simmat.annotation.prompt_state import Prompts, PromptState
        from napari_simmat.annotation.session_file import new_path
        from napari_simmat.annotation.session_lines import SessionHeader, line_of

        session = self.workspace.session
        image = self.tab.autosave.image(session)
        points = tuple((float(n % SIDE), 7.0) for n in range(20))
        state = PromptState(Prompts(points, (1,) * len(points)))
        line = line_of("do", Command("prompts", PromptState(), state))
        for _ in range(WORKS):
            header = SessionHeader(image, session.geometry.usual.shape, "tiny", ()).line()
            new_path(image).write_text(header + STEPS * line, encoding="utf-8")
        self.turns(20)
        self.meter.phase = f"menu, {WORKS} earlier works"
        self.tab.menu.menu().aboutToShow.emit()
        self.until(lambda: len(self.tab.earlier.actions()) == WORKS)
        self.turns(20)
        self.meter.phase = ""
        for path, _ in self.tab.recovery.earlier():
            path.unlink()

    def demo(self) -> None:
        """Open the window of the demo, until its first click is answered."""
        from qtpy.QtWidgets import QApplication

        from napari_simmat.widgets.main import SimMATWidget, open_demo

        self.meter.phase = "the demo's window"
        viewer = open_demo(run=False)
        self.turns(1)
        self.meter.phase = "the demo's start"
        preview = "SimMAT preview"
        self.until(lambda: preview in viewer.layers and viewer.layers[preview].data.any())
        self.turns(20)
        self.meter.phase = ""
        for widget in QApplication.allWidgets():
            if isinstance(widget, SimMATWidget) and widget.viewer is viewer:
                widget.release()
        viewer.close()
        self.turns(20)

    def folder(self) -> None:
        """Go to the next image of a folder, and back."""
        import tifffile

        with tempfile.TemporaryDirectory() as folder:
            for number in range(3):
                tifffile.imwrite(Path(folder) / f"{number}.tif", np.roll(blobs(SIDE), number))
            images = self.tab.image_folder
            images.choose_folder(Path(folder))
            self.until(lambda: images.current is not None and self.idle())
            self.turns(50)
            for action in ("next image", "previous image"):
                self.meter.phase = action
                self.tab.act(action)
                self.until(lambda: not images.busy and self.idle())
                self.turns(50)
            self.meter.phase = ""
        self.show("image", SIDE)
        self.until(self.idle)

    def remove(self) -> None:
        """Remove one of two images."""
        self.viewer.add_image(np.roll(blobs(SIDE), 7, axis=1), name="second")
        self.until(self.idle)
        self.turns(50)
        self.meter.phase = "an image is removed"
        self.viewer.layers.remove("second")
        self.until(self.idle)
        self.turns(50)
        self.meter.phase = ""

    def learn(self) -> None:
        """Learn from objects, and click meanwhile."""
        from scipy.ndimage import label, maximum_filter

        labels, _ = label(blobs(SIDE) > 100)
        # Wider than they look, so that there is something to learn.
        labels = maximum_filter(np.where(labels <= OBJECTS, labels, 0), 25)
        objects = self.viewer.add_labels(labels, name="objects")
        self.workspace.use_objects(objects)
        learning, button = self.tab.learning, self.tab.learn_panel.start
        self.until(button.isEnabled)
        self.turns(20)
        self.meter.phase = "learn from objects"
        button.click()
        self.spend(lambda: learning.learns)
        self.click("clicks while it learns")
        learning.cancel()
        self.until(lambda: learning.worker.running is None)
        self.viewer.layers.remove("objects")
        self.until(self.idle)

    def train(self) -> None:
        """Open the Train tab, and train a network of the same foundation in its own process."""
        from napari.layers import Labels

        labels = (blobs(SIDE) > 100).astype(np.uint8)
        labels[SIDE // 2 :] *= 2
        self.viewer.layers.insert(1, Labels(labels, name="objects"))
        self.turns(50)  # napari draws the new layer
        self.meter.phase = "open the Train tab"
        self.widget.tabs.setCurrentIndex(1)
        tab, training = self.widget.train, self.widget.train.training
        self.until(lambda: not tab._later.isActive())
        self.turns(10)
        self.meter.phase = ""
        tab.form.name.setText("trained")
        self.turns(20)
        self.meter.phase = "a training starts and runs"
        tab.train.click()
        self.until(lambda: bool(training.history.loss) or not training.busy)
        self.spend(lambda: training.busy)
        self.meter.phase = ""
        for _ in range(2):  # at once
            tab.stop.click()
        self.until(lambda: not training.busy)
        tab.discard.click()
        self.widget.tabs.setCurrentWidget(self.tab)
        self.viewer.layers.remove("objects")
        self.until(self.idle)

    def load_vit_b(self) -> None:
        """Choose vit_b, and click while its encoder runs on another image."""
        self.meter.phase = "load and encode, vit_b"
        self.tab.models.set_value(self.weights)
        self.until(self.idle)
        self.click("clicks, vit_b")
        self.tab.models.choose_embedded()
        self.until(self.idle)

    def large(self) -> None:
        """Click on a large image before it is encoded."""
        self.show("slide", LARGE)
        self.until(lambda: self.workspace.session.geometry.name == "slide" and not self.tab.busy)
        self.tab.buttons.tools["point"].click()
        self.turns(20)
        self.meter.phase = f"first click, {LARGE} x {LARGE}"
        self.press(LARGE // 2, LARGE // 2 + 60)
        self.until(lambda: not self.tab.busy and len(self.workspace.session.predictions) > 0)
        self.meter.phase = ""
        self.tab.buttons.clear.click()
        self.show("image", SIDE)
        self.until(self.idle)

    def everything(self) -> None:
        """Segment everything in an image."""
        self.show("field", EVERYTHING)
        self.until(self.idle)
        self.meter.phase = f"everything, {EVERYTHING} x {EVERYTHING}"
        self.tab.act("segment everything")
        self.spend(lambda: self.controller.automatic.proposing)
        self.controller.automatic.cancel()
        self.until(self.idle)
        self.meter.phase = ""
        self.show("image", SIDE)
        self.until(self.idle)

    def drafts(self) -> None:
        """Go to doubtful drafts, and accept, reject and commit."""
        from napari_simmat.engine.settings import AutomaticSettings

        self.tab.automatic_panel.set_value(AutomaticSettings(points_per_side=16))
        self.tab.act("segment everything")
        self.until(self.idle)
        session, review = self.workspace.session, self.controller.review
        assert len(session.drafts.open) > 6, self.tab.status.value()
        self.workspace.propose(session, session.drafts.found._replace(doubt=1.0))
        self.turns(20)
        for action in ("next doubtful", "accept", "reject") * 3:
            self.meter.phase = f"{action}, of drafts"
            self.tab.act(action)
            self.turns(20)
        assert review.has_drafts
        self.meter.phase = "all drafts are committed"
        self.tab.act("commit")
        self.until(self.idle)
        self.turns(20)
        self.meter.phase = ""
        for _ in range(len(session.history)):
            self.tab.act("undo")
        self.tab.act("clear")
        self.until(self.idle)

    def propagate(self) -> None:
        """Follow an object through planes, whose masks appear meanwhile, and commit it."""
        for layer in [each for each in self.viewer.layers if type(each).__name__ == "Image"]:
            self.viewer.layers.remove(layer)
        self.viewer.add_image(np.stack([blobs(PLANE)] * PLANES), name="stack")
        self.viewer.reset_view()
        self.until(lambda: self.workspace.session is not None and self.idle())
        self.tab.buttons.tools["point"].click()
        self.turns(20)
        self.press(250, 250)
        self.until(self.idle)
        self.meter.phase = f"propagation, {PLANES} planes"
        self.tab.act("propagate")
        self.until(self.idle)
        assert self.controller.propagation.result is not None
        self.turns(20)
        self.meter.phase = "its commit"
        self.tab.act("commit")
        self.until(self.idle)
        self.turns(20)
        self.meter.phase = ""
        self.show("image", SIDE)
        self.until(self.idle)

    def save(self) -> None:
        """Save many objects."""
        rows, columns = np.indices((SIDE, SIDE)) // 16
        numbers = 1 + (rows * (SIDE // 16) + columns) // 2
        labels = np.where((rows + columns) % 2 | (numbers > MANY), 0, numbers).astype(np.int32)
        assert len(np.unique(labels)) == MANY + 1
        objects = self.viewer.add_labels(labels, name="many")
        self.turns(50)  # napari draws the new layer
        self.meter.phase = f"choose {MANY} objects"
        self.workspace.use_objects(objects)
        self.until(self.idle)
        session, exporter = self.workspace.session, self.tab.exporter
        self.meter.phase = f"save {MANY} objects"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "objects_labels.tif"
            snapshot = self.tab.autosave.snapshot(session)
            exporter.save(path, session.geometry, session.editor, [], snapshot.text, None)
            self.until(lambda: exporter.worker.idle)
            self.turns(10)
            assert path.exists()
        self.meter.phase = ""
        self.viewer.layers.remove("many")
        self.until(self.idle)

    def close(self) -> None:
        """Close the tab while it encodes."""
        self.show("another", EVERYTHING)
        self.until(lambda: self.controller.inference.worker.running is not None)
        self.turns(20)
        self.meter.phase = "close while busy"
        self.viewer.window.remove_dock_widget(self.widget)
        self.turns(20)
        self.meter.phase = ""
        assert self.controller.inference.worker.join(PATIENCE)

    def show(self, name: str, side: int) -> None:
        """Show another image, alone."""
        image = np.roll(blobs(side), len(name), axis=0)  # each name is another image
        for layer in [each for each in self.viewer.layers if type(each).__name__ == "Image"]:
            self.viewer.layers.remove(layer)
        self.viewer.add_image(image, name=name)
        self.viewer.reset_view()
        self.turns(20)

    def press(self, x: float, y: float) -> None:
        """Press the left button on a position of the world."""
        from qtpy.QtTest import QTest

        canvas = self.viewer.window._qt_viewer.canvas
        QTest.mouseClick(canvas.native, *self.left, self.on_canvas(x, y))

    def draw(self, line: np.ndarray, phase: str, after: str) -> None:
        """Draw along places x, y of the world (N, 2), until the answer has come."""
        from qtpy.QtTest import QTest

        canvas = self.viewer.window._qt_viewer.canvas
        places = [self.on_canvas(x, y) for x, y in line.tolist()]
        self.meter.phase = phase
        QTest.mousePress(canvas.native, *self.left, places[0])
        for place in places:
            self.move(place)
            self.turns(1)
        self.meter.phase = after
        QTest.mouseRelease(canvas.native, *self.left, places[-1])
        self.until(self.idle)
        self.turns(20)

    def move(self, place: Any) -> None:
        """Move the mouse to a position of the canvas, with the left button held."""
        from qtpy.QtCore import QEvent, QPointF
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        canvas = self.viewer.window._qt_viewer.canvas.native
        (left, none), at = self.left, QPointF(place)
        kind, everywhere = QEvent.Type.MouseMove, canvas.mapToGlobal(at)
        QApplication.sendEvent(canvas, QMouseEvent(kind, at, everywhere, left, left, none))

    @property
    def left(self) -> tuple[Any, Any]:
        """The left button, and no key."""
        from qtpy.QtCore import Qt

        return Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier

    def on_canvas(self, x: float, y: float) -> Any:
        """Where a position of the world is."""
        from qtpy.QtCore import QPoint

        canvas = self.viewer.window._qt_viewer.canvas
        x, y = canvas.view.scene.transform.map((x, y))[:2]
        return QPoint(round(float(x)), round(float(y)))

    def idle(self) -> bool:
        """Whether the window and the worker have nothing left to do."""
        return not self.tab.busy and self.controller.inference.worker.running is None

    def spend(self, goes_on: Callable[[], bool]) -> None:
        """Let the event loop run for a while, or until the work has ended."""
        begun = time.monotonic()
        self.until(lambda: time.monotonic() - begun > LOOKED_AT or not goes_on())

    def until(self, condition: Callable[[], bool]) -> None:
        """Let the event loop run until the condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.turns(1)
            if time.monotonic() > deadline:
                raise SystemExit("nothing came of it")

    def turns(self, count: int) -> None:
        """Turns of the event loop; each waits for something to do, such as a tick."""
        from qtpy.QtCore import QEventLoop, QTimer
        from qtpy.QtWidgets import QApplication

        for _ in range(count):
            QTimer.singleShot(int(1000 * DUE), lambda: None)
            flag = QEventLoop.ProcessEventsFlag
            QApplication.processEvents(flag.AllEvents)
            QApplication.instance().processEvents(flag.WaitForMoreEvents)


def blobs(side: int) -> np.ndarray:
    """Bright discs on a dark ground, uint8."""
    y, x = np.indices((side, side), dtype=np.float32)
    rings = np.cos(y / 40) * np.cos(x / 40)
    return (40 + 160 * (rings > 0.3)).astype(np.uint8)


def write_pyramid(path: Path) -> None:
    """A slide as OME-TIFF: discs in two colors, levels in SubIFDs, tiles."""
    import tifffile

    y, x = np.indices(PYRAMID, dtype=np.float32)
    rings = np.cos(y / 40) * np.cos(x / 40) > 0.3
    colors = np.where(rings[..., None], (95, 60, 130), (225, 165, 195)).astype(np.uint8)
    options: dict[str, Any] = {"photometric": "rgb", "tile": (512, 512), "compression": "zlib"}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(colors, subifds=3, metadata={"axes": "YXS"}, **options)
        for step in (2, 4, 8):
            file.write(colors[::step, ::step], subfiletype=1, **options)


JOBS: dict[str, Callable[[Run], None]] = {
    "clicks": lambda run: run.click("clicks, tiny"),
    "objects": Run.objects,
    "pen": Run.pen,
    "two images": Run.two_images,
    "slide": Run.slide,
    "pyramid": Run.pyramid,
    "earlier": Run.earlier,
    "folder": Run.folder,
    "remove": Run.remove,
    "learn": Run.learn,
    "train": Run.train,
    "load vit_b": Run.load_vit_b,
    "large": Run.large,
    "everything": Run.everything,
    "drafts": Run.drafts,
    "propagate": Run.propagate,
    "save": Run.save,
    "close": Run.close,
    "demo": Run.demo,  # last: what is drawn after another window was closed may fail
}


if __name__ == "__main__":
    main()
