"""The session file: every command on one image as a line of JSON.

The first line describes the image, each further line one command (`session_lines`). A line is
appended as a command is done, so a crash costs at most the last one. Labels are stored, not
predicted again: replayed (`session_replay`) the same file gives the same labels, whichever model is
installed. No Qt, no napari.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

import xxhash
from filelock import FileLock, Timeout

from napari_simmat.annotation.history import Command, LayerEdit
from napari_simmat.annotation.image_value import ImageValue, identifying_bytes
from napari_simmat.annotation.label_editor import LabelEditor
from napari_simmat.annotation.session_lines import AdaptedModelFile, begin_lines_job, line_of
from napari_simmat.engine.masks import VoxelBox, box_union
from napari_simmat.io.files import hash_job, remove, user_folder
from napari_simmat.progress import Job, Progress

KEPT_DAYS = 30
"""Files that were not restored are deleted after this time."""
_LOCK = ".lock"
_OWN = 8
"""Hexadecimal digits that tell the sessions of an image apart."""
_CHECKPOINT = r"[0-9a-f]{8}\.safetensors"
_LEARNING = r"learning-[0-9a-f]{8}"
"""What follows the stem of a session file in the names of what was learned from it."""
NO_HEADER = (
    "The session's file {} is gone or damaged, so that tries to learn on this image cannot be "
    "counted. Save the objects, and open the image again."
)
LOST = "What was learned on this image is gone: its file was removed or changed. Learn again."


@dataclass(eq=False)
class AutosaveFile:
    """The session file that is being written for one image.

    Its jobs run in the thread of `Autosave`, in the order in which the commands were done.
    """

    path: Path
    lock: FileLock
    """The file, and the lock that shows other windows that it is in use."""
    begun: set[str] = field(default_factory=set)
    """Keys of the labels layers whose first state is in the file."""
    aliases: dict[str, str] = field(default_factory=dict)
    """For a restored layer, its key in the file."""
    lines: int = 0
    """Number of lines that were submitted."""
    empty_at: int = 0
    """`lines` when there was last nothing to restore."""
    redundant: bool = False
    """Whether all of it is in the user's files, so that it goes when the image is closed."""
    broken: bool = False
    """Whether a line could not be written. None is written after it: it would follow a gap."""

    def key_of(self, layer: str) -> str:
        """The key that a layer has in the file."""
        return self.aliases.get(layer, layer)

    def release(self) -> None:
        """Let other windows have the file; delete it if it is redundant."""
        if self.redundant:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
        self.lock.release()
        if self.redundant:
            with suppress(OSError):
                os.unlink(self.lock.lock_file)

    def create_job(self, header: str) -> Job[None]:
        """Write the first line."""
        yield Progress(0, 1, "logging")
        self._write(header, "x")

    def append_job(self, what: str, value: Any = None) -> Job[None]:
        """Append one line."""
        yield Progress(0, 1, "logging")
        self._write(line_of(what, value))

    def append_layer_job(self, key: str, labels: Any, region: VoxelBox) -> Job[None]:
        """Append what a layer holds within a region; it may be edited meanwhile."""
        lines = yield from begin_lines_job(key, labels, region)
        self._write("".join(lines))

    def jobs_of(
        self, what: str, value: Any, editor: LabelEditor | None
    ) -> list[Callable[[], Job[None]]]:
        """What logs a change of the history, as `UndoStack` reports it: jobs to run in this order.

        What the layer of `editor` held before its first edit goes before that edit, and objects
        that were there before anything was done go first: else they would not be restored.
        """
        edit = value.edit if isinstance(value, Command) else None
        before = []
        if editor is not None and (edit is not None or editor.labels):
            touched = edit or LayerEdit(editor.key)
            if touched.layer not in self.begun:
                self.begun.add(touched.layer)
                before = [*self.layer_jobs(editor, touched), *self._known_jobs(editor, touched)]
        if edit is not None:
            value = replace(value, edit=replace(edit, layer=self.key_of(edit.layer)))
        return [*before, partial(self.append_job, what, value)]

    def anew_jobs(self, editor: LabelEditor) -> list[Callable[[], Job[None]]]:
        """What logs that a layer's array was replaced."""
        value = self.key_of(editor.key), tuple(editor.register.entries)
        return [partial(self.append_job, "anew", value), *self.layer_jobs(editor)]

    def layer_jobs(
        self, editor: LabelEditor, edit: LayerEdit | None = None
    ) -> list[Callable[[], Job[None]]]:
        """What logs the content of a layer, or that before an edit; none if it is empty."""
        index = editor.register.index
        boxes = [index.box(label) for label in index]
        boxes += [] if edit is None else [patch.mask.box for patch in edit.patches]
        if not boxes:
            return []
        region = box_union(boxes)
        return [partial(self.append_layer_job, self.key_of(editor.key), editor.layer.data, region)]

    def _known_jobs(self, editor: LabelEditor, edit: LayerEdit) -> list[Callable[[], Job[None]]]:
        """What logs the entries that objects had before an edit; none if nothing was known."""
        known = dict(editor.register.entries)
        for label, (before, _) in edit.entries.items():
            known.pop(label, None)
            if before is not None:
                known[label] = before
        value = self.key_of(editor.key), known
        return [partial(self.append_job, "known", value)] if known else []

    def read_job(self, text: Future[str]) -> Job[None]:
        """Set `text` to the content; empty if it cannot be read, or the job is canceled."""
        content = ""
        try:
            yield Progress(0, 1, "reading the log")
            with suppress(OSError):
                content = "" if self.broken else self.path.read_text(encoding="utf-8")
        finally:
            text.set_result(content)

    def remove_models_job(self, keep: str) -> Job[None]:
        """Remove the models that were adapted before the one in the file `keep`."""
        yield Progress(0, 1, "removing models that were adapted before")
        remove_beside(self.path, keep)

    def mark_saved_job(self) -> Job[None]:
        """Do not offer the file again: everything is in the user's files."""
        yield Progress(0, 1, "logging that everything is saved")
        if self.broken:
            self.path.unlink(missing_ok=True)
        else:
            self._write(line_of("saved"))

    def _write(self, text: str, mode: str = "a") -> None:
        """Write at the end, unless a line before could not be written."""
        if self.broken:
            return
        # To append, the file must already exist: a new file would have no header line.
        opener = None if mode == "x" else lambda path, flags: os.open(path, flags & ~os.O_CREAT)
        try:
            with open(self.path, mode, encoding="utf-8", newline="\n", opener=opener) as file:
                file.write(text)
        except OSError as error:
            self.broken = True
            raise OSError(error.strerror or str(error)) from error
        except BaseException:
            self.broken = True
            raise


def lock_of(path: Path) -> FileLock:
    """The lock that shows that a file is in use; acquire and release it in one thread."""
    return FileLock(path.with_suffix(_LOCK))


def new_path(image: str, home: str = "") -> Path:
    """Where to write a further session of an image, in the user's folder, which is made.

    `home` is `home_of` the folder of its results, if it has one.
    """
    path = user_folder("sessions") / f"{image}-{home}{uuid4().hex[:_OWN]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def home_of(results: Path) -> str:
    """Stands for the folder of an image's results in the name of a session file."""
    return xxhash.xxh3_64_hexdigest(str(results.resolve()).encode("utf-8", "surrogateescape"))


def identity_of(image: ImageValue, name: str) -> str:
    """Identifies an image across sessions, as `identifying_bytes`."""
    state = xxhash.xxh3_128(repr(image.names).encode())
    for array in image.all_arrays:
        for piece in identifying_bytes(array, name):
            state.update(piece)
    return state.hexdigest()


def image_of(path: Path) -> str:
    """Identity of the image that a session file is of, as its first line says.

    Raises
    ------
    ValueError
        If the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return str(json.loads(file.readline())["image"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(NO_HEADER.format(path.name)) from None


def left_over(image: str, home: str = "") -> Path | None:
    """The first of `all_left_over`; None for none.

    With a `home` none that was done for results in another folder, where it belongs.
    """
    for path in all_left_over(image):
        its_home = path.stem.rpartition("-")[2][:-_OWN]
        if not home or its_home in ("", home):
            return path
    return None


def all_left_over(image: str) -> list[Path]:
    """The unsaved files of an image that no window has open, the newest first.

    Behind them those that are saved, but have a checkpoint beside them. Deletes files that are
    older than `KEPT_DAYS`.
    """
    candidates = []
    for path in user_folder("sessions").glob("*.jsonl"):
        with suppress(OSError):
            age = time.time() - path.stat().st_mtime
            if age > KEPT_DAYS * 86400 and _is_free(path):
                remove_beside(path)
                path.unlink()
            elif path.name.startswith(f"{image}-") and _is_free(path):
                saved = is_saved(path)
                if not saved or any(each.is_file() for each in beside(path)):
                    candidates.append((saved, age, path))
    return [path for *_, path in sorted(candidates)]


def throw_away(path: Path) -> None:
    """Delete a file that no window has open, with what was learned from it."""
    remove_beside(path)
    for each in (path, Path(lock_of(path).lock_file)):
        with suppress(OSError):
            each.unlink(missing_ok=True)


def steps_in(path: Path) -> int:
    """How many commands were done in a session, also those that were undone."""
    begins = line_of("do").encode().partition(b",")[0]
    with path.open("rb") as file:
        return sum(line.startswith(begins) for line in file)


def beside(path: Path) -> list[Path]:
    """The checkpoints, and the folders of interrupted learning, that belong to a session file.

    They are known by their names alone: the file may lie beside a user's own, such as its image.
    """
    own = re.compile(rf"{re.escape(path.stem)}\.({_CHECKPOINT}|{_LEARNING})")
    return [other for other in path.parent.iterdir() if own.fullmatch(other.name)]


def holds_learned_job(path: Path, adapted: AdaptedModelFile) -> Job[bool]:
    """Whether the checkpoint that was learned is beside a session file, and is unchanged."""
    checkpoint = path.with_name(Path(adapted.file).name)
    if not checkpoint.is_file():
        return False
    return (yield from hash_job(checkpoint)) == adapted.sha256


def checkpoint_beside(path: Path, digest: str) -> Path:
    """Where what was learned goes; `digest` has eight hexadecimal digits."""
    return path.with_name(f"{path.stem}.{digest}.safetensors")


def learning_beside(path: Path, digest: str) -> Path:
    """The folder with the state of learning; `digest` has eight hexadecimal digits."""
    return path.with_name(f"{path.stem}.learning-{digest}")


def remove_beside(path: Path, keep: str = "") -> None:
    """Remove what belongs to a session file, but for the checkpoint called `keep`.

    So are parts of checkpoints, left by a process that was killed while it wrote.
    """
    for other in beside(path):
        if other.name != keep:
            remove(other)
    for part in path.parent.glob(f".{escape(path.stem)}.????????.safetensors.????????.part"):
        remove(part)


def is_saved(path: Path) -> bool:
    """Whether everything in a session file is also in files of the user's."""
    ending = line_of("saved").encode()
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(ending)))
        return file.read() == ending


def _is_free(path: Path) -> bool:
    try:
        with lock_of(path).acquire(blocking=False):
            return True
    except Timeout:
        return False
