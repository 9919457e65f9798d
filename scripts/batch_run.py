"""A run over 60 files of every kind: uninterrupted, killed twenty times, and on a cluster.

Run ``python scripts/batch_run.py DATA OUTPUT``. DATA is the folder of real images that the tests
use; 55 crops of at most 256 pixels are cut from it (2D, stacks, time series, NIfTI, four bands, 580
bands), and five unusable files are added. The script checks the outcome of each file; that axes,
scale and affine are kept; that a run that is killed repeatedly and resumed ends with the same bytes
as an uninterrupted one, and so does a cluster of two workers one of which is killed; and which
share of the time the encoder and the decoder take.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 256
KILLS = 20
GRID = 8
"""Points a side of the grid that segments everything."""
BANDS = "40,30,20"
"""Of the 580 bands, three that stand for red, green and blue."""
TIMEOUT = 3600
ROUNDS = 3


def main() -> int:
    """Cut, run, compare; the exit status says whether all checks passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--files", type=int, default=55, help="good files to cut")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--cluster", action="store_true", help="compare with two Dask workers")
    parser.add_argument("--prompts", default="auto", choices=["auto", "boxes"])
    parser.add_argument("--share", action="store_true", help="measure the throughput instead")
    words = parser.parse_args()
    inputs = words.output / "inputs"
    cut(words.data, inputs, words.files)
    manifest = write_manifest(inputs, words.prompts)
    if words.share:
        share(manifest)
        return 0
    pace, held = unbroken(manifest, words)
    held &= same_axes(words.output / "unbroken", manifest)
    if words.kills:
        held &= killed(manifest, words, pace)
    if words.cluster:
        held &= clustered(manifest, words)
    return 0 if held else 1


# ------------------------------------------------------------------------ files


def cut(data: Path, inputs: Path, count: int) -> None:
    """Crops of the real images as files of many kinds, and five unusable ones."""
    if inputs.exists():
        return
    makers = list(crops(data))
    for number in range(count):
        name, write = makers[number % len(makers)]
        folder = inputs / name
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / f"{name}{number:02d}", random.Random(number))
    bad = inputs / "bad"
    bad.mkdir()
    whole = next(inputs.glob("bacteria/*.tif")).read_bytes()
    (bad / "corrupt.tif").write_bytes(whole[: len(whole) // 3])
    (bad / "empty.tif").write_bytes(b"")
    (bad / "text.tif").write_text("this is no image")
    write_tiff(bad / "channels.tif", np.zeros((5, 64, 64), np.uint16), "CYX")
    write_tiff(bad / "folder.tif", np.zeros((64, 64), np.uint16), "YX")


def crops(data: Path) -> Iterator[tuple[str, Any]]:
    """Kinds of files: a name, and what writes one to a path without its ending."""
    import nibabel
    import tifffile

    volume: Any = nibabel.load(data / "mri_t1_mni.nii.gz")

    def tiff(name: str, axes: str, **options: Any) -> Any:
        image = tifffile.imread(data / name)

        def write(path: Path, chance: random.Random) -> None:
            piece = corner(image, chance, colors="S" in axes, planes=options.get("planes"))
            write_tiff(path.with_suffix(".tif"), piece, axes)

        return write

    def nifti(path: Path, chance: random.Random) -> None:
        first = chance.randrange(volume.shape[2] - 3)
        piece = volume.slicer[:SIDE, :SIDE, first : first + 3]
        nibabel.save(piece, path.with_suffix(".nii.gz"))

    yield "bacteria", tiff("phase2d_bacteria.tif", "YX")
    yield "hela", tiff("fluo2d_hela.tif", "YX")
    yield "stack", tiff("fluo3d_cho.tif", "ZYX", planes=3)
    yield "time", tiff("fluo2dt_hela_t5.tif", "TYX", planes=2)
    yield "mri", nifti
    yield "bands4", tiff("multispectral4_sentinel2.tif", "CYX")
    yield "bands580", tiff("hyperspectral_corn.tif", "CYX")
    yield "rgb", tiff("rgb_aerial.tif", "YXS")


def corner(image: Any, chance: random.Random, colors: bool, planes: int | None) -> Any:
    """A piece of at most `SIDE` pixels a side."""
    y, x = image.shape[-3:-1] if colors else image.shape[-2:]
    side = 128 if image.shape[0] > 100 and image.ndim == 3 else SIDE
    top, left = chance.randrange(max(1, y - side + 1)), chance.randrange(max(1, x - side + 1))
    rows, columns = slice(top, top + side), slice(left, left + side)
    piece = image[rows, columns] if colors else image[..., rows, columns]
    return piece[:planes] if planes else piece


def write_tiff(path: Path, image: Any, axes: str) -> None:
    """An OME-TIFF with a pixel size."""
    import tifffile

    sizes: dict[str, Any] = {"axes": axes}
    for axis in set("XYZ") & set(axes):
        sizes |= {f"PhysicalSize{axis}": 0.5 if axis != "Z" else 2.0}
        sizes |= {f"PhysicalSize{axis}Unit": "µm"}
    kind = "rgb" if "S" in axes else "minisblack"
    tifffile.imwrite(path, image, ome=True, photometric=kind, metadata=sizes)


def write_manifest(inputs: Path, prompts: str) -> Path:
    """Every file with its channels; with a box in the middle where everything is too slow."""
    path = inputs / "list.csv"
    channels = {"bands4": "2,1,0", "bands580": BANDS}
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", "channels", "prompts"])
        for image in images(inputs):
            kind = image.parent.name
            prompt = write_box(image) if prompts == "boxes" and kind != "bad" else prompts
            row = [image.relative_to(inputs).as_posix(), channels.get(kind, "")]
            table.writerow([*row, "auto" if prompt == "boxes" else prompt])
    return path


def images(inputs: Path) -> list[Path]:
    """The files that are segmented."""
    return sorted(path for path in inputs.rglob("*") if path.suffix in (".tif", ".gz"))


def write_box(image: Path) -> str:
    """A box on each plane of an image; the name of its file for the manifest."""
    from napari_simmat.engine.prompt_files import write_shapes_csv
    from napari_simmat.engine.prompts import Prompt
    from napari_simmat.io.readers import read_image, stem_of

    shape = read_image(image).shape
    height, width = shape[-2:]
    box = (height // 4, width // 4, 3 * height // 4, 3 * width // 4)
    path = image.with_name(f"{stem_of(image)}_boxes.csv")
    write_shapes_csv(path, [Prompt(box=box, plane=plane) for plane in np.ndindex(*shape[:-2])])
    return f"{image.parent.name}/{path.name}"


# ------------------------------------------------------------------------- runs


def command(manifest: Path, output: Path, *more: str) -> list[str]:
    """The command line of a run."""
    words = [sys.executable, "-m", "napari_simmat", "segment", str(manifest), "--model", "tiny"]
    words += ["--output", str(output), "--prompts", "auto", "--device", "cpu", *more]
    return [*words, "--auto.points-per-side", str(GRID)]


def unbroken(manifest: Path, words: argparse.Namespace) -> tuple[float, bool]:
    """One uninterrupted run: seconds per file, and whether 55 were written and 5 reported."""
    output = words.output / "unbroken"
    block_a_name(output)
    start = time.monotonic()
    run(command(manifest, output, "--overwrite", "--overlay", "--coco", "--rois"))
    seconds = time.monotonic() - start
    with (output / "simmat-summary.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    done = [row for row in rows if row["state"] == "done"]
    failed = [row for row in rows if row["state"] == "failed"]
    print(f"{len(rows)} files in {seconds:.0f} s: {len(done)} done, {len(failed)} reported")
    for row in failed:
        print(f"  {row['message']}")
    return seconds / len(rows), len(done) == words.files and len(failed) == 5


def same_axes(output: Path, manifest: Path) -> bool:
    """Whether labels have their image's axes, scale and affine."""
    from napari_simmat.batch.plan import OutputFiles
    from napari_simmat.io.readers import read_image

    kept = True
    for image in images(manifest.parent):
        if image.parent.name == "bad":
            continue
        given = read_image(image)
        made = read_image(OutputFiles.of(image, output / image.parent.name).labels)
        same = given.plane_axes == made.plane_axes and given.shape == made.shape
        same &= all(abs(made.scale[axis] - given.scale[axis]) < 1e-6 for axis in made.scale)
        same &= set(made.scale) == set(given.scale) - {"T"}
        if given.affine is not None:
            same &= made.affine is not None and np.array_equal(given.affine, made.affine)
        if not same:
            print(f"  {image.name}: {given.axes} {given.scale} became {made.axes} {made.scale}")
        kept &= bool(same)
    print(f"axes, scale and affine kept: {kept}")
    return kept


def killed(manifest: Path, words: argparse.Namespace, pace: float) -> bool:
    """A run that is killed at random moments and resumed until it is complete.

    `pace` is the number of seconds per file.
    """
    output, chance = words.output / "killed", random.Random(1)
    block_a_name(output)
    line = command(manifest, output, "--resume", "--overlay", "--coco", "--rois")
    for number in range(words.kills):
        wanted = words.files * (number + chance.random()) / words.kills
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (output / ".simmat.lock").exists() and process.poll() is None:
            time.sleep(0.05)
        while written(output) < wanted and process.poll() is None:
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 2 * pace))
        process.send_signal(signal.SIGKILL)
        process.wait()
        (output / ".simmat.lock").unlink(missing_ok=True)  # the next one shows that it has begun
        print(f"  killed with {written(output)} files done", flush=True)
    run(line)
    equal = compare(words.output / "unbroken", output)
    left = [path for path in output.rglob("*") if path.name.endswith(".part")]
    print(
        f"killed {words.kills} times and resumed, the same bytes: {equal}; {len(left)} files left"
    )
    return equal and not left


def written(output: Path) -> int:
    """The number of label images."""
    return sum(path.is_file() for path in output.rglob("*_labels.*") if path.name[0] != ".")


def clustered(manifest: Path, words: argparse.Namespace) -> bool:
    """Two Dask workers, one of which is killed in the middle."""
    distributed: Any = import_module("distributed")  # it has no types
    output = words.output / "cluster"
    block_a_name(output)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        more = ("--scheduler", cluster.scheduler_address, "--overlay", "--coco", "--rois")
        line = command(manifest, output, *more)
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while written(output) < words.files // 2 and process.poll() is None:
            time.sleep(0.2)
        os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
        process.wait(TIMEOUT)
    equal = compare(words.output / "unbroken", output)
    print(f"two workers, one killed, the same bytes: {equal}")
    return equal


def share(manifest: Path) -> None:
    """The share of a run's time that encoder and decoder take, for files read before.

    Both are measured alternately, and the fastest of each counts, as the machine may be busy.
    """
    from napari_simmat.batch.inputs import find_inputs
    from napari_simmat.batch.plan import SegmentConfig, plan
    from napari_simmat.batch.run import run_tasks_job
    from napari_simmat.batch.segment_image import load_task, segment_loaded_job
    from napari_simmat.checkpoints.loading import load_model
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.settings import AutomaticSettings, Compute
    from napari_simmat.progress import finish

    everything = AutomaticSettings(points_per_side=GRID)
    config = SegmentConfig(model="tiny", compute=Compute(device="cpu"), automatic=everything)
    folders = [manifest.parent / "hela"]
    parts, whole = [], []
    for number in range(ROUNDS):
        output = manifest.parent.parent / f"share{number}"
        tasks = plan(
            find_inputs(folders), output=output, prompts="auto", existing="overwrite"
        ).tasks
        loaded = [load_task(task, config) for task in tasks]
        predictor = Predictor(load_model("tiny"), device="cpu")
        start = time.perf_counter()
        for one in loaded:
            finish(segment_loaded_job(one, predictor))
        parts.append(time.perf_counter() - start)
        job = run_tasks_job(tasks, config)
        next(step for step in job if getattr(step, "state", ""))  # the model is loaded
        start = time.perf_counter()
        finish(job)
        whole.append(time.perf_counter() - start)
        print(f"  {len(tasks)} files: parts {parts[-1]:.1f} s, run {whole[-1]:.1f} s", flush=True)
    print(f"share of the run: {min(parts) / min(whole):.0%}")


def run(line: list[str]) -> None:
    """Run a command that ends with 1, as five files cannot be used."""
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    if done.returncode != 1:
        raise SystemExit(f"{' '.join(line)} ended with {done.returncode}: {done.stderr[-2000:]}")


def block_a_name(output: Path) -> None:
    """A folder with the name of an output."""
    (output / "bad" / "folder_labels.tif").mkdir(parents=True, exist_ok=True)


def compare(first: Path, second: Path) -> bool:
    """Whether two folders are equal except for run blocks and report; prints the differences."""
    one, other = contents(first), contents(second)
    for name in sorted(set(one) | set(other)):
        if one.get(name) != other.get(name):
            print(f"  differs: {name}")
    return one == other


def contents(folder: Path) -> dict[str, Any]:
    """The bytes of every file; records without their run block."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in ("simmat-report.html", ".simmat.lock"):
            continue
        name: str = path.relative_to(folder).as_posix()
        found[name] = path.read_bytes()
        if path.suffix == ".json" and not path.name.endswith("_coco.json"):
            values = json.loads(found[name])
            values.pop("run")
            found[name] = values
    return found


if __name__ == "__main__":
    sys.exit(main())
