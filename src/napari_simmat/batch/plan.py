"""Plan a run: name every file that will be read and written, refuse what cannot work.

The values that a task passes on are here too: `SegmentTask`, `LoadedImage`, `SegmentedImage`,
`TaskOutcome`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_simmat.batch.inputs import InputImage, InputImages, find_inputs, same_stem_siblings
from napari_simmat.batch.record import Request, outputs_recorded_in, read_record
from napari_simmat.engine.linking import Lineage, require_laptrack
from napari_simmat.engine.object_files import OBJECT_FORMATS
from napari_simmat.engine.settings import (
    AutomaticSettings,
    ChannelSelection,
    Compute,
    LinkSettings,
    PropagationSettings,
)
from napari_simmat.io.files import OutputError, check_is_no_folder, sha256_of, unwritable_message
from napari_simmat.io.nifti import is_nifti
from napari_simmat.io.readers import stem_of

if TYPE_CHECKING:
    from napari_simmat.engine.image_stack import ChannelStack
    from napari_simmat.engine.measurements import LabelVolume
    from napari_simmat.engine.prompts import Prompt
    from napari_simmat.io.image_file import ImageFile

AUTO = "auto"
SAME_STEM = "same-stem"
PROMPT_ENDINGS = (
    ".csv", "_points.csv", "_boxes.csv", "_shapes.csv", "_prompts.csv",
    "_prompts.tif", "_prompts.tiff", "_prompts.png", "_prompts.npy", "_prompts.nii.gz",
)  # fmt: skip
"""Endings of prompt files, after the image's stem."""
LABEL_SUFFIXES = (".tif", ".nii.gz", ".ome.zarr")
MADE_ENDINGS = ("_labels", "_classes", "_prompts", "_overlay", "_masks")
"""Endings of the stems of images that belong to another image."""
TRACKS = "tracks"
"""Kind of the table of tracks, which is written if objects are linked over time."""
EXTRA_ENDINGS = {
    "overlay": "_overlay.png",
    **{kind: each.ending for kind, each in OBJECT_FORMATS.items() if kind != "labels"},
    TRACKS: "_res_track.txt",
}
"""Optional outputs by kind, with the ending of their names after the image's stem."""

ExistingPolicy = Literal["refuse", "resume", "overwrite"]
"""What to do with existing outputs."""


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """Settings that all tasks of a run share.

    Parameters
    ----------
    model
        A model's name or file.
    selection
        Channels and shape of the pixels; a task may have its own.
    compute
        Device, precision and quality.
    automatic
        Settings for images without prompts, in which everything is segmented.
    propagation
        How objects are propagated through stacks; None to segment each plane by itself.
    link
        How objects are linked over time; None if they are not.
    labels_in_memory
        With automatic segmentation, a plane whose labels need more GB than this is written to
        OME-Zarr, tile by tile.
    """

    model: str
    selection: ChannelSelection = field(default_factory=ChannelSelection)
    compute: Compute = field(default_factory=Compute)
    automatic: AutomaticSettings = field(default_factory=AutomaticSettings)
    propagation: PropagationSettings | None = None
    link: LinkSettings | None = None
    labels_in_memory: float = 1.0

    def __post_init__(self) -> None:
        if self.link is not None:
            require_laptrack()


@dataclass(frozen=True)
class OutputFiles:
    """The output files of one image; `extras` holds the optional ones by kind."""

    labels: Path
    objects: Path
    record: Path
    extras: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, image: Path, folder: Path, extras: Sequence[str] = ()) -> OutputFiles:
        """Name the outputs of `image` in `folder` after the image's stem.

        Parameters
        ----------
        image, folder
            The image, and the folder of its outputs.
        extras
            Optional outputs, keys of `EXTRA_ENDINGS`.
        """
        stem = stem_of(image)
        suffix = ".nii.gz" if is_nifti(image) else ".tif"
        return cls(
            labels=folder / f"{stem}_labels{suffix}",
            objects=folder / f"{stem}_objects.csv",
            record=folder / f"{stem}.json",
            extras={kind: folder / f"{stem}{EXTRA_ENDINGS[kind]}" for kind in extras},
        )

    def in_zarr(self) -> OutputFiles:
        """The same with labels as OME-Zarr, for an image whose labels do not fit into memory.

        The only optional output is then the overlay.
        """
        name = f"{self.record.name.removesuffix('.json')}_labels.ome.zarr"
        extras = {kind: path for kind, path in self.extras.items() if kind == "overlay"}
        return replace(self, labels=self.labels.with_name(name), extras=extras)

    @property
    def are_in_zarr(self) -> bool:
        """Whether labels are OME-Zarr."""
        return self.labels.suffix == ".zarr"

    @property
    def recorded(self) -> dict[str, Path]:
        """The files whose hashes the record holds, by kind."""
        return {"labels": self.labels, "objects": self.objects, **self.extras}

    def __iter__(self) -> Iterator[Path]:
        return iter((self.labels, self.objects, *self.extras.values(), self.record))

    def possible(self) -> tuple[Path, ...]:
        """The files, and the labels as OME-Zarr in case the image turns out to be large."""
        return (*self, self.in_zarr().labels)

    def existing(self) -> list[Path]:
        """Those of the files that exist."""
        return [path for path in self if path.exists()]

    def outdated(self) -> list[Path]:
        """Other files that an earlier run wrote for the image, according to its record.

        These are labels in another format, and optional outputs that are no longer requested.
        Files that were changed since are the user's work and not included.
        """
        try:
            earlier = read_record(self.record).outputs.values()
        except (ValueError, OSError):  # no record, or that of another program
            return []
        stem = self.record.name.removesuffix(".json")
        endings = *(f"_labels{suffix}" for suffix in LABEL_SUFFIXES), *EXTRA_ENDINGS.values()
        possible = {f"{stem}{ending}" for ending in endings} - {path.name for path in self}
        written = {output["file"]: output.get("sha256") for output in earlier}
        paths = {name: self.record.with_name(name) for name in sorted(possible & set(written))}
        return [
            path
            for name, path in paths.items()
            if path.exists() and sha256_of(path) == written[name]
        ]


@dataclass(frozen=True)
class SegmentTask:
    """One image, its prompts, its outputs.

    Parameters
    ----------
    image
        A file, or a folder that is one image.
    prompts
        The prompt file; None to segment everything.
    files
        The outputs.
    selection
        For this image; what it leaves open is as in the run's settings.
    name
        Name for the user: the path below the input folder, since fields of a plate share their
        last part; the file's name by default.
    """

    image: Path
    prompts: Path | None
    files: OutputFiles
    selection: ChannelSelection = field(default_factory=ChannelSelection)
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.image.name)


@dataclass(frozen=True)
class SkippedImage:
    """An image that will not be segmented, and the reason.

    Parameters
    ----------
    image
        The file.
    why
        A sentence for the user.
    failed
        Whether this is an error rather than a choice.
    """

    image: Path
    why: str
    failed: bool = False


@dataclass(frozen=True)
class Plan:
    """What a run will read and write.

    Parameters
    ----------
    tasks
        One for each image.
    skipped
        Images that are left out.
    output
        Folder of the outputs.
    existing
        What to do with existing outputs.
    others
        Number of files in the input folders that are no images by their name.
    """

    tasks: tuple[SegmentTask, ...]
    skipped: tuple[SkippedImage, ...]
    output: Path
    existing: ExistingPolicy = "refuse"
    others: int = 0

    @property
    def several(self) -> bool:
        """Whether the run has several images, and therefore a summary."""
        return len(self.tasks) + sum(one.failed for one in self.skipped) > 1

    def to_plain(self) -> dict[str, Any]:
        """The files as JSON values."""
        return {
            "output": str(self.output),
            "files": [
                {
                    "image": str(task.image),
                    "prompts": None if task.prompts is None else str(task.prompts),
                    "labels_file": str(task.files.labels),
                }
                for task in self.tasks
            ],
            "skipped": [
                {"image": str(one.image), "failed": one.failed, "why": one.why}
                for one in self.skipped
            ],
        }

    def check_existing(self) -> None:
        """Refuse existing outputs, unless they may be kept or replaced."""
        if self.existing != "refuse":
            return
        for path in (path for task in self.tasks for path in task.files.possible()):
            if path.exists():
                raise ValueError(
                    f"{path} exists already. Use --overwrite to replace it, --resume to keep "
                    "what was made the same way, or another output folder."
                )


def plan(
    inputs: InputImages | Sequence[Path],
    *,
    output: Path,
    prompts: str = SAME_STEM,
    existing: ExistingPolicy = "refuse",
    extras: Sequence[str] = (),
) -> Plan:
    """Name what will be read and written.

    Parameters
    ----------
    inputs
        From `find_inputs`, or image files. Outputs of earlier runs among them are skipped.
    output
        Folder of the outputs; subfolders are mirrored in it, and ``~`` is expanded.
    prompts
        ``"auto"``: segment everything; one prompt file for all; or ``"same-stem"``: for each image
        the file beside it named by the image's stem and one of `PROMPT_ENDINGS`.
    existing
        What to do with existing outputs.
    extras
        Optional outputs, keys of `EXTRA_ENDINGS`.

    Raises
    ------
    ValueError, OSError
        If two images would have the same output, an output exists and must not be replaced, or no
        image is left.
    """
    if not isinstance(inputs, InputImages):
        inputs = InputImages([InputImage(image, named=True) for image in inputs])
    output = Path(os.path.expanduser(output))  # shells do not expand --output=~/results
    _check_folder(output)
    if prompts not in (AUTO, SAME_STEM) and not Path(prompts).is_file():
        raise FileNotFoundError(
            f"There is no prompt file {prompts}; give a CSV of points or shapes, a label image, "
            f"{SAME_STEM} or {AUTO}."
        )
    planned: list[SegmentTask | SkippedImage] = []
    recorded: dict[Path, frozenset[str]] = {}
    taken = _prompts_of_others(inputs.images, prompts)
    for one in inputs.images:
        folder = one.image.parent
        if folder not in recorded:
            recorded[folder] = outputs_recorded_in(folder)
        if one.image.name in recorded[folder]:
            planned.append(SkippedImage(one.image, "It is the output of an earlier run."))
        elif not one.named and (owner := taken.get(one.image.absolute())) is not None:
            planned.append(SkippedImage(one.image, f"It holds the prompts of {owner}."))
        else:
            planned.append(_plan_image(one, output, prompts, extras))
    tasks = tuple(each for each in planned if isinstance(each, SegmentTask))
    skipped = tuple(each for each in planned if isinstance(each, SkippedImage))
    _check_some_are_left(tasks, skipped)
    _check_outputs_differ(tasks)
    made = Plan(tasks, skipped, output, existing, len(inputs.others))
    made.check_existing()
    return made


def find_images(paths: Sequence[Path], *, pattern: str = "") -> list[InputImage]:
    """The images of files and folders, without what was made from other images among them.

    Parameters
    ----------
    paths, pattern
        As in `find_inputs`. A file of a folder that is the output of an earlier run, or called
        like another image with one of `MADE_ENDINGS`, is left out.
    """
    found = find_inputs(paths, pattern=pattern).images
    stems = {(one.image.parent, stem_of(one.image)) for one in found}
    recorded = {folder: outputs_recorded_in(folder) for folder, _ in stems}

    def is_made(path: Path) -> bool:
        stem = stem_of(path)
        owners = {
            (path.parent, stem.removesuffix(ending))
            for ending in MADE_ENDINGS
            if stem.endswith(ending)
        }
        return path.name in recorded[path.parent] or bool(owners & stems)

    return [one for one in found if one.named or not is_made(one.image)]


def _plan_image(
    one: InputImage, output: Path, prompts: str, extras: Sequence[str]
) -> SegmentTask | SkippedImage:
    try:
        if not one.image.exists():
            raise FileNotFoundError(f"There is no file {one.image}; check its name and folder.")
        files = OutputFiles.of(one.image, output / one.folder, extras)
        for path in files:
            check_is_no_folder(path)
        prompt_file = _prompt_file(one.image, one.prompts or prompts)
    except OutputError as error:
        return SkippedImage(one.image, str(error), failed=True)
    except (FileNotFoundError, ValueError) as error:
        if one.named:
            raise
        failed = not isinstance(error, FileNotFoundError)
        return SkippedImage(one.image, str(error), failed=failed)
    name = (one.folder / one.image.name).as_posix()
    return SegmentTask(one.image, prompt_file, files, one.selection, name)


def _check_folder(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file, not a folder. Choose another output folder.")
    nearest = next((folder for folder in (output, *output.parents) if folder.exists()), Path())
    if not os.access(nearest, os.W_OK):
        raise OutputError(unwritable_message(nearest))


def _prompts_of_others(images: Sequence[InputImage], prompts: str) -> dict[Path, str]:
    """Input files that are prompts of another image (its name is the value) or of all."""
    taken = {
        path.absolute(): one.image.name
        for one in images
        if (one.prompts or prompts) == SAME_STEM
        for path in same_stem_siblings(one.image, PROMPT_ENDINGS)
    }
    if prompts not in (AUTO, SAME_STEM):
        taken[Path(os.path.abspath(prompts))] = "the other images"
    return taken


def _prompt_file(image: Path, prompts: str) -> Path | None:
    if prompts == AUTO:
        return None
    if prompts != SAME_STEM:
        return Path(prompts)
    stem = stem_of(image)
    found = same_stem_siblings(image, PROMPT_ENDINGS)
    if not found:
        raise FileNotFoundError(
            f"There are no prompts beside {image}; save them as {stem}.csv, {stem}_points.csv, "
            f"{stem}_boxes.csv or {stem}_prompts.tif (labels), or name a file with --prompts."
        )
    if len(found) > 1:
        raise ValueError(
            f"There are several prompt files for {image}: {', '.join(p.name for p in found)}. "
            "Name one with --prompts, or keep only one beside the image."
        )
    return found[0]


def _check_some_are_left(tasks: Sequence[SegmentTask], skipped: Sequence[SkippedImage]) -> None:
    if tasks:
        return
    failed = next((one for one in skipped if one.failed), None)
    if failed is not None:
        raise OutputError(failed.why)
    if not skipped:
        raise ValueError("There is no image to segment. Give at least one.")
    raise ValueError(f"No image is left to segment. {skipped[0].image}: {skipped[0].why}")


def _check_outputs_differ(tasks: Sequence[SegmentTask]) -> None:
    """Refuse an output of two images or one that is an input; case is ignored."""
    written: dict[str, Path] = {}
    seen: set[str] = set()
    for task in tasks:
        if _same_name(task.image) in seen:
            raise ValueError(f"{task.image} is given twice; give each image once.")
        seen.add(_same_name(task.image))
        for path in task.files.possible():
            first = written.setdefault(_same_name(path), task.image)
            if first != task.image:
                raise ValueError(
                    f"{first} and {task.image} would both be written to {path}. Rename one, or "
                    "give them different output folders."
                )
    for task in tasks:
        for read in (task.image, task.prompts):
            if read is not None and _same_name(read) in written:
                raise ValueError(
                    f"{read} would be overwritten by an output. Choose another output folder."
                )


def _same_name(path: Path) -> str:
    return str(path.resolve()).casefold()


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """A task whose files were read.

    Parameters
    ----------
    task, image
        The task and its image.
    selection
        Its channels as given, and the shape of its pixels.
    axis
        Axis of the channels, None for one channel.
    axes, shape
        Letters and sizes of the other axes, (..., Y, X).
    prompts
        None to segment everything with the settings `automatic`.
    propagation
        How objects are propagated through the stack; None if they are not.
    sha256
        Hash of the image file.
    seconds
        Time it took.
    note
        A remark for the user.
    link
        How its objects are linked, with the time axis; None if they are not.
    """

    task: SegmentTask
    image: ImageFile
    selection: ChannelSelection
    axis: int | None
    axes: str
    shape: tuple[int, ...]
    prompts: Sequence[Prompt] | None
    automatic: AutomaticSettings
    propagation: PropagationSettings | None
    sha256: str
    seconds: float
    note: str = ""
    link: LinkSettings | None = None

    @property
    def channel_names(self) -> tuple[str, ...] | None:
        """The file's names along the channel axis, if the file means the same axis."""
        return self.image.channel_names if self.axis == self.image.channel_axis else None


@dataclass(frozen=True, eq=False)
class SegmentedImage:
    """A segmented image before its outputs are written.

    Parameters
    ----------
    loaded, request
        The image, and everything that the result depends on.
    painting
        The label image and its objects.
    stack
        The image as the model read it.
    note
        A remark for the user, e.g. that memory ran out and how that was handled.
    seconds
        Time it took so far.
    tiles
        Temporary folder with the label image, if that is not in memory.
    lineage
        The links of its objects over time, if they were linked.
    """

    loaded: LoadedImage
    request: Request
    painting: LabelVolume
    stack: ChannelStack
    note: str
    seconds: float
    tiles: Path | None = None
    lineage: Lineage | None = None


@dataclass(frozen=True)
class TaskOutcome:
    """The outcome of a task.

    Parameters
    ----------
    task
        The task.
    status
        ``"kept"`` if a resumed run found the outputs complete.
    objects
        Number of labels in the label image.
    hidden
        Labels whose mask is empty or completely covered by better ones.
    seconds
        Time it took.
    note
        A remark for the user; for a failed task the reason.
    thumbnail
        A small PNG; empty if none was drawn.
    """

    task: SegmentTask
    status: Literal["written", "kept", "failed"]
    objects: int = 0
    hidden: tuple[int, ...] = ()
    seconds: float = 0.0
    note: str = ""
    thumbnail: bytes = b""
