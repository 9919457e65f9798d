"""What is to be segmented, how, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_simmat.engine.automatic.settings import AutomaticSettings
from napari_simmat.engine.files import sha256_of
from napari_simmat.engine.formats.reading import is_nifti, stem_of
from napari_simmat.engine.frames import check_pixel_ratio
from napari_simmat.engine.jobs.record import Request, read_record
from napari_simmat.engine.propagation_settings import PropagationSettings

if TYPE_CHECKING:
    from napari_simmat.engine.formats.image_file import ImageFile
    from napari_simmat.engine.images import ChannelStack
    from napari_simmat.engine.objects import Painting
    from napari_simmat.engine.prompts import Prompt


LABEL_SUFFIXES = (".tif", ".nii.gz", ".ome.zarr")
EXTRA_ENDINGS = {"overlay": "_overlay.png", "coco": "_coco.json", "rois": "_rois.zip"}
"""Optional outputs by their kind, and what follows the image's stem in their names."""


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """How images are segmented; the same for every task of a run.

    Parameters
    ----------
    model
        A model's name or file.
    channels
        Names or indices of the channels the model gets, in its order; None for all there are.
    channel_axis
        Axis of the channels; None for what the file says.
    pixel_ratio
        Height of a pixel over its width, where a file does not say.
    device, precision
        As `Predictor` takes them.
    automatic
        How everything is segmented in images without prompts.
    propagation
        How the objects of prompts are followed through stacks; None for each plane by itself.
    labels_in_memory
        Where everything in a plane is segmented and its labels need more GB than this, they are
        written to OME-Zarr, tile by tile.
    """

    model: str
    channels: tuple[int | str, ...] | None = None
    channel_axis: int | None = None
    pixel_ratio: float = 1.0
    device: str = "auto"
    precision: str = "auto"
    automatic: AutomaticSettings = field(default_factory=AutomaticSettings)
    propagation: PropagationSettings | None = None
    labels_in_memory: float = 1.0

    def __post_init__(self) -> None:
        check_pixel_ratio(self.pixel_ratio)


@dataclass(frozen=True)
class OutputFiles:
    """The files that one image becomes; `extras` holds the optional ones by their kind."""

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
            The image, and where its outputs go.
        extras
            Which of `EXTRA_ENDINGS` are written as well.
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
        """The same with labels as OME-Zarr, for an image whose labels are not held in memory.

        Of the optional outputs only the picture can be made then.
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
        """By their kind, the files that the record vouches for."""
        return {"labels": self.labels, "objects": self.objects, **self.extras}

    def __iter__(self) -> Iterator[Path]:
        return iter((self.labels, self.objects, *self.extras.values(), self.record))

    def possible(self) -> tuple[Path, ...]:
        """The files, and what stands for the labels if the image turns out to be large."""
        return (*self, self.in_zarr().labels)

    def existing(self) -> list[Path]:
        """Those of the files that are already there."""
        return [path for path in self if path.exists()]

    def outdated(self) -> list[Path]:
        """Files beside these that an earlier run wrote for the image, as the record there says.

        Such are labels in another format, and optional outputs that are not wanted any more; what
        was changed since is somebody's work and none of them.
        """
        try:
            earlier = read_record(self.record).outputs.values()
        except (ValueError, OSError):  # there is none, or one of another program
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
class Task:
    """One image, its prompts, its outputs.

    Parameters
    ----------
    image
        A file, or a folder that is one image.
    prompts
        Their file; None to segment everything.
    files
        What is written.
    channels, channel_axis
        Of this image alone; None for what the run says.
    name
        What people read: its path below the folder that was given, as fields of a plate have the
        same last part; that of the file if left out.
    """

    image: Path
    prompts: Path | None
    files: OutputFiles
    channels: tuple[int | str, ...] | None = None
    channel_axis: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.image.name)

    def settings(self, config: SegmentConfig) -> SegmentConfig:
        """How this image is segmented."""
        return replace(
            config,
            channels=config.channels if self.channels is None else self.channels,
            channel_axis=config.channel_axis if self.channel_axis is None else self.channel_axis,
        )


@dataclass(frozen=True, eq=False)
class Loaded:
    """A task whose files were read.

    Parameters
    ----------
    task, image
        The task and its image.
    prompts
        Its prompts; None to segment everything, as `automatic` says.
    axis
        Axis of the channels, None for one channel.
    axes, shape
        Letters and sizes of the other axes, (..., Y, X).
    sha256
        Of the image's file.
    seconds
        Time it took.
    note
        A remark in words.
    """

    task: Task
    image: ImageFile
    axis: int | None
    axes: str
    shape: tuple[int, ...]
    prompts: Sequence[Prompt] | None
    automatic: AutomaticSettings
    sha256: str
    seconds: float
    note: str = ""


@dataclass(frozen=True, eq=False)
class Segmented:
    """What an image became, before it is written.

    Parameters
    ----------
    loaded, request
        The image, and all that the result depends on.
    painting
        The label image with what was painted.
    stack
        The image as the model read it.
    note
        A remark in words, e.g. that memory ran out and what was done.
    seconds
        Time it took so far.
    tiles
        Folder that holds the label image until it is written, where it is not held in memory.
    """

    loaded: Loaded
    request: Request
    painting: Painting
    stack: ChannelStack
    note: str
    seconds: float
    tiles: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Parameters
    ----------
    task
        The task.
    status
        ``"written"``; ``"kept"`` where a resumed run found it done; ``"failed"``.
    objects
        Labels in the label image.
    hidden
        Labels whose mask is empty or wholly under better ones.
    seconds
        Time it took.
    note
        A remark in words, e.g. that memory ran out and what was done; the reason of a failure.
    thumbnail
        A small PNG, where one was drawn.
    """

    task: Task
    status: Literal["written", "kept", "failed"]
    objects: int = 0
    hidden: tuple[int, ...] = ()
    seconds: float = 0.0
    note: str = ""
    thumbnail: bytes = b""
