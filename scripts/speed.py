"""Speed of SAM here compared with stock ``segment_anything``, on the same random weights of ViT-B.

``python scripts/speed.py --output DIR`` runs both alternately in one process and appends every
number to ``DIR/speed.csv``; ``speed.md`` (medians, ratios with their range) and ``speed.png`` are
made from all numbers in it. A long measurement can thus be split: ``--rows encode click`` compares
some rows with stock, ``--alone cancel start`` measures this package alone, ``--threads 2`` uses
more threads, and without these options only the table is written again. ``--peer PYTHON`` adds
micro-sam, installed in that Python, in its own process. Needs Linux and matplotlib (group
``figures``).

With one thread CPU time is measured, so that other programs disturb it little; with more,
wall-clock time.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import torch
from speed_alone import ALONE
from speed_report import Measured, draw, read, rows_of, table
from speed_rows import ROWS, Both, Row, Work, everything


class Log:
    """Appends numbers to the CSV as they come."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._threads = path, threads
        self._run = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append([*Measured._fields, "load"])

    def add(self, row: str, who: str, number: int, values: dict[str, float]) -> None:
        """Of one row, by whom, in which round: the values of some quantities."""
        load = Path("/proc/loadavg").read_text().split()[0]
        for quantity, value in values.items():
            measured = Measured(self._run, self._threads, row, who, number, quantity, value)
            self._append([*measured[:-1], f"{value:.5g}", load])

    def _append(self, cells: list[object]) -> None:
        with self._path.open("a", newline="") as file:
            csv.writer(file).writerow(cells)


def beside(rows: list[Row], rounds: int, log: Log, warm_up: bool) -> None:
    """Time rows alternately, after a warm-up round; also peaks of multiplication in each round."""
    for number in range(0 if warm_up else 1, rounds + 1):
        for row in rows:
            for who, work in row.works.items():
                values = timed(work)
                if number:
                    log.add(row.title, who, number, values)
        for dtype in (torch.float32, torch.bfloat16):
            if number:
                name = str(dtype).removeprefix("torch.")
                log.add("peak of products", name, number, {"GFLOP/s": gigaflops(dtype)})
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)


def timed(work: Work) -> dict[str, float]:
    """Seconds and peak of memory of something; a peer's process measures itself."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    rest, cpu, wall = memory("VmRSS"), time.process_time(), time.perf_counter()
    result = work()
    taken = {"cpu s": time.process_time() - cpu, "wall s": time.perf_counter() - wall}
    if isinstance(result, dict):
        return result
    values = {**taken, "MB": memory("VmHWM") - rest}
    return {**values, **result()} if callable(result) else values


def gigaflops(dtype: torch.dtype) -> float:
    """Of the encoder's largest product, (4096, 768) by (768, 3072); the best of a few."""
    rows, weight = torch.randn(4096, 768).to(dtype), torch.randn(3072, 768).to(dtype)
    best = float("inf")
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for _ in range(4):
        started = clock()
        torch.nn.functional.linear(rows, weight)
        best = min(best, clock() - started)
    return 2 * 4096 * 768 * 3072 / best / 1e9


def memory(name: str) -> float:
    """A line of the process's status in megabytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


@contextmanager
def peer(python: str, both: Both, threads: int) -> Iterator[dict[str, Work]]:
    """micro-sam in a process of its own, with the same weights: row -> its work."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "vit_b.pth"
        torch.save(both.sam.state_dict(), weights)
        command = [python, str(Path(__file__).with_name("speed_peer.py")), str(weights)]
        with subprocess.Popen(
            [*command, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            stdin, stdout = process.stdin, process.stdout
            while stdout.readline().strip() != "ready":
                assert process.poll() is None, "micro-sam does not start"

            def ask(what: str) -> dict[str, float]:
                stdin.write(f"{what}\n")
                stdin.flush()
                answer: dict[str, float] = json.loads(stdout.readline())
                return answer

            yield {"encode": lambda: ask("encode"), "click": lambda: ask("click")}
            stdin.close()


def machine() -> str:
    """The machine, in words."""
    model = "unknown processor"
    for line in subprocess.run(["lscpu"], capture_output=True, text=True).stdout.splitlines():
        if line.startswith("Model name"):
            model = line.split(":")[1].strip()
    return (
        f"{model}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"Python {platform.python_version()}."
    )


def report(folder: Path) -> None:
    """Write the tables and the figure from all numbers."""
    numbers = read(folder / "speed.csv")
    lines = [machine()]
    for threads in sorted({each.threads for each in numbers}):
        lines += ["", f"## {threads} thread(s)", "", *table(numbers, threads)]
    (folder / "speed.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if rows_of(numbers):
        draw(folder / "speed.png", numbers)


def main() -> None:
    """Measure what was requested, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=[])
    parser.add_argument("--alone", nargs="*", choices=list(ALONE), default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-warm-up", action="store_true", help="for rows of many minutes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--grid", type=int, default=32, help="clicks a side of segmenting everything"
    )
    parser.add_argument("--peer", help="Python of an environment with micro-sam")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    log = Log(options.output / "speed.csv", options.threads)
    if options.rows or options.alone:
        both = Both()
        rows = {name: ROWS[name](both) for name in options.rows if name != "everything"}
        if "everything" in options.rows:
            rows["everything"] = everything(both, options.grid)
        if options.peer:
            with peer(options.peer, both, options.threads) as works:
                for name in works.keys() & rows.keys():
                    rows[name].works["micro-sam"] = works[name]
                beside(list(rows.values()), options.rounds, log, not options.no_warm_up)
        elif rows:
            beside(list(rows.values()), options.rounds, log, not options.no_warm_up)
        for name in options.alone:
            for who, quantity, value in ALONE[name](both):
                log.add(name, who, 1, {quantity: value})
    report(options.output)


if __name__ == "__main__":
    main()
