"""Several runs at once in one output folder: each image is done by one of them, once.

A run takes an image by a lock, and leaves beside it what became of it, which the others take over.
Runs that would make an image differently exclude each other. `folder_lock` says what of this
is on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from filelock import FileLock

from napari_simmat import __version__
from napari_simmat.batch.folder_lock import (
    LOCK,
    RUN_ENDING,
    WORK,
    folder_locked,
    lock_folder_job,
    runs_in,
    try_lock,
)
from napari_simmat.batch.inputs import shown_name
from napari_simmat.batch.plan import (
    ExistingPolicy,
    OutputFiles,
    Plan,
    SegmentConfig,
    SegmentTask,
    SkippedImage,
)
from napari_simmat.batch.segment_image import TaskOutcome
from napari_simmat.batch.summary import summary_files, summary_rows, without_folder
from napari_simmat.checkpoints.registry import find_model
from napari_simmat.io.files import OutputError, disk_errors_explained
from napari_simmat.io.plain import from_plain, parse_json, to_plain
from napari_simmat.progress import Job

T = TypeVar("T")

OTHER_SETTINGS = (
    "Another run is writing into {folder}, and makes {name} with other settings. Wait until it has "
    "ended, or choose another output folder."
)
OTHER_VERSION = (
    "A run of another version is writing into {folder}. Wait until it has ended, or choose another "
    "output folder."
)
EXCLUSIVE = (
    "Another run is writing into {folder}, and one of the two is on a Dask cluster, which does all "
    "of its images. Wait until it has ended, or choose another output folder."
)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What a run tells the others."""

    images: Mapping[str, str]
    """Its records below the output folder, in their order, and how each is made, as a hash."""
    shard: str = ""
    alone: bool = False
    """Whether it takes no image by a lock of its own, and therefore shares none."""
    skipped: tuple[SkippedImage, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Done:
    """What became of an image, for the other runs; files are below the output folder."""

    image: str
    name: str
    labels: str
    objects_file: str
    record: str
    kinds: tuple[str, ...]
    """Of its optional outputs."""
    status: Literal["written", "kept", "failed"]
    objects: int
    hidden: tuple[int, ...]
    seconds: float
    note: str
    thumbnail: str

    @classmethod
    def of(cls, outcome: TaskOutcome, output: Path) -> _Done:
        files = outcome.task.files
        return cls(
            image=shown_name(outcome.task.image),
            name=outcome.task.name,
            labels=_below(files.labels, output),
            objects_file=_below(files.objects, output),
            record=_below(files.record, output),
            kinds=tuple(files.extras),
            status=outcome.status,
            objects=outcome.objects,
            hidden=outcome.hidden,
            seconds=outcome.seconds,
            note=without_folder(outcome.note, output),
            thumbnail=b64encode(outcome.thumbnail).decode("ascii"),
        )

    def outcome(self, output: Path) -> TaskOutcome:
        """The outcome, of a task of which only that is known which a summary tells."""
        labels, objects = output / self.labels, output / self.objects_file
        record = output / self.record
        files = OutputFiles(labels, objects, record, dict.fromkeys(self.kinds, record))
        return TaskOutcome(
            SegmentTask(Path(self.image), None, files, name=self.name),
            self.status,
            self.objects,
            self.hidden,
            self.seconds,
            self.note,
            b64decode(self.thumbnail),
        )


class Claim:
    """An image that this run has, and no other, until it is ended or given back.

    Attributes
    ----------
    resume
        Whether its outputs are kept if they are complete and were made the same way.
    """

    def __init__(
        self, resume: bool, lock: FileLock | None = None, share: Share | None = None
    ) -> None:
        self.resume = resume
        self._lock = lock
        self._share = share

    def end(self, outcome: TaskOutcome) -> None:
        """Tell the other runs what became of it."""
        if self._share is not None:
            self._share.note(outcome)
        self.give_back()

    def give_back(self) -> None:
        """Leave it to the other runs, unless it has ended."""
        if self._lock is not None:
            self._lock.release()


def join_job(plan: Plan, config: SegmentConfig, *, alone: bool = False) -> Job[Share]:
    """Begin a run in the output folder of a plan, beside runs that make the same or other images.

    Parameters
    ----------
    plan, config
        What the run will do.
    alone
        Whether it does all its images itself, on a cluster.

    Returns
    -------
    Share
        To be left in the end, whatever happens.

    Raises
    ------
    ValueError, OSError
        If an output exists and must not be replaced, another run makes an image of this one
        differently, or the folder cannot be written.
    """
    run = _Run(
        images=_manners(plan, config),
        shard="" if plan.shard is None else str(plan.shard),
        alone=alone,
        skipped=tuple(
            SkippedImage(Path(one.image.name), without_folder(one.why, plan.output), one.failed)
            for one in plan.skipped
        ),
    )
    share = Share(plan.output, plan.existing, run)
    lock = yield from lock_folder_job(plan.output)
    try:
        share.enter(plan)
    except BaseException:
        lock.release()
        share.leave()
        raise
    lock.release()
    return share


def _manners(plan: Plan, config: SegmentConfig) -> dict[str, str]:
    """How each image is made, as a hash of all that is told of it, by the name of its record."""
    common = json.dumps(
        [__version__, _model(config.model), plan.existing == "overwrite", to_plain(config)]
    )
    manners = {}
    for task in plan.tasks:
        files = [os.path.realpath(path) for path in (*task.read, task.prompts) if path is not None]
        own = [to_plain(task.selection), to_plain(task.part), sorted(task.files.extras), files]
        text = json.dumps([common, own])
        name = _name(task.files.record, plan.output)
        manners[name] = hashlib.sha256(text.encode()).hexdigest()[:32]
    return manners


def _model(name: str) -> list[object]:
    """What tells a model's file from another one of its name."""
    try:
        entry = find_model(name)
    except (ValueError, OSError):  # the run says it
        return [name]
    return [entry.name, entry.size_bytes, entry.changed if entry.kind == "own" else 0]


class Share:
    """The part of a run in the work of all runs of an output folder; made by `join_job`."""

    def __init__(self, output: Path, existing: ExistingPolicy, run: _Run) -> None:
        self.output = output
        self._existing = existing
        self._run = run
        self._file = output / WORK / f"{secrets.token_hex(4)}{RUN_ENDING}"
        self._presence: FileLock | None = None
        self._made = [each for each in (output, *output.parents) if not each.exists()]

    def enter(self, plan: Plan) -> None:
        """Begin, with the folder locked; refuse what cannot go on beside the other runs."""
        living = self._living()
        shared = set().union(*(self._shared_with(other) for other in living))
        mine = [task for task in plan.tasks if self._name(task) not in shared]
        # Another run may have ended since the plan was made.
        replace(plan, tasks=tuple(mine)).check_existing()
        for task in mine:  # what a run that has ended told of it does not count
            self._place(self._name(task)).unlink(missing_ok=True)
        with disk_errors_explained(self._file):
            self._file.parent.mkdir(exist_ok=True)
            self._presence = try_lock(self._file.with_suffix(".lock"))
            _write(self._file, self._run)

    def _living(self) -> list[_Run]:
        """The other runs; what was left by runs that were killed is removed."""
        found = runs_in(self.output)
        if not any(found.values()):
            shutil.rmtree(self.output / WORK, ignore_errors=True)
        runs = []
        for path in (path for path, lives in found.items() if lives):
            if (run := _read(_Run, path)) is None:
                raise OutputError(OTHER_VERSION.format(folder=self.output))
            runs.append(run)
        return runs

    def _shared_with(self, other: _Run) -> set[str]:
        """The images that another run has, too."""
        both = self._run.images.keys() & other.images.keys()
        if both and (self._run.alone or other.alone):
            raise OutputError(EXCLUSIVE.format(folder=self.output))
        for name in sorted(both):
            if self._run.images[name] != other.images[name]:
                name = name.removesuffix(".json")
                raise OutputError(OTHER_SETTINGS.format(folder=self.output, name=name))
        return both

    @property
    def others(self) -> int:
        """How many other runs there are, or were a moment ago."""
        return sum(path != self._file for path in self._file.parent.glob(f"*{RUN_ENDING}"))

    def take(self, task: SegmentTask) -> Claim | TaskOutcome | None:
        """The image, if no run has it; its outcome, if one did it; None while another has it.

        Raises OSError if the output folder cannot be written.
        """
        place = self._place(self._name(task))
        if (found := self._found(place, task)) is not None:
            return found
        with disk_errors_explained(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            lock = try_lock(place.with_suffix(".lock"))
        if lock is None:
            return None
        if (found := self._found(place, task)) is not None:
            lock.release()
            return found
        # Nothing was there when the first of these runs began: one of them was killed since.
        begun = self._existing == "refuse" and task.files.record.exists()
        return Claim(begun or self._existing == "resume", lock, self)

    def note(self, outcome: TaskOutcome) -> None:
        """Tell the other runs what became of an image; if that fails they look themselves."""
        with suppress(OSError):
            _write(self._place(self._name(outcome.task)), _Done.of(outcome, self.output))

    def gathered(
        self, plan: Plan, outcomes: Sequence[TaskOutcome]
    ) -> tuple[Plan, list[TaskOutcome]]:
        """Plan and outcomes of this run, with all that other runs did meanwhile, for a summary.

        The folder is locked. Whichever run asks last, the answer is the same.
        """
        own = {self._name(one.task): one for one in outcomes}
        read = [_read(_Run, path) for path in runs_in(self.output)]
        runs = [run for run in read if run is not None and run.shard == self._run.shard]
        found = []
        for name in _merged([*(tuple(run.images) for run in runs), tuple(own)]):
            if (done := _read(_Done, self._place(name))) is not None:
                found.append(done.outcome(self.output))
            elif name in own:
                found.append(own[name])
        skipped = _merged([*(run.skipped for run in runs), self._run.skipped])
        tasks = tuple(outcome.task for outcome in found)
        return replace(plan, tasks=tasks, skipped=tuple(skipped)), found

    @contextmanager
    def told_once(self, plan: Plan, outcomes: Sequence[TaskOutcome]) -> Iterator[bool]:
        """Whether a summary is not yet written, in a block that writes it; the folder is locked."""
        files = summary_files(plan)
        rows = [files[0].name, *map(repr, summary_rows(plan, outcomes))]
        digest = hashlib.sha256("\n".join(rows).encode("utf-8", "backslashreplace")).hexdigest()
        stamp = self.output / WORK / f"summary-{self._run.shard}.sha256"
        told = stamp.read_text(encoding="ascii") if stamp.exists() else ""
        yield told != digest or not all(path.exists() for path in files)
        with suppress(OSError):
            stamp.write_text(digest, encoding="ascii")

    def leave(self) -> None:
        """End; the last run removes what the runs knew of each other."""
        if self._presence is not None:
            self._presence.release()
            self._presence = None
        with suppress(OSError):
            if self.output.is_dir():
                with folder_locked(self.output) as mine:
                    if mine and not any(runs_in(self.output).values()):
                        shutil.rmtree(self.output / WORK, ignore_errors=True)
                        # Windows deletes an open file only when it is closed.
                        (self.output / LOCK).unlink(missing_ok=True)
            for each in self._made:
                each.rmdir()

    def _found(self, place: Path, task: SegmentTask) -> TaskOutcome | None:
        """What another run made of an image of this one."""
        if (done := _read(_Done, place)) is None:
            return None
        outcome = done.outcome(self.output)
        labels = outcome.task.files.labels.name
        variants = (task.files, task.files.in_zarr(), task.files.in_tiff())
        files = next((each for each in variants if each.labels.name == labels), task.files)
        outcome = replace(outcome, task=replace(task, files=files))
        return outcome if outcome.status == "failed" else replace(outcome, status="kept")

    def _name(self, task: SegmentTask) -> str:
        return _name(task.files.record, self.output)

    def _place(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
        return self.output / WORK / "images" / f"{digest[:32]}.json"


def _name(record: Path, output: Path) -> str:
    """What runs call an image by; case is ignored, as some file systems do."""
    return _below(record, output).casefold()


def _below(path: Path, output: Path) -> str:
    return Path(os.path.relpath(path, output)).as_posix()


def _merged(lists: Iterable[tuple[T, ...]]) -> list[T]:
    """The items of lists that are all equal in their order, else sorted."""
    different = list(dict.fromkeys(lists))
    if len(different) == 1:
        return list(different[0])
    return sorted({item for one in different for item in one}, key=repr)


def _write(path: Path, value: _Run | _Done) -> None:
    """Write a value so that other runs read it whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(f".{secrets.token_hex(4)}")
    part.write_text(json.dumps(to_plain(value)), encoding="ascii")
    os.replace(part, path)


def _read(kind: type[T], path: Path) -> T | None:
    """What `_write` wrote; None if there is no such file, or it is of another version."""
    try:
        return from_plain(kind, parse_json(path.read_text(encoding="ascii"), path.name), path.name)
    except (OSError, ValueError):
        return None
