"""Plan a run: name all files that it will read and write, refuse what cannot work."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from napari_simmat._text import format_list
from napari_simmat.batch.folder_lock import is_shared
from napari_simmat.batch.inputs import (
    AUTO,
    SAME_STEM,
    InputImage,
    InputImages,
    find_inputs,
    is_prompt_file,
    shown_name,
)
from napari_simmat.batch.record import outputs_recorded_in, read_record
from napari_simmat.engine.files.label_images import LABEL_WRITERS
from napari_simmat.engine.files.objects import EXTRA_FORMATS
from napari_simmat.engine.files.spatial import SPATIAL_ENDING, check_is_own_store, check_spatialdata
from napari_simmat.engine.files.tables import TABLE_FORMATS
from napari_simmat.engine.settings import (
    AutomaticSettings,
    ChannelSelection,
    Compute,
    LinkSettings,
    PropagationSettings,
    Shard,
)
from napari_simmat.engine.table_settings import TableSettings
from napari_simmat.engine.tracking.linking import require_laptrack
from napari_simmat.io.captures import (
    band_files,
    find_captures,
    home_of,
    is_capture,
    proposal_text,
    propose_in,
)
from napari_simmat.io.files import UNWRITABLE, OutputError, check_is_no_folder, sha256_of
from napari_simmat.io.part import WHOLE, ImagePart
from napari_simmat.io.plain import to_plain
from napari_simmat.io.readers import label_ending, stem_of
from napari_simmat.io.zarr import check_is_no_image
from napari_simmat.io.zarr_inside import place_inside

PROMPT_ENDINGS = (
    ".csv", "_points.csv", "_boxes.csv", "_shapes.csv", "_prompts.csv",
    "_prompts.tif", "_prompts.tiff", "_prompts.png", "_prompts.npy", "_prompts.nii.gz",
)  # fmt: skip
"""Endings of prompt files, after the image's stem."""
LABEL_SUFFIXES = (*LABEL_WRITERS, ".ome.zarr")
MADE_ENDINGS = ("_labels", "_classes", "_prompts", "_overlay", "_masks")
"""Endings of the stems of images that belong to another image."""
TRACKS = "tracks"
"""Kind of the table of tracks, which is written if objects are linked over time."""
SPATIAL = "spatialdata"
"""Kind of the store of labels, outlines and table."""
EXTRA_ENDINGS = {
    "overlay": "_overlay.png",
    **{kind: each.ending for kind, each in EXTRA_FORMATS.items()},
    **{kind: f"_objects{each.ending}" for kind, each in TABLE_FORMATS.items()},
    SPATIAL: SPATIAL_ENDING,
    TRACKS: "_res_track.txt",
    "ctc": "_RES",
}
"""Optional outputs by kind, with the ending of their names after the image's stem."""
INSIDE = "inside"
"""Kind of the labels within an OME-Zarr image."""
LARGE_EXTRAS = ("overlay", "geojson", "map", *TABLE_FORMATS)
"""Optional outputs that are written of labels that do not fit into memory, too."""
MAX_NAME_BYTES = 240
"""Of an output: file systems admit 255, and `partial_path` adds 15."""
BROKEN_LINK = "{} is a link that leads nowhere. Repair or remove it."
LONG_NAME = (
    "The name of {} is too long: that of an output would have {} bytes, and at most {} are "
    "possible. Rename the image."
)
OTHER_CASE = (
    "Its name differs from {} in the case of letters alone, so that some file systems cannot hold "
    "the outputs of both. Rename one."
)

CTC_FILE = re.compile(r"mask\d+\.tif|res_track\.txt")
"""Names in a result folder of the Cell Tracking Challenge."""
FOREIGN_FILES = (
    "{} holds files that are not part of a result of the Cell Tracking Challenge ({}), so it is "
    "not replaced; move them, or choose another output folder."
)
ExistingPolicy = Literal["refuse", "resume", "overwrite"]
"""What to do with existing outputs."""


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """Settings that all tasks of a run share."""

    model: str
    """A model's name or file."""
    selection: ChannelSelection = field(default_factory=ChannelSelection)
    """Channels and shape of the pixels; a task may have its own."""
    part: ImagePart = WHOLE
    """What is read of an image; a task may have its own."""
    tissue: str = ""
    """Where alone everything is segmented: ``"auto"``, a label image or outlines; empty for
    everywhere."""
    compute: Compute = field(default_factory=Compute)
    """Device, precision and quality."""
    automatic: AutomaticSettings = field(default_factory=AutomaticSettings)
    """Settings for images without prompts, in which everything is segmented."""
    propagation: PropagationSettings | None = None
    """How objects are propagated through stacks; None to segment each plane by itself."""
    link: LinkSettings | None = None
    """How objects are linked over time; None if they are not."""
    table: TableSettings = field(default_factory=TableSettings)
    """What is measured of the objects."""
    labels_in_memory: float = 1.0
    """With automatic segmentation, a plane whose labels need more GB than this is written to
    OME-Zarr, tile by tile."""

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
    def of(
        cls, image: Path, folder: Path, extras: Sequence[str] = (), stem: str = ""
    ) -> OutputFiles:
        """Name the outputs of `image` in `folder`.

        Parameters
        ----------
        image, folder
            The image, and the folder of its outputs.
        extras
            Optional outputs, keys of `EXTRA_ENDINGS`.
        stem
            How their names begin; by default as the image's.
        """
        stem = stem or stem_of(image)
        return cls(
            labels=folder / f"{stem}_labels{label_ending(image)}",
            objects=folder / f"{stem}_objects.csv",
            record=folder / f"{stem}.json",
            extras={
                kind: place_inside(image)
                if kind == INSIDE
                else folder / f"{stem}{EXTRA_ENDINGS[kind]}"
                for kind in extras
            },
        )

    def in_zarr(self) -> OutputFiles:
        """The same with labels as OME-Zarr, for an image whose labels do not fit into memory.

        Optional outputs are then the overlay, GeoJSON and the tables.
        """
        name = f"{self.record.name.removesuffix('.json')}_labels.ome.zarr"
        extras = {kind: path for kind, path in self.extras.items() if kind in LARGE_EXTRAS}
        return replace(self, labels=self.labels.with_name(name), extras=extras)

    def in_tiff(self) -> OutputFiles:
        """The same with labels as OME-TIFF, for an image whose place the usual format lacks."""
        name = f"{self.record.name.removesuffix('.json')}_labels.tif"
        return replace(self, labels=self.labels.with_name(name))

    @property
    def journal(self) -> Path:
        """The folder that keeps what is done of a segmentation tile by tile."""
        return self.record.with_name(f".{self.record.name.removesuffix('.json')}_tiles.part")

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
        """The files, and the labels in another format in case the image turns out to need it."""
        return tuple(dict.fromkeys((*self, self.in_zarr().labels, self.in_tiff().labels)))

    def check_replaceable(self) -> None:
        """Refuse to replace a folder that holds anything else than an earlier run wrote.

        Raises OutputError that names what is there.
        """
        for path in self:
            if path == self.extras.get(SPATIAL):
                check_is_own_store(path)
            elif path.suffix == ".zarr" or path == self.extras.get(INSIDE):
                check_is_no_image(path)
            elif path.is_dir():
                check_is_no_folder(path)
                names = sorted(file.name for file in path.iterdir())
                foreign = [name for name in names if not CTC_FILE.fullmatch(name)]
                if foreign:
                    raise OutputError(FOREIGN_FILES.format(path, format_list(foreign[:3])))

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
        paths = [self.record.with_name(name) for name in sorted(possible & set(written))]
        return [path for path in paths if path.exists() and sha256_of(path) == written[path.name]]


@dataclass(frozen=True)
class SegmentTask:
    """One image, its prompts, its outputs."""

    image: Path
    """A file, a folder that is one image, or a capture whose bands are files."""
    prompts: Path | None
    """The prompt file; None to segment everything."""
    files: OutputFiles
    selection: ChannelSelection = field(default_factory=ChannelSelection)
    """For this image; what it leaves open is as in the run's settings."""
    name: str = ""
    """Name for the user: the path below the input folder, since fields of a plate share their
    last part; the file's name by default."""
    channel_files: tuple[Path, ...] = ()
    """Files whose channels are added to those of `image`."""
    part: ImagePart = WHOLE
    """What is read of this image; what it leaves open is as in the run's settings."""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", shown_name(self.image))

    @property
    def read(self) -> tuple[Path, ...]:
        """All files that are read, prompts apart."""
        bands = band_files(self.image).values() if is_capture(self.image) else (self.image,)
        return (*bands, *self.channel_files)


@dataclass(frozen=True)
class SkippedImage:
    """An image that will not be segmented, and the reason."""

    image: Path
    why: str
    """A sentence for the user."""
    failed: bool = False
    """Whether this is an error rather than a choice."""


@dataclass(frozen=True)
class Plan:
    """What a run will read and write."""

    tasks: tuple[SegmentTask, ...]
    skipped: tuple[SkippedImage, ...]
    """Images that are left out."""
    output: Path
    """Folder of the outputs."""
    existing: ExistingPolicy = "refuse"
    """What to do with existing outputs."""
    others: int = 0
    """Number of files in the input folders that are no images by their name."""
    shard: Shard | None = None
    """The part of the images that this run has; None for all."""
    proposal: str = ""
    """As of `InputImages`."""
    report: bool = False
    """Whether a single image has a summary, too."""

    @property
    def several(self) -> bool:
        """Whether the run has several images."""
        return len(self.tasks) + sum(one.failed for one in self.skipped) > 1

    @property
    def summarized(self) -> bool:
        """Whether the run writes a summary."""
        return self.report or self.several

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
            "skipped": to_plain(self.skipped),
        }

    def check_existing(self) -> None:
        """Refuse existing outputs, unless they may be kept or replaced."""
        if self.existing != "refuse":
            return
        for task in self.tasks:
            for path in task.files.possible():
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
    shard: Shard | None = None,
    report: bool = False,
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
    shard
        The part of the images to segment: every N-th in the order of the plan.
    report
        Whether a single image has a summary, too.

    Raises
    ------
    ValueError, OSError
        If two images would have the same output, an output exists and must not be replaced, no
        image is left, or the package that writes an optional table is not installed.
    """
    if not isinstance(inputs, InputImages):
        inputs = InputImages([InputImage(image, named=True) for image in inputs])
    for kind in set(extras) & set(TABLE_FORMATS):
        TABLE_FORMATS[kind].check()
    if SPATIAL in extras:
        check_spatialdata()
    output = Path(os.path.expanduser(output))  # shells do not expand --output=~/results
    _check_output(output)
    if prompts not in (AUTO, SAME_STEM) and not is_prompt_file(Path(prompts)):
        raise FileNotFoundError(
            f"There is no prompt file {prompts}; give a CSV of points or shapes, a label image, "
            f"{SAME_STEM} or {AUTO}."
        )
    planned = _without_namesakes(_plan_images(inputs.images, output, prompts, extras))
    tasks = tuple(image for image in planned if isinstance(image, SegmentTask))
    skipped = tuple(image for image in planned if isinstance(image, SkippedImage))
    if not tasks:
        raise _nothing_to_do(skipped, inputs.proposal)
    _check_outputs_differ(tasks)
    if shard is not None:
        tasks = tasks[shard.number - 1 :: shard.count]
        skipped = skipped if shard.number == 1 else ()
    others = len(inputs.others)
    whole = Plan(tasks, skipped, output, existing, others, shard, inputs.proposal, report)
    if not is_shared(output):  # else the run decides, which may take part in another one
        whole.check_existing()
    return whole


def find_images(paths: Sequence[Path], *, pattern: str = "") -> list[InputImage]:
    """The images of files and folders, without what was made from other images among them.

    Parameters
    ----------
    paths, pattern
        As in `find_inputs`. A file of a folder that is the output of an earlier run, or called
        like another image with one of `MADE_ENDINGS`, is left out.
    """
    inputs = find_inputs(paths, pattern=pattern).images
    folders = {home_of(one.image) for one in inputs}
    made = {folder / name for folder in folders for name in outputs_recorded_in(folder)}
    made |= _owners_by_name(inputs).keys()
    return [one for one in inputs if one.named or one.image not in made]


def _owners_by_name(images: Sequence[InputImage]) -> dict[Path, Path]:
    """Which images are called like another one with one of `MADE_ENDINGS`, and like which."""
    stems = {(home_of(one.image), stem_of(one.image)): one.image for one in images}
    for folder in {folder for folder, _ in stems}:
        if pattern := propose_in(folder):  # of captures that were not given as such
            found = find_captures(Path(pattern)).images
            stems |= {(folder, stem_of(image)): image for image in found}
    owners = {}
    for (folder, stem), image in stems.items():
        for ending in filter(stem.endswith, MADE_ENDINGS):
            if owner := stems.get((folder, stem.removesuffix(ending))):
                owners[image] = owner
    return owners


def _check_output(folder: Path) -> None:
    """Refuse an output folder that cannot be written."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder. Choose another output folder.")
    nearest = next((parent for parent in (folder, *folder.parents) if parent.exists()), Path())
    if not os.access(nearest, os.W_OK):
        raise OutputError(UNWRITABLE.format(nearest))


def _plan_images(
    images: Sequence[InputImage], output: Path, prompts: str, extras: Sequence[str]
) -> list[SegmentTask | SkippedImage]:
    """A task for each image that is neither an output nor the prompts of another one."""
    planned: list[SegmentTask | SkippedImage] = []
    recorded: dict[Path, frozenset[str]] = {}
    owners = _owners_of_prompts(images, prompts)
    of_others = _owners_by_name(images)
    for one in images:
        folder = home_of(one.image)
        if folder not in recorded:
            recorded[folder] = outputs_recorded_in(folder)
        owner = None if one.named else owners.get(one.image.absolute())
        if one.image.name in recorded[folder]:
            planned.append(SkippedImage(one.image, "It is the output of an earlier run."))
        elif owner is not None:
            planned.append(SkippedImage(one.image, f"It holds the prompts of {owner}."))
        elif one.image in of_others and not one.named:
            whose = shown_name(of_others[one.image])
            planned.append(SkippedImage(one.image, f"It belongs to {whose}, by its name."))
        else:
            planned.append(_plan_image(one, output, prompts, extras))
    return planned


def _owners_of_prompts(images: Sequence[InputImage], prompts: str) -> dict[Path, str]:
    """Whose prompts a file holds: those of one image, by its name, or of all."""
    owners: dict[Path, str] = {}
    for one in images:
        if (one.prompts or prompts) == SAME_STEM:
            for path in _same_stem_prompts(one.image):
                owners[path.absolute()] = one.image.name
    if prompts not in (AUTO, SAME_STEM):
        owners[Path(os.path.abspath(prompts))] = "the other images"
    return owners


def _nothing_to_do(skipped: Sequence[SkippedImage], proposal: str) -> Exception:
    """What a plan without a task says."""
    for one in skipped:
        if one.failed:
            return OutputError(one.why)
    if not skipped:
        return ValueError("There is no image to segment. Give at least one.")
    why = f"No image is left to segment. {skipped[0].image}: {skipped[0].why}"
    return ValueError(f"{why} {proposal_text(proposal)}" if proposal else why)


def _plan_image(
    one: InputImage, output: Path, prompts: str, extras: Sequence[str]
) -> SegmentTask | SkippedImage:
    try:
        if is_capture(one.image):
            band_files(one.image)
        elif not os.path.exists(one.image):
            if one.image.is_symlink():
                raise OutputError(BROKEN_LINK.format(one.image))
            raise FileNotFoundError(f"There is no file {one.image}; check its name and folder.")
        files = OutputFiles.of(one.image, output / one.folder, extras)
        longest = max(len(os.fsencode(path.name)) for path in files.possible())
        if longest > MAX_NAME_BYTES:
            raise OutputError(LONG_NAME.format(one.image.name, longest, MAX_NAME_BYTES))
        for path in files:
            check_is_no_folder(path)
        prompt_file = _prompt_file(one.image, one.prompts or prompts)
    except OutputError as error:
        return SkippedImage(one.image, str(error), failed=True)
    except (FileNotFoundError, ValueError) as error:
        if one.named:
            raise
        return SkippedImage(one.image, str(error), not isinstance(error, FileNotFoundError))
    name = (one.folder / shown_name(one.image)).as_posix()
    more = one.channel_files, one.part
    return SegmentTask(one.image, prompt_file, files, one.selection, name, *more)


def _prompt_file(image: Path, prompts: str) -> Path | None:
    if prompts == AUTO:
        return None
    if prompts != SAME_STEM:
        return Path(prompts)
    stem = stem_of(image)
    beside = _same_stem_prompts(image)
    if not beside:
        raise FileNotFoundError(
            f"There are no prompts beside {image}; save them as {stem}.csv, {stem}_points.csv, "
            f"{stem}_boxes.csv or {stem}_prompts.tif (labels), or name a file with --prompts."
        )
    if len(beside) > 1:
        raise ValueError(
            f"There are several prompt files for {image}: {', '.join(p.name for p in beside)}. "
            "Name one with --prompts, or keep only one beside the image."
        )
    return beside[0]


def _without_namesakes(
    planned: Sequence[SegmentTask | SkippedImage],
) -> list[SegmentTask | SkippedImage]:
    """Skip images whose names differ from that of an earlier one in case alone.

    A file system that ignores case, onto which results may be copied, cannot hold both outputs.
    """
    kept: list[SegmentTask | SkippedImage] = []
    seen: dict[str, Path] = {}
    for one in planned:
        if isinstance(one, SegmentTask):
            first = seen.setdefault(_same_name(one.image), one.image)
            if not _is_same_file(first, one.image):
                one = SkippedImage(one.image, OTHER_CASE.format(first.name), failed=True)
        kept.append(one)
    return kept


def _is_same_file(one: Path, other: Path) -> bool:
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


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
        for read in (*task.read, task.prompts):
            if read is not None and _same_name(read) in written:
                raise ValueError(
                    f"{read} would be overwritten by an output. Choose another output folder."
                )


def _same_name(path: Path) -> str:
    return os.path.realpath(path).casefold()


def _same_stem_prompts(image: Path) -> list[Path]:
    """Prompt files beside an image that are named by its stem."""
    stem = home_of(image) / stem_of(image)
    candidates = [Path(f"{stem}{ending}") for ending in PROMPT_ENDINGS]
    return [path for path in candidates if os.path.isfile(path) and path != image]
