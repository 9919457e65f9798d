"""Open untrusted files in a child process: what came of it, how long it took, how much memory.

A hang, a crash or a file opened elsewhere is then a result as any other. The child reads lines of
JSON, the paths, and answers each with a line of JSON.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 5.0
MEGABYTES = 500
PATIENCE = 300
"""Seconds on the clock after which a file hangs, on a computer that is busy otherwise."""


@dataclass(frozen=True)
class Opened:
    """What came of opening a file.

    Parameters
    ----------
    outcome
        ``"value"``, ``"refused"`` (a documented exception whose message names the file),
        ``"undocumented"``, ``"hangs"`` or ``"crashed"``.
    words
        The message, or the shape.
    seconds, megabytes
        Time of the processor and growth of memory; memory is 0 where the system does not say.
    outside
        Files beyond the given one's folder that were opened.
    noise
        What reached stderr.
    """

    outcome: str
    words: str = ""
    seconds: float = 0.0
    megabytes: int = 0
    outside: list[str] = field(default_factory=list)
    noise: str = ""

    @property
    def fault(self) -> str:
        """What is wrong with that; empty if nothing is."""
        if self.outcome not in ("value", "refused"):
            return f"{self.outcome} ({self.words})"
        if self.outside:
            return f"opened {self.outside}"
        if self.seconds > SECONDS or self.megabytes > MEGABYTES:
            return f"took {self.seconds:.1f} s and {self.megabytes} MB ({self.words})"
        return f"said {self.noise!r}" if self.noise else ""


class Opener:
    """A child process that opens one file after the other; started again after a hang.

    Parameters
    ----------
    kind
        What it opens, a name in `USES`.
    """

    def __init__(self, kind: str = "image") -> None:
        self._kind = kind
        self._child: subprocess.Popen[str] | None = None
        self._read = b""

    def __enter__(self) -> Opener:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def open(self, *paths: Path) -> list[Opened]:
        """Open each of a few `paths`, and use a part of what is in it."""
        found: list[Opened] = []
        while len(found) < len(paths):
            child = self._child or self._start()
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.writelines(json.dumps(str(path)) + "\n" for path in paths[len(found) :])
            child.stdin.flush()
            while self._child is not None and len(found) < len(paths):
                found.append(self._answer(child.stdout.fileno()))
        return found

    def _answer(self, pipe: int) -> Opened:
        """The next answer of the child, which is ended if there is none."""
        began = time.monotonic()
        while b"\n" not in self._read:
            ready = select.select([pipe], [], [], PATIENCE)[0]
            part = os.read(pipe, 1 << 16) if ready else b""
            if not part:
                self._end()
                seconds = time.monotonic() - began
                return Opened("crashed" if ready else "hangs", seconds=seconds)
            self._read += part
        line, _, self._read = self._read.partition(b"\n")
        return Opened(**json.loads(line))

    def _start(self) -> subprocess.Popen[str]:
        paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self._child = child = subprocess.Popen(
            [sys.executable, "-m", "tests.opening", self._kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        return child

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child, self._read = None, b""


# ----------------------------------------------------------------- in the child


def serve(kind: str) -> None:
    """Answer requests until stdin closes."""
    import logging
    import resource

    from napari_simmat.cli import quiet_libraries

    quiet_libraries()
    logging.getLogger("napari_simmat").addHandler(logging.NullHandler())  # notes are no noise
    resource.setrlimit(resource.RLIMIT_DATA, (2**33, 2**33))  # mapped files do not count
    with tempfile.TemporaryDirectory() as folder:
        _warm_up(kind, Path(folder))
    opened: list[str] = []
    sys.addaudithook(lambda event, given: _note_opened(opened, event, given))
    noise = tempfile.TemporaryFile()  # noqa: SIM115
    os.dup2(noise.fileno(), 2)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        path = json.loads(line)
        opened.clear()
        noise.truncate(0)
        noise.seek(0)
        before, began = _start_of_memory(), time.process_time()  # other programs may be busy
        outcome, words = _outcome(kind, Path(path))
        seconds = time.process_time() - began
        sys.stderr.flush()
        noise.seek(0)
        answer = {
            "outcome": outcome,
            "words": words,
            "seconds": round(seconds, 3),
            "megabytes": max(0, _memory("VmHWM") - before) // 1024,
            "outside": sorted({each for each in opened if not _is_allowed(each, Path(path))}),
            "noise": noise.read().decode(errors="replace")[:500],
        }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _outcome(kind: str, path: Path) -> tuple[str, str]:
    documented = ValueError if kind == "image" else (ValueError, OSError)
    try:
        return "value", USES[kind](path)
    except documented as error:
        words = str(error)
        names = [path.name, *(each.name for each in path.parent.iterdir())]
        good = (
            any(name in words for name in names)
            and "\n" not in words
            and words.rstrip().endswith(".")
        )
        good = good and len(words) < 1000 and tempfile.gettempdir() not in words
        return ("refused" if good else "undocumented"), words[:600]
    except BaseException as error:
        return "undocumented", f"{type(error).__name__}: {str(error)[:300]}"


def _use_image(path: Path) -> str:
    """Read an image as a whole and lazily, and the first and last plane of it."""
    from napari_simmat.io.image_file import LAZY_ABOVE
    from napari_simmat.io.readers import read_image

    for lazy_above in (LAZY_ABOVE, 0):
        file = read_image(path, lazy_above=lazy_above)
        _use_planes(file)
    return f"{file.axes} {file.data.shape} {file.data.dtype} {' '.join(file.notes)}"


def _use_planes(file: Any) -> None:
    import numpy as np

    leading = [n for n, letter in enumerate(file.axes) if letter not in "CSYX"]
    for end in (0, -1):
        where = tuple(
            file.data.shape[n] + end if n in leading and end else 0 if n in leading else slice(None)
            for n in range(len(file.axes))
        )
        plane = np.asarray(file.data[where])
        assert plane.size > 0
        assert plane.dtype.kind in "biufc"


def _use_model(path: Path) -> str:
    """Load a model and click into an image with it."""
    import numpy as np

    from napari_simmat import Predictor, load_model

    predictor = Predictor(load_model(path), device="cpu")
    names = predictor.model.spec.channel_names
    image = np.arange(48 * 64 * len(names), dtype=np.float32).reshape(len(names), 48, 64) % 251
    try:
        predictor.set_image(image, channel_axis=0)
        result = predictor.predict(points=[(20, 30)])
    except (ValueError, MemoryError) as error:
        if predictor.model.spec.name in str(error):
            raise ValueError(f"{path.name}: {error}") from error
        raise
    assert np.isfinite(result.score)
    assert np.isfinite(result.logits).all()
    return f"{predictor.model.spec.name} {result.score:.3f}"


IMAGE_SHAPE = (3, 20, 30)
"""Of the image that sessions, prompts and records are for."""


def _use_session(path: Path) -> str:
    """Replay a session, and count its objects."""
    from napari_simmat.annotation.session_replay import OTHER_SHAPE, replay_job
    from napari_simmat.engine.label_index import LabelIndex
    from napari_simmat.progress import finish

    try:
        state = finish(replay_job(path, IMAGE_SHAPE))
    except ValueError as error:
        if str(error) == OTHER_SHAPE:
            raise ValueError(f"{path.name}: {error}") from error
        raise
    return " ".join(str(LabelIndex.of(labels).sizes()) for labels in state.labels.values())


def _use_prompts(path: Path) -> str:
    """Read prompts, or a record's, as for a run, and check that they lie on the image."""
    from napari_simmat.batch.loaded_image import read_task_prompts

    try:
        prompts, _ = read_task_prompts(path, IMAGE_SHAPE)
        for prompt in prompts:
            prompt.check_inside(IMAGE_SHAPE[-2:])
    except ValueError as error:  # a run names the file
        words = str(error)
        raise ValueError(words if path.name in words else f"{path.name}: {words}") from error
    return f"{len(prompts)} prompts"


def _use_dataset(path: Path) -> str:
    """Read a folder of labeled images, and each of its samples."""
    from napari_simmat.datasets.folder import from_folder

    try:
        found = from_folder(path)
        for sample in (*found.train, *found.validation):
            assert sample.load()[0].size > 0
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"{path.name}: {error}") from error
    return f"{len(found.train)} and {len(found.validation)} samples"


def _use_manifest(path: Path) -> str:
    """Read a list of images."""
    from napari_simmat.batch.inputs import read_manifest

    try:
        return f"{len(read_manifest(path))} images"
    except OSError as error:  # says where it looked
        raise ValueError(str(error).replace(str(path.parent), "")) from error


def _use_options(path: Path) -> str:
    """Read the options of a command from a file; the command line explains what it refuses."""
    from cyclopts.exceptions import CycloptsError

    import napari_simmat.cli as cli

    try:
        words = ["segment", "a.tif", "--output", "out", "--config", str(path)]
        cli.app.config = cli.Dict(data=cli._options_of_file(words), source=str(path))
        _, bound, _ = cli.app.parse_args(words, exit_on_error=False, print_error=False)
    except (ValueError, CycloptsError) as error:
        reason = " ".join(str(error).replace(f"{path.parent}/", "").split())
        raise ValueError(f"{path.name}: {reason} See simmat segment --help.") from error
    return f"{len(bound.arguments)} options"


USES = {
    "image": _use_image,
    "model": _use_model,
    "session": _use_session,
    "prompts": _use_prompts,
    "dataset": _use_dataset,
    "manifest": _use_manifest,
    "options": _use_options,
}


def _warm_up(kind: str, folder: Path) -> None:
    """Import what reading needs, so that its files do not count as opened."""
    import numpy as np

    if kind == "model":
        import napari_simmat.engine.predictor

        return
    if kind == "session":
        import napari_simmat.annotation.session_file  # noqa: F401
    if kind == "prompts":
        for name in ("roifile", "skimage.measure", "napari_simmat.batch.segment_image"):
            __import__(name)
    if kind in ("dataset", "manifest", "options"):
        for name in ("datasets.folder", "batch.plan", "cli", "engine.predictor"):
            __import__(f"napari_simmat.{name}")
    readers = ("imagecodecs", "nibabel", "pydicom.pixels", "SimpleITK", "tifffile", "zarr")
    for name in (*readers, "dask.array"):
        __import__(name)
    np.save(folder / "a.npy", np.zeros((8, 8), np.uint8))
    _use_image(folder / "a.npy")


def _note_opened(opened: list[str], event: str, given: tuple[Any, ...]) -> None:
    if event in ("open", "os.open") and given and isinstance(given[0], (str, bytes)):
        opened.append(os.path.realpath(os.fsdecode(given[0])))


def _is_allowed(opened: str, path: Path) -> bool:
    """Whether a file lies beside `path`, or belongs to Python, the system or the package."""
    own = [path.parent.resolve(), ROOT, sys.prefix, sys.base_prefix, "/proc", "/sys", "/dev"]
    own.append(os.environ.get("NAPARI_SIMMAT_HOME", "/nowhere"))
    return any(Path(opened).is_relative_to(each) for each in own)


def _start_of_memory() -> int:
    """Resident memory in KB; from here on the peak is measured anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 1 << 60
    return _memory("VmRSS")


def _memory(name: str) -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name))


if __name__ == "__main__":
    serve(sys.argv[1])
