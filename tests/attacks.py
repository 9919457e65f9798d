"""Attacks on commands that run: kills, too little memory, odd images, two at once.

``python -m tests.attacks NAME --trials 50 --seed 0`` repeats a row of `ATTACKS`, prints what was
lost and what it took, and fails if anything was. A command runs in a fork of this process, which
has imported everything before: so a kill hits its work, and a trial takes tenths of a second.
Seconds are those of the processor, since other programs may be busy.
"""

import argparse
import mmap
import multiprocessing
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from huggingface_hub import constants

from napari_simmat.annotation import session_file, session_lines, session_replay
from napari_simmat.annotation.history import Command, LayerEdit
from napari_simmat.annotation.prompt_state import PromptState
from napari_simmat.batch.inputs import find_inputs
from napari_simmat.batch.plan import SegmentConfig, plan
from napari_simmat.batch.run_plan import run_plan_job
from napari_simmat.checkpoints import catalog, sam_weights
from napari_simmat.checkpoints.checkpoint import read_tensors
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.cli import main
from napari_simmat.engine.label_edit import LabelEdit
from napari_simmat.engine.masks import ObjectMask
from napari_simmat.engine.predictor import Predictor
from napari_simmat.engine.settings import Compute
from napari_simmat.io.files import ASSETS, atomic_outputs
from napari_simmat.io.readers import read_image
from napari_simmat.progress import finish
from napari_simmat.training import evidence, few_shot, finetune, run_folder, trainer
from tests.batch.folders import contents
from tests.checkpoints import hub_server
from tests.checkpoints.hub_server import running_hub
from tests.training.simulated_learning import OFFER_ANYTHING
from tests.training.squares import folder_of_pictures

ROOT = Path(__file__).resolve().parents[1]
CONTENT = random.Random(0).randbytes(4_000_000)
"""Of a published model, as far as the download can tell."""
KILLS = 5
"""Of a command before it is left to finish."""
BEGUN = 100
"""Images of a folder of 10,000 that are segmented."""
START = mmap.mmap(-1, 8)
"""Megabytes of a fork when it began, which its pages of this process do not count for."""
MODULES = (few_shot, finetune)
"""Imported here, so that no fork imports them."""


@dataclass
class Found:
    """What the trials of an attack came to."""

    trials: int = 0
    lost: list[str] = field(default_factory=list)
    """One sentence for each thing that was lost or went wrong."""
    seconds: float = 0.0
    megabytes: float = 0.0
    """At most, of one command; memory is what it added to that of the process it began as."""
    notes: str = ""

    def add(self, seconds: float = 0.0, megabytes: float = 0.0, *lost: str) -> None:
        """Count a trial."""
        self.trials += 1
        self.lost += lost
        self.seconds = max(self.seconds, seconds)
        self.megabytes = max(self.megabytes, megabytes)


# ------------------------------------------------------------------ running


def forked(work: Callable[[], Any], delay: float | None = None) -> tuple[int, float, float]:
    """Run `work` in a fork, killed after `delay` seconds; its status, seconds and megabytes.

    The status is that of ``os.wait``: 9 if it was killed, 0 if it ended well before.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            START[:8] = int(resident()).to_bytes(8, "little")
            silent = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(silent, number)
            status = int(work() or 0)
        finally:
            os._exit(status)
    if delay is not None:
        ended = os.pidfd_open(child)
        select.select([ended], [], [], delay)
        os.close(ended)
        os.kill(child, signal.SIGKILL)  # a zombie if it has ended
    _, status, used = os.wait4(child, 0)
    before = int.from_bytes(START[:8], "little")
    return status, used.ru_utime + used.ru_stime, max(0.0, used.ru_maxrss / 1024 - before)


def spent() -> float:
    """Seconds of the processor that all ended children took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resident() -> float:
    """Megabytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def command(*words: Any, home: Path | None = None) -> Callable[[], int]:
    """The command ``simmat ...``; `home` is the user's folder."""

    def run() -> int:
        if home is not None:
            os.environ["NAPARI_SIMMAT_HOME"] = str(home)
        return main([str(word) for word in words])

    return run


def kill(
    trials: int,
    chance: random.Random,
    folder: Path,
    work: Callable[[Path], Callable[[], Any]],
    whole: Callable[[Path], Any],
    half: Callable[[Path], list[str]],
) -> Found:
    """Kill a command `trials` times; what is in the end there must equal an unbroken run's.

    `work` is the command that writes into a folder, `whole` what is compared, `half` what is half
    there after a kill, or lost.
    """
    found, given, place = Found(), folder / "unbroken", folder / "killed"
    given.mkdir()
    began = time.monotonic()
    status, *_ = forked(work(given))
    usual = time.monotonic() - began
    assert status == 0, "the unbroken run failed"
    expected, kills = whole(given), 0
    place.mkdir()
    while found.trials < trials or kills:
        last = kills == KILLS or found.trials == trials
        began = time.monotonic()
        status, seconds, size = forked(
            work(place), None if last else chance.uniform(0, 1.1 * usual)
        )
        if status == signal.SIGKILL:
            found.add(seconds, size, *half(place))
            kills += 1
            continue
        if not last:  # how long it takes depends on what else the computer does
            usual = time.monotonic() - began
        found.seconds, found.megabytes = max(found.seconds, seconds), max(found.megabytes, size)
        if status != 0 or whole(place) != expected:
            found.lost.append(f"after kill {found.trials} it ended with {status}, or otherwise")
        shutil.rmtree(place)
        place.mkdir()
        kills = 0
    return found


def loads(path: Path) -> list[str]:
    """A complaint if a safetensors file is not whole."""
    try:
        if path.exists():
            read_tensors(path)
    except ValueError as error:
        return [f"half written: {error}"]
    return []


# ------------------------------------------------------------------ kills


def kill_segment(trials: int, chance: random.Random, folder: Path) -> Found:
    """``simmat segment`` of a folder."""
    data = folder / "data"
    data.mkdir()
    for number in range(4):
        image = chance_image(chance, (60, 80))
        tifffile.imwrite(data / f"{number}.tif", image)
        (data / f"{number}.csv").write_text("axis-0,axis-1,object\n20,30,1\n40,60,2\n")

    def half(place: Path) -> list[str]:
        faults = []
        for path in (place / "out").glob("*_labels.tif"):
            try:
                read_image(path)
            except ValueError as error:
                faults.append(f"half written: {error}")
        return faults

    words = ("segment", data, "--model", "tiny", "--prompts", "same-stem", "--device", "cpu")
    return kill(
        trials,
        chance,
        folder,
        lambda place: command(*words, "--resume", "--output", place / "out"),
        lambda place: contents(place / "out"),
        half,
    )


def kill_encode(trials: int, chance: random.Random, folder: Path) -> Found:
    """``simmat encode`` of a folder."""
    data = folder / "data"
    data.mkdir()
    for number in range(4):
        tifffile.imwrite(data / f"{number}.tif", chance_image(chance, (60, 80)))

    def stored(place: Path) -> list[Path]:
        return sorted((place / "embeddings").rglob("[!.]*.safetensors"))

    return kill(
        trials,
        chance,
        folder,
        lambda place: command("encode", data, "--model", "tiny", "--device", "cpu", home=place),
        lambda place: [(path.name, path.read_bytes()) for path in stored(place)],
        lambda place: [fault for path in stored(place) for fault in loads(path)],
    )


def kill_train(trials: int, chance: random.Random, folder: Path) -> Found:
    """``simmat train``; it saves its state at each step."""
    images = folder_of_pictures(folder / "images")
    settings = ("--steps", 6, "--epochs", 6, "--validate-every", 3, "--batch", 2)
    trainer.SAVE_INTERVAL = 0.0

    def half(place: Path) -> list[str]:
        faults = loads(place / "m.safetensors") + loads(place / "m-training" / run_folder.BEST_FILE)
        try:
            if (state := place / "m-training" / run_folder.STATE_FILE).exists():
                torch.load(state, weights_only=True)
        except Exception as error:
            faults.append(f"half written: {error}")
        return faults

    return kill(
        trials,
        chance,
        folder,
        lambda place: command(
            *("train", images, "--output", place / "m.safetensors", "--device", "cpu"),
            *("--overwrite", *settings) if (place / "m.safetensors").exists() else settings,
        ),
        lambda place: (place / "m.safetensors").read_bytes(),
        half,
    )


def kill_few(trials: int, chance: random.Random, folder: Path) -> Found:
    """``simmat train --few``; it begins anew. Whatever it gains, its model is written."""
    images = folder_of_pictures(folder / "images", count=2, channels=1)
    for name, value in OFFER_ANYTHING.items():
        setattr(evidence, name, value)
    few_shot.STRENGTHS, few_shot.MORE_CLICKS = (1.0,), 0  # in seconds
    few_shot.FewShotConfig.__init__.__kwdefaults__.update(side=64, crops=1, prompted=1, folds=2)
    return kill(
        trials,
        chance,
        folder,
        lambda place: command(
            *("train", images, "--output", place / "m.safetensors", "--few", "--steps", 2),
            *("--device", "cpu", "--overwrite"),
        ),
        lambda place: (place / "m.safetensors").read_bytes(),
        lambda place: loads(place / "m.safetensors"),
    )


def kill_fetch(trials: int, chance: random.Random, folder: Path) -> Found:
    """``simmat models fetch`` of a published foundation."""
    with serving() as (url, _):
        publish(url)
        target = catalog.PUBLISHED_WEIGHTS["vit_t"].file

        def half(place: Path) -> list[str]:
            path = place / "bases" / target
            return ["half written"] if path.exists() and path.read_bytes() != CONTENT else []

        return kill(
            trials,
            chance,
            folder,
            lambda place: command("models", "fetch", "vit_t", home=place),
            lambda place: (place / "bases" / target).read_bytes(),
            half,
        )


def kill_push(trials: int, chance: random.Random, folder: Path) -> Found:
    """``simmat models push`` to a server like the Hub: its repository is old or new."""
    path = folder / "mine.safetensors"
    shutil.copy(ASSETS / "thermal.safetensors", path)
    content = path.read_bytes()
    constants.HF_HUB_DISABLE_XET = True
    with hub_process() as (address, held):
        os.environ["HF_ENDPOINT"], os.environ["HF_TOKEN"] = address, "hf_test"

        def name(place: Path) -> str:
            """Of a repository that is new for each unbroken run."""
            if not (place / "name").exists():
                (place / "name").write_text(f"me/{chance.randrange(10**9)}")
            return (place / "name").read_text()

        def half(place: Path) -> list[str]:
            files = held(name(place))
            good = not files or files == {**files, "mine.safetensors": digest(content)}
            return [] if good and len(files or {}) != 1 else ["the repository holds half a model"]

        return kill(
            trials,
            chance,
            folder,
            lambda place: command("models", "push", path, f"hf:{name(place)}", home=place),
            lambda place: held(name(place))["mine.safetensors"],
            half,
        )


def kill_atomic(trials: int, chance: random.Random, folder: Path) -> Found:
    """Replacing two files, over and over: each is old or new, and whole."""

    def replace(place: Path) -> Callable[[], None]:
        def run() -> None:
            for turn in range(20):
                with atomic_outputs(place / "a", place / "b") as temporary:
                    for path in temporary:
                        path.write_bytes(bytes([turn]) * 2**16)

        return run

    def half(place: Path) -> list[str]:
        contents_ = [path.read_bytes() for path in (place / "a", place / "b") if path.exists()]
        good = all(len(data) == 2**16 and len(set(data)) == 1 for data in contents_)
        return [] if good else ["half written"]

    return kill(trials, chance, folder, replace, lambda place: (place / "a").read_bytes(), half)


def kill_session(trials: int, chance: random.Random, folder: Path) -> Found:
    """Work in the Segment tab that is logged: what was logged is there after a kill."""
    found, shape = Found(), (3, 64, 64)
    counter = mmap.mmap(-1, 8)

    def work() -> None:
        labels = np.zeros(shape, np.int32)
        file = session_file.AutosaveFile(path, session_file.lock_of(path))
        header = session_lines.SessionHeader("image", shape, "tiny", ("gray",))
        finish(file.create_job(header.line()))
        for number in range(1, 100_000):
            mask = np.zeros(shape[1:], bool)
            top, left = (number * 7) % 50, (number * 11) % 50
            mask[top : top + 14, left : left + 14] = True
            patch = LabelEdit.write(labels, ObjectMask.of(mask, (number % 3, 0, 0)), number)
            edit = LayerEdit("a", (patch,))
            command = Command("commit", PromptState(), PromptState(), edit)
            finish(file.append_job("do", command))
            counter[:8] = number.to_bytes(8, "little")

    for trial in range(trials):
        path = folder / f"{trial}.jsonl"
        counter[:8] = bytes(8)
        _, seconds, size = forked(work, chance.uniform(0.005, 0.15))
        done = int.from_bytes(counter[:8], "little")
        kept = -1
        if path.exists() and path.stat().st_size:
            with path.open("rb") as lines:
                whole = sum(line.endswith(b"\n") for line in lines)
            if whole:
                replayed = finish(session_replay.replay_job(path, shape))
                kept = whole - 1
                labels = replayed.labels.get("a", np.zeros(1))
                if done and labels.max() not in (done, done + 1):
                    kept = -1
        lost = () if kept in (done, done + 1) or done == 0 else (f"{kept} of {done} commands",)
        found.add(seconds, size, *lost)
        path.unlink(missing_ok=True)
    return found


# ------------------------------------------------------------------ servers


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def publish(url: str) -> None:
    """Have the catalog name the file of a test's server as ``vit_t``."""
    from dataclasses import replace

    row = catalog.PUBLISHED_WEIGHTS["vit_t"]
    checksum = f"sha256:{digest(CONTENT)}"
    row = replace(row, url=url, checksum=checksum, size=len(CONTENT))
    catalog.PUBLISHED_WEIGHTS["vit_t"] = sam_weights.PUBLISHED_WEIGHTS["vit_t"] = row
    os.environ["NO_PROXY"] = "127.0.0.1"


@contextmanager
def serving(lie: Callable[[Any, bytes], None] | None = None) -> Iterator[tuple[str, list[str]]]:
    """A server of `CONTENT` in small parts; the ``Range`` of each request is noted."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Range", ""))
            if lie is not None:
                lie(self, CONTENT)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            for at in range(0, len(CONTENT), 2**18):
                self.wfile.write(CONTENT[at : at + 2**18])
                time.sleep(0.005)

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that is killed breaks the pipe."""

    with Quiet(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/file.pth", asked
        http.shutdown()


@contextmanager
def hub_process() -> Iterator[tuple[str, Callable[[str], dict[str, str] | None]]]:
    """A stand-in for the Hub in a process of its own, and what a repository of it holds."""
    ours, theirs = multiprocessing.Pipe()

    def serve() -> None:
        with running_hub() as hub:
            theirs.send(hub.address)
            while (name := theirs.recv()) is not None:
                files = hub.repositories.get(name)
                theirs.send(None if files is None else {k: digest(v) for k, v in files.items()})

    process = multiprocessing.get_context("fork").Process(target=serve)
    process.start()

    def held(name: str) -> dict[str, str] | None:
        ours.send(name)
        return ours.recv()

    yield ours.recv(), held
    ours.send(None)
    process.join()


def lying_range(trials: int, chance: random.Random, folder: Path) -> Found:
    """A server that sends parts unasked, and lies about which: only the whole file is kept.

    Published weights are downloaded as a whole, so that nothing is resumed: `lying_resume` is.
    """
    found = Found()

    def lie(handler: Any, content: bytes) -> None:
        start, end = sorted(chance.sample(range(len(content)), 2))
        told = chance.choice((f"{start}-{end}/{len(content)}", "0-9/10", f"0-{end}/*", "x", ""))
        body = content[: chance.choice((end, len(content), 10))] * chance.choice((1, 1, 2))
        handler.send_response(chance.choice((200, 206)))
        handler.send_header("Content-Range", f"bytes {told}")
        if chance.random() < 0.7:
            length = chance.choice((len(body), len(content), start))
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(body)

    with serving(lie) as (url, asked):
        publish(url)
        for trial in range(trials):
            home = folder / str(trial)
            status, seconds, size = forked(command("models", "fetch", "vit_t", home=home))
            kept = [path for path in (home / "bases").glob("*") if path.is_file()]
            wrong = [path.name for path in kept if path.read_bytes() != CONTENT]
            parts = sum(map(bool, asked))
            fault = wrong or parts or (status == 0) != bool(kept)
            said = f"kept {wrong}, status {status}, {parts} requests for a part"
            found.add(seconds, size, *([said] if fault else []))
            shutil.rmtree(home, ignore_errors=True)
        found.notes = f"{len(asked)} requests, none for a part"
    return found


def lying_resume(trials: int, chance: random.Random, folder: Path) -> Found:
    """A download from the Hub breaks off; asked for the rest, the server lies, or does not."""
    found, content = Found(), (ASSETS / "thermal.safetensors").read_bytes()
    asked: list[str] = []
    outcomes = {"kept": 0, "refused": 0}

    class Handler(hub_server._Handler):
        def _send(self, data: bytes, status: int, headers: dict[str, str]) -> None:
            if self.command == "HEAD" or "ETag" not in headers:
                super()._send(data, status, headers)
                return
            body, status = data[: chance.randrange(1, len(data))], 200
            headers = {**headers, "Content-Length": str(len(data))}
            if wanted := self.headers.get("Range", ""):
                asked.append(wanted)
                first = int(wanted.removeprefix("bytes=").split("-")[0])
                start = chance.choice((first, 0, max(0, first - 7), chance.randrange(len(data))))
                told = chance.choice((start, first))
                body, status = data[start:], chance.choice((206, 206, 206, 200))
                headers["Content-Length"] = str(len(body))
                headers["Content-Range"] = f"bytes {told}-{len(data) - 1}/{len(data)}"
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

    constants.HF_HUB_DISABLE_XET, constants.DOWNLOAD_CHUNK_SIZE = True, 2**16
    with running_hub() as hub:
        hub.RequestHandlerClass = Handler
        hub.repositories["me/mine"] = {"mine.safetensors": content}
        os.environ["HF_ENDPOINT"], os.environ["NO_PROXY"] = hub.address, "127.0.0.1"
        for trial in range(trials):
            home = folder / str(trial)
            status, seconds, size = forked(command("models", "fetch", "hf:me/mine", home=home))
            kept = [path.read_bytes() for path in home.rglob("*.safetensors")]
            good = kept == ([] if status else [content])
            outcomes["refused" if status else "kept"] += 1
            found.add(seconds, size, *([] if good else [f"status {status}, {len(kept)} kept"]))
            shutil.rmtree(home, ignore_errors=True)
    found.notes = f"{len(asked)} requests asked for the rest; {outcomes}"
    return found


# ------------------------------------------------------------------ bounds


def chance_image(chance: random.Random, shape: tuple[int, ...]) -> np.ndarray:
    """Discs on noise."""
    values = np.random.default_rng(chance.randrange(2**32)).integers(0, 40, shape)
    y, x = np.indices(shape[-2:])
    for _ in range(3):
        middle = chance.randrange(shape[-2]), chance.randrange(shape[-1])
        values[..., np.hypot(y - middle[0], x - middle[1]) < 9] += 150
    return values.astype(np.uint8)


def simmat(*words: Any, limit_kb: int = 0, **more: Any) -> subprocess.CompletedProcess[str]:
    """The program itself, with at most `limit_kb` of address space."""
    line = [sys.executable, "-m", "napari_simmat", *map(str, words)]
    if limit_kb:
        line = ["bash", "-c", f'ulimit -v {limit_kb}; exec "$@"', "_", *line]
    return subprocess.run(line, capture_output=True, text=True, timeout=1800, **more)


def little_memory(trials: int, chance: random.Random, folder: Path) -> Found:
    """A batch under ``ulimit -v`` of 3 GB with an image too large for it among four."""
    found = Found()
    data = folder / "data"
    data.mkdir()
    for number in range(4):
        tifffile.imwrite(data / f"{number}.tif", chance_image(chance, (60, 80)))
    tifffile.imwrite(data / "large.tif", np.zeros((24_000, 24_000), np.float32))
    for trial in range(trials):
        began = spent()
        output = folder / str(trial)
        words = ("segment", data, "--model", "tiny", "--prompts", "auto", "--output", output)
        ended = simmat(*words, limit_kb=3_000_000)
        done = len(list(output.glob("?_labels.tif")))
        raw = "Traceback" in ended.stderr or "unexpected" in ended.stderr
        fault = [f"{done} of 4, {ended.returncode}: {ended.stderr[-300:]}"]
        found.add(spent() - began, 0, *(fault if done < 4 or raw else ()))
        found.notes = " ".join(ended.stderr.split())[-200:]
        shutil.rmtree(output, ignore_errors=True)
    return found


def large_image(trials: int, chance: random.Random, folder: Path) -> Found:
    """A click into 20,000 x 20,000 pixels."""
    found = Found()
    image = np.tile(np.uint8(chance_image(chance, (1000, 1000)) // 2), (20, 20))
    image[9_000:9_060, 9_000:9_060] = 200

    def click() -> int:
        predictor = Predictor(load_model("tiny"), "cpu")
        predictor.set_image(image)
        result = predictor.predict(points=[(9_030, 9_030)])
        return 0 if result.mask[9_030, 9_030] and result.mask.sum() < 30_000 else 3

    for _ in range(trials):
        status, seconds, size = forked(click)
        found.add(seconds, size, *([f"ended with {status}"] if status else []))
    found.notes = f"{size / 400:.2f} bytes of memory a pixel"
    return found


def many_files(trials: int, chance: random.Random, folder: Path) -> Found:
    """A folder of 10,000 images: planned, begun, killed, planned again and resumed.

    Of `BEGUN` images that are segmented, the second half adds no memory.
    """
    found, data = Found(), folder / "data"
    data.mkdir()
    tifffile.imwrite(folder / "one.tif", chance_image(chance, (16, 16)))
    for number in range(10_000):
        os.link(folder / "one.tif", data / f"{number:05}.tif")
    (folder / "p.csv").write_text("axis-0,axis-1\n8,8\n")
    config = SegmentConfig(model="tiny", compute=Compute(device="cpu"))

    def some(output: Path, count: int) -> int:
        prompts = folder / "p.csv"
        made = plan(find_inputs([data]), output=output, prompts=prompts, existing="resume")
        job, began, used = run_plan_job(made, config), time.process_time(), {}
        for step in job:
            used.setdefault(int(step.done), (resident(), time.process_time() - began))
            if step.done >= count:
                break
        job.close()
        grown = used[count][0] - used[count // 2][0]
        (folder / "said").write_text(f"{grown:+.1f} {used[count][1] / count * 1000:.0f}")
        return 0 if len(made.tasks) == 10_000 else 3

    for trial in range(trials):
        output = folder / str(trial)
        began = time.monotonic()
        status, seconds, size = forked(lambda place=output: some(place, BEGUN))
        usual = time.monotonic() - began
        done = sorted(output.glob("*_labels.tif"))
        grown, each = (folder / "said").read_text().split()
        found.notes = f"{each} ms an image, {grown} MB in the second half"
        fault = status != 0 or len(done) < BEGUN or float(grown) > 8
        before = {path: path.read_bytes() for path in done}
        shutil.rmtree(output)
        forked(lambda place=output: some(place, BEGUN), chance.uniform(0.3, 0.9) * usual)
        again, *_ = forked(lambda place=output: some(place, BEGUN))
        same = all(path.exists() and path.read_bytes() == before[path] for path in before)
        fault |= again != 0 or not same
        found.add(seconds, size, *([f"status {status}, {again}; {len(done)}"] if fault else []))
    return found


def clock_set_back(trials: int, chance: random.Random, folder: Path) -> Found:
    """The clock is set back by up to a year while a batch runs: the results are the same."""
    found, data = Found(), folder / "data"
    data.mkdir()
    for number in range(3):
        tifffile.imwrite(data / f"{number}.tif", chance_image(chance, (60, 80)))
    words = ("segment", data, "--model", "tiny", "--prompts", "auto", "--device", "cpu")
    forked(command(*words, "--output", folder / "usual"))
    expected, real = contents(folder / "usual"), time.time
    for trial in range(trials):
        output, back, after = folder / str(trial), chance.uniform(1, 3e7), chance.uniform(0, 2)

        def set_back(output: Path = output, back: float = back, after: float = after) -> int:
            began = real()
            time.time = lambda: real() - (back if real() > began + after else 0)
            return (
                command(*words, "--output", output)()
                or command(*words, "--output", output, "--resume")()
            )

        status, seconds, size = forked(set_back)
        same = status == 0 and contents(output) == expected
        found.add(seconds, size, *([] if same else [f"ended with {status}, or otherwise"]))
    return found


def interrupted_start(trials: int, chance: random.Random, folder: Path) -> Found:
    """Ctrl+C while the program starts: no traceback, nothing half written."""
    found, data = Found(), folder / "data"
    data.mkdir()
    tifffile.imwrite(data / "a.tif", chance_image(chance, (60, 80)))
    words = ("segment", data, "--model", "tiny", "--prompts", "auto", "--output")
    began = time.monotonic()
    simmat(*words, folder / "usual")
    usual = time.monotonic() - began
    for trial in range(trials):
        output, began = folder / str(trial), spent()
        line = [sys.executable, "-m", "napari_simmat", *map(str, (*words, output))]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(usual * (trial + 0.5) / trials)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=600)
        left = [path.name for path in output.rglob("*.part")]
        raw = "Traceback" in said
        fault = f"at {(trial + 0.5) / trials:.0%}: {said[-200:]} {left}"
        found.add(spent() - began, 0, *([fault] if raw or left else []))
    return found


def two_trainings(trials: int, chance: random.Random, folder: Path) -> Found:
    """Two trainings into one folder: the second is refused, the first ends as if alone."""
    found, images = Found(), folder_of_pictures(folder / "images")
    settings = ("--steps", 6, "--epochs", 6, "--validate-every", 3, "--batch", 2)

    def words(place: Path) -> tuple[Any, ...]:
        return ("train", images, "--output", place / "m.safetensors", "--device", "cpu", *settings)

    (folder / "usual").mkdir()
    _, usual, _ = forked(command(*words(folder / "usual")))
    expected = (folder / "usual/m.safetensors").read_bytes()
    for trial in range(trials):
        place = folder / str(trial)
        place.mkdir()
        statuses: list[int] = []
        one = threading.Thread(
            target=lambda p=place, s=statuses: s.append(forked(command(*words(p)))[0])
        )
        one.start()
        time.sleep(chance.uniform(0, 0.6 * usual))
        other, seconds, size = forked(command(*words(place)))
        one.join()
        whole = (place / "m.safetensors").read_bytes() == expected
        good = whole and sorted((statuses[0] != 0, other != 0)) == [False, True]
        found.add(seconds, size, *([] if good else [f"ended with {statuses[0]} and {other}"]))
    return found


def bad_numbers(trials: int, chance: random.Random, folder: Path) -> Found:
    """Checkpoints with NaN, infinity, subnormal and huge weights: refused, or a finite mask."""
    found, source = Found(), ASSETS / "thermal.safetensors"
    spec, tensors = load_model(source).spec, read_tensors(source)
    values = (np.nan, np.inf, -np.inf, 1e-45, 1e-40, 3e38, -3e38, 1e30)
    outcomes: dict[str, int] = {}
    for _ in range(trials):
        names = chance.sample(sorted(tensors), chance.choice((1, 1, 5, len(tensors))))
        value, path = chance.choice(values), folder / "m.safetensors"
        changed = dict(tensors)
        for name in names:
            flat = changed[name].clone().float().flatten()
            flat[:: chance.choice((1, 7, flat.numel()))] = value
            changed[name] = flat.reshape(changed[name].shape).to(changed[name].dtype)

        def use(changed: Any = changed, path: Path = path) -> int:
            from safetensors import safe_open
            from safetensors.torch import save_file

            with safe_open(source, "pt") as file:
                save_file(changed, path, file.metadata())
            try:
                predictor = Predictor(load_model(path), "cpu")
                image = np.arange(48 * 64 * len(spec.channels), dtype=np.float32) % 251
                shape = (len(spec.channels), 48, 64)
                predictor.set_image(image.reshape(shape), channel_axis=0)
                result = predictor.predict(points=[(20, 30)])
            except ValueError:
                return 1
            return 0 if np.isfinite(result.logits).all() and np.isfinite(result.score) else 3

        status, seconds, size = forked(use)
        kind = {0: "used", 256: "refused"}.get(status, "broken")
        outcomes[kind] = outcomes.get(kind, 0) + 1
        found.add(seconds, size, *([f"{value} ended with {status}"] if kind == "broken" else []))
    found.notes = str(outcomes)
    return found


def odd_images(trials: int, chance: random.Random, folder: Path) -> Found:
    """Images of NaN alone, of one value, of one pixel, of 2 x 20,000: a result or a sentence."""
    found, words = Found(), ("--model", "tiny", "--output", folder / "out", "--device", "cpu")
    images = {
        "nan": np.full((40, 50), np.nan, np.float32),
        "equal": np.full((40, 50), 7, np.uint16),
        "zero": np.zeros((40, 50), np.uint8),
        "infinite": np.full((40, 50), np.inf, np.float32),
        "pixel": np.full((1, 1), 3, np.uint8),
        "low": chance_image(chance, (2, 20_000)),
        "narrow": chance_image(chance, (20_000, 2)),
        "stack": np.full((3, 1, 1), 3, np.uint8),
    }
    for trial in range(trials):
        name = [*images][trial % len(images)]
        path = folder / f"{name}.tif"
        tifffile.imwrite(path, images[name], photometric="minisblack")
        for prompts in ("auto", folder / "p.csv"):
            axes = images[name].ndim
            header = ",".join(f"axis-{n}" for n in range(axes))
            (folder / "p.csv").write_text(f"{header}\n{','.join('0' * axes)}\n")
            said = folder / "said"

            def run(path: Path = path, prompts: Any = prompts, said: Path = said) -> int:
                os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
                return command("segment", path, *words, "--prompts", prompts, "--overwrite")()

            status, seconds, size = forked(run)
            text = said.read_text()
            raw = "Traceback" in text or "unexpected" in text or (status and not text.strip())
            found.add(seconds, size, *([f"{name}: {text[-200:]}"] if raw or status & 127 else []))
    return found


def two_affines(trials: int, chance: random.Random, folder: Path) -> Found:
    """Labels of a NIfTI whose qform and sform differ lie where other programs see the image."""
    import nibabel

    found = Found()
    for _ in range(trials):
        rows = np.random.default_rng(chance.randrange(2**32))
        affines = [np.eye(4), np.eye(4)]
        for affine in affines:
            affine[:3, :3] = np.diag(rows.uniform(0.5, 3, 3)) * rows.choice((-1, 1), 3)
            affine[:3, 3] = rows.uniform(-50, 50, 3)
        image = nibabel.Nifti1Image(rows.integers(0, 255, (30, 20, 2)).astype(np.uint8), None)
        codes = chance.choice((0, 1, 2, 4)), chance.choice((0, 1, 2, 4))
        image.set_qform(affines[0], codes[0])
        image.set_sform(affines[1], codes[1])
        path, output = folder / "a.nii.gz", folder / "out"
        nibabel.save(image, path)
        (folder / "p.csv").write_text("axis-0,axis-1,axis-2\n0,10,15\n")
        words = ("segment", path, "--model", "tiny", "--output", output, "--overwrite")
        status, seconds, size = forked(command(*words, "--prompts", folder / "p.csv"))
        fault = [f"ended with {status}"] if status else []
        if not fault:
            labels, seen = nibabel.load(output / "a_labels.nii.gz"), nibabel.load(path)
            if not np.allclose(labels.affine, seen.affine, atol=1e-3):
                fault = [f"codes {codes}: {labels.affine.tolist()} for {seen.affine.tolist()}"]
        found.add(seconds, size, *fault)
    return found


def leaving_links(trials: int, chance: random.Random, folder: Path) -> Found:
    """Data sets with links that lead out of them, nowhere, or to themselves."""
    from napari_simmat.datasets.folder import from_folder

    found, outcomes = Found(), {"used": 0, "refused": 0}
    secret = folder / "secret.tif"
    tifffile.imwrite(secret, np.ones((64, 64), np.uint16))
    for trial in range(trials):
        data = folder_of_pictures(folder / f"data{trial}")
        path = chance.choice(sorted(each for each in data.rglob("*") if each.is_file()))
        path.unlink()
        targets = (secret, folder / "nowhere", path, Path("/dev/zero"), folder, Path("/etc/passwd"))
        path.symlink_to(chance.choice(targets))
        began = time.process_time()
        fault = []
        try:
            for sample in from_folder(data).train:
                sample.load()
            outcomes["used"] += 1
        except (ValueError, OSError) as error:
            outcomes["refused"] += 1
            if "\n" in str(error) or not str(error).rstrip().endswith("."):
                fault = [f"{path.name} -> {path.readlink()}: {error}"]
        except Exception as error:
            fault = [f"{path.name} -> {path.readlink()}: {type(error).__name__} {error}"]
        found.add(time.process_time() - began, 0, *fault)
        shutil.rmtree(data)
    found.notes = str(outcomes)
    return found


ATTACKS: dict[str, Callable[[int, random.Random, Path], Found]] = {
    name: function
    for name, function in list(globals().items())
    if callable(function) and getattr(function, "__annotations__", {}).get("return") is Found
    if name != "kill"
}
"""By name; each takes the number of trials, a source of chance, and an empty folder."""


def attack(name: str, trials: int, seed: int) -> Found:
    """Repeat an attack in a temporary folder; a line says what came of it."""
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        began = time.monotonic()
        os.environ["NAPARI_SIMMAT_HOME"] = f"{folder}/home"
        place = Path(folder, "work")
        place.mkdir()
        found = ATTACKS[name](trials, random.Random(seed), place)
    said = (
        f"{name}: {found.trials} trials from seed {seed}, {len(found.lost)} lost; at most "
        f"{found.seconds:.1f} s and {found.megabytes:.0f} MB; {found.notes} "
        f"({time.monotonic() - began:.0f} s in all)"
    )
    sys.stdout.write("\n".join([said, *found.lost[:20]]) + "\n")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+", choices=[*ATTACKS, "all"])
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    names = [*ATTACKS] if "all" in given.names else given.names
    lost = [line for name in names for line in attack(name, given.trials, given.seed).lost]
    sys.exit(bool(lost))
