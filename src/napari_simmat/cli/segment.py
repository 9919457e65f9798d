"""`simmat segment`: segment image files with prompts; `simmat encode`: encode them ahead."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from napari_simmat._text import pluralize
from napari_simmat.cli.terminal import (
    DEFAULT_CHANNELS,
    DEFAULT_COMPUTE,
    DEFAULT_OUTPUT,
    FLAG,
    MODEL,
    OUTPUT,
    ChannelOptions,
    ComputeOptions,
    OutputOptions,
    RemoteControl,
    Terminal,
    print_event,
    step_values,
)
from napari_simmat.engine.settings import (
    AutomaticSettings,
    LinkSettings,
    PropagationSettings,
    Shard,
)

if TYPE_CHECKING:
    from napari_simmat.batch.plan import Plan
    from napari_simmat.batch.segment_image import TaskOutcome
    from napari_simmat.progress import Progress


@Parameter(name="*", group="Files")
@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Input files, and outputs besides labels, table and record.

    Parameters
    ----------
    pattern
        Files of a folder to use, e.g. *.tif or plate*/*.png; all images by default.
    allow_outside
        Allow a manifest to name files outside its folder.
    channel_files
        Files whose channels are added to those of the image, e.g. other contrasts of a patient;
        one that lies elsewhere is resampled to the image. Of many images: a manifest's column.
    overlay
        Also write STEM_overlay.png, a picture of the image with its objects.
    coco
        Also write STEM_coco.json, the objects in COCO format.
    rois
        Also write STEM_rois.zip, the objects as ImageJ ROIs.
    geojson
        Also write STEM_objects.geojson, the objects for QuPath.
    map
        Also write STEM_map.geojson, the objects of a GeoTIFF in its map coordinates, for QGIS.
    seg
        Also write STEM_seg.dcm, the objects of a DICOM series as DICOM SEG, with the patient's
        name and number as in the series. Needs highdicom: pip install highdicom.
    ctc
        Also write STEM_RES, a result folder of the Cell Tracking Challenge: mask000.tif for each
        frame and res_track.txt.
    zarr
        Also write STEM_labels.ome.zarr, the label image as OME-Zarr with a pyramid.
    resume
        Keep outputs made from the same image, model, prompts and settings; refuse others.
    overwrite
        Replace existing outputs.
    shard
        K/N: segment only every N-th image, beginning with the K-th. Jobs of a cluster with one
        output folder divide the images so; each writes a summary of its own.
    dry_run
        Show what would be done without doing it, and check that each image can be used.
    labels_in_memory
        GB of memory for a label image. With --prompts auto, a plane that needs more becomes
        STEM_labels.ome.zarr, tile by tile.
    """

    pattern: str = ""
    allow_outside: Annotated[bool, FLAG] = False
    channel_files: Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative="")] = ()
    overlay: Annotated[bool, FLAG] = False
    coco: Annotated[bool, FLAG] = False
    rois: Annotated[bool, FLAG] = False
    geojson: Annotated[bool, FLAG] = False
    map: Annotated[bool, FLAG] = False
    seg: Annotated[bool, FLAG] = False
    ctc: Annotated[bool, FLAG] = False
    zarr: Annotated[bool, FLAG] = False
    resume: Annotated[bool, FLAG] = False
    overwrite: Annotated[bool, FLAG] = False
    shard: str = ""
    dry_run: Annotated[bool, FLAG] = False
    labels_in_memory: float = 1.0

    @property
    def extras(self) -> list[str]:
        """The kinds of optional outputs."""
        kinds = ("overlay", "coco", "rois", "geojson", "map", "seg", "ctc", "zarr")
        return [kind for kind in kinds if getattr(self, kind)]

    @property
    def existing(self) -> Literal["refuse", "resume", "overwrite"]:
        """What to do with existing outputs."""
        if self.resume and self.overwrite:
            raise ValueError(
                "--resume keeps what exists, --overwrite replaces it; give one of them."
            )
        return "resume" if self.resume else "overwrite" if self.overwrite else "refuse"


@Parameter(name="*", group="Time series")
@dataclass(frozen=True, kw_only=True)
class LinkOptions:
    """How objects are linked over time.

    Parameters
    ----------
    link
        Link the objects of the frames: each keeps its id over time; a dividing object gets two
        daughters. Also writes STEM_res_track.txt. Needs laptrack: pip install laptrack.
    objects
        With --prompts auto: planes, an object for each plane; or 3d, objects that go on from plane
        to plane along depth get one id, one row and one volume. Needs laptrack, too.
    link_axis
        The time axis, counted from 0 without channels, if a file does not say.
    link_distance
        How far an object may move from frame to frame, in pixels; 0 for its usual diameter.
    link_gap
        Over how many frames an object may be missing.
    link_divisions
        Whether objects may divide.
    """

    link: Annotated[bool, FLAG] = False
    objects: Literal["planes", "3d"] = "planes"
    link_axis: int | None = None
    link_distance: float = 0.0
    link_gap: int = 0
    link_divisions: bool = True

    @property
    def settings(self) -> LinkSettings | None:
        """The settings; None without --link and --objects 3d."""
        if self.link and self.objects == "3d":
            raise ValueError(
                "--link follows objects over time, --objects 3d along depth; give one of them."
            )
        if not self.link and self.objects == "planes":
            return None
        return LinkSettings(
            axis=self.link_axis,
            distance=self.link_distance,
            gap=self.link_gap,
            divisions=self.link_divisions and self.link,
            along="time" if self.link else "depth",
        )


MANY_IMAGES = (
    "--channel-files belong to one image, but there are {}; list them in a manifest, with a column "
    "channel_files."
)
DEFAULT_FILES = FileOptions()
DEFAULT_LINK = LinkOptions()
AUTOMATIC = Parameter(name="auto", group="Segment everything (--prompts auto)")
DEFAULTS = AutomaticSettings()


def segment(
    image: Path,
    /,
    *more: Path,
    model: Annotated[str, MODEL],
    output: Annotated[Path, OUTPUT],
    prompts: str,
    propagate: Annotated[bool, FLAG] = False,
    linking: LinkOptions = DEFAULT_LINK,
    channels: ChannelOptions = DEFAULT_CHANNELS,
    files: FileOptions = DEFAULT_FILES,
    automatic: Annotated[AutomaticSettings, AUTOMATIC] = DEFAULTS,
    scheduler: str | None = None,
    events: Annotated[bool, FLAG] = False,
    compute: ComputeOptions = DEFAULT_COMPUTE,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> int:
    """Segment image files: everything, or by the clicks, boxes or masks of a prompt file.

    Writes three files for each image STEM.tif:

    - STEM_labels.tif, the label image (.nii.gz for NIfTI, .ome.zarr for very large ones),
    - STEM_objects.csv, one row of measurements per object,
    - STEM.json, the record of how it was made.

    Several images also get simmat-objects.csv, the objects of all in one table, simmat-summary.csv
    and simmat-report.html, a page with thumbnails.
    A file that cannot be used is reported; the others are segmented.

    Clicks on one image; boxes on selected channels; every image of a folder with prompts beside
    it; the images of a table:

    ```
    simmat segment a.tif --model tiny --prompts a.csv --output out
    simmat segment a.tif --model tiny --prompts a.csv --output out --channels 0,2,2
    simmat segment data --pattern "*.tif" --model tiny --prompts same-stem --output out --resume
    simmat segment list.csv --model tiny --prompts same-stem --output out --overlay
    ```

    Everything in the images, without prompts:

    ```
    simmat segment a.tif --model tiny --prompts auto --output out
    simmat segment a.tif --model tiny --prompts auto --output out --auto.seeds maxima
    ```

    Objects of a stack, clicked on one or several planes and propagated to all their planes:

    ```
    simmat segment stack.tif --model tiny --prompts stack.csv --output out --propagate
    ```

    Nuclei of a stack as objects in 3D:

    ```
    simmat segment stack.tif --model tiny --prompts auto --output out --objects 3d
    ```

    Cells of a time series, linked from frame to frame:

    ```
    simmat segment series.tif --model tiny --prompts auto --output out --link
    ```

    A prompt file is napari's CSV of points (with the columns `label`, 1 on the object or 0 not,
    and `object`, an id), napari's CSV of shapes (each a box), a label image (each label a mask),
    objects of another program (COCO, GeoJSON, ImageJ ROIs; each a mask), or an earlier record
    STEM.json, which is replayed, with its channels unless others are given.
    Where masks overlap, the one with the higher score keeps the pixel; of equal scores, that of the
    earlier prompt.

    Parameters
    ----------
    image
        An image (TIFF, PNG, JPEG, BMP, NIfTI, DICOM, OME-Zarr or .npy), a folder, a pattern such
        as "data/**/*.tif", or a manifest: a CSV with the column image and optionally prompts,
        channels and channel_axis.
    more
        More of them.
    model
        A name that `simmat models` lists, or a model's file.
    output
        Output folder, created if needed. Subfolders are mirrored in it.
    prompts
        auto to segment everything; a prompt file for all images; or same-stem: for each image the
        file beside it called STEM.csv, STEM_points.csv, STEM_boxes.csv, STEM_shapes.csv or
        STEM_prompts.tif.
    linking
        Linking objects over time.
    propagate
        Propagate each object of a stack from the planes with prompts to all others, until it ends.
        A plane with negative points only marks where it is absent. Runs through depth (Z), or time
        if there is none. Images of one plane are segmented without it.
    automatic
        Settings for segmenting everything.
    scheduler
        Address of a dask.distributed scheduler, e.g. tcp://10.0.0.1:8786, whose workers segment.
    events
        For programs: print a line of JSON for each step; read pause, go and stop from stdin.
    """
    from napari_simmat.batch.plan import TRACKS, SegmentConfig, find_inputs, plan
    from napari_simmat.batch.run_plan import check_plan_job, run_plan_job
    from napari_simmat.batch.summary import summary_files
    from napari_simmat.batch.tasks import BatchProgress
    from napari_simmat.progress import map_progress

    terminal = console.terminal()
    inputs = find_inputs([image, *more], pattern=files.pattern, outside=files.allow_outside)
    if files.channel_files:
        if len(inputs.images) != 1:
            raise ValueError(MANY_IMAGES.format(len(inputs.images)))
        inputs.images = [replace(inputs.images[0], channel_files=files.channel_files)]
    planned = plan(
        inputs,
        output=output,
        prompts=prompts,
        existing=files.existing,
        extras=[*files.extras, *[TRACKS] * linking.link],
        shard=Shard.parse(files.shard) if files.shard else None,
    )
    config = SegmentConfig(
        model=model,
        selection=channels.selection,
        compute=compute,
        automatic=automatic,
        propagation=PropagationSettings() if propagate else None,
        link=linking.settings,
        labels_in_memory=files.labels_in_memory,
    )
    problems = terminal.watch(check_plan_job(planned, config)) if files.dry_run else {}
    if events:
        print_event(plan=planned.to_plain())
    else:
        _print_plan(terminal, planned, only=files.dry_run)
    if files.dry_run:
        for problem in problems.values():
            terminal.complain(problem)
        terminal.result({**planned.to_plain(), "problems": problems})
        return int(bool(problems) or any(one.failed for one in planned.skipped))
    job = run_plan_job(planned, config, scheduler=scheduler)
    shown: dict[int, TaskOutcome] = {}

    def show(progress: Progress) -> Progress:
        """Print an outcome at once: a run may take hours, and its output be a log."""
        if isinstance(progress, BatchProgress) and progress.outcome is not None:
            shown[progress.number] = progress.outcome
            _print_outcome(terminal, progress.outcome)
        return progress

    watched = RemoteControl().steer_job(job, _event_values) if events else map_progress(job, show)
    outcomes = terminal.watch(watched, logs=not events)
    failed = any(one.status == "failed" for one in outcomes) or any(
        one.failed for one in planned.skipped
    )
    if events:
        print_event(finished=len(outcomes))
        return int(failed)
    for number, outcome in enumerate(outcomes):
        if shown.get(number) is not outcome:
            _print_outcome(terminal, outcome)
    if planned.several:
        done = sum(outcome.status != "failed" for outcome in outcomes)
        total = len(outcomes) + sum(one.failed for one in planned.skipped)
        terminal.say(f"{done} of {pluralize(total, 'image')} segmented. Summary:", style="bold")
        for path in summary_files(planned):
            terminal.say(f"  {path}")
    values = [_outcome_values(outcome) for outcome in outcomes]
    terminal.result({"files": values, "skipped": planned.to_plain()["skipped"]})
    return int(failed)


def encode(
    image: Path,
    /,
    *more: Path,
    model: Annotated[str, MODEL] = "tiny",
    pattern: str = "",
    channels: ChannelOptions = DEFAULT_CHANNELS,
    compute: ComputeOptions = DEFAULT_COMPUTE,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> int:
    """Encode images ahead, so that the Segment tab answers the first click on them at once.

    Every plane is encoded as the window would do it, and stored in the user's folder of
    embeddings, which the window reads. Planes that are there are skipped: a run that was stopped
    is resumed by starting it again. The embeddings reveal much about the images; *Clear* in the
    Segment tab's *Stack* section removes them.

    ```
    simmat encode data --model vit_b
    simmat encode data --pattern "*.tif" --model thermal --device cuda
    ```

    Parameters
    ----------
    image
        An image, a folder, a pattern or a manifest, as for `simmat segment`.
    more
        More of them.
    model
        The model that the Segment tab will use: a name that `simmat models` lists, or its file.
    pattern
        Files of a folder to use, e.g. *.tif; all images by default.
    """
    from napari_simmat.batch.encode import encode_images_job
    from napari_simmat.batch.plan import SegmentConfig, find_images
    from napari_simmat.engine.embeddings import EmbeddingStore
    from napari_simmat.io.files import format_size

    terminal = console.terminal()
    config = SegmentConfig(model=model, selection=channels.selection, compute=compute)
    store = EmbeddingStore()
    images = find_images([image, *more], pattern=pattern)
    results = terminal.watch(encode_images_job(images, config, store))
    for each in results:
        if each.problem:
            terminal.complain(f"{each.image.name}: {each.problem}")
        else:
            known = f", {each.planes - each.new} of them before" if each.planes > each.new else ""
            terminal.say(f"{each.image.name}: {pluralize(each.planes, 'plane')} encoded{known}")
    planes = sum(each.planes for each in results if not each.problem)
    size = format_size(store.nbytes)
    terminal.say(f"{pluralize(planes, 'plane')} ready; {size} in {store.folder}", "bold")
    values = [asdict(each) | {"image": str(each.image)} for each in results]
    terminal.result({"files": values, "folder": str(store.folder), "bytes": store.nbytes})
    return int(any(each.problem for each in results))


def _print_plan(terminal: Terminal, planned: Plan, only: bool) -> None:
    """Print the number of images, and the skipped ones with the reason."""
    if planned.several or only:
        images = pluralize(len(planned.tasks), "image")
        terminal.say(f"{images} -> {planned.output}", "bold")
        if planned.others:
            others = pluralize(planned.others, "other file")
            terminal.say(f"{others} in the folders without an image's ending")
    if only:
        for task in planned.tasks:
            terminal.say(f"  {task.image} -> {task.files.labels}")
    for one in planned.skipped:
        if one.failed:
            terminal.complain(f"{one.image}: {one.why}")
        else:
            terminal.note(f"{one.image} is left out. {one.why}")


def _print_outcome(terminal: Terminal, outcome: TaskOutcome) -> None:
    name = outcome.task.name
    if outcome.status == "failed":
        terminal.complain(outcome.note)
        return
    objects = pluralize(outcome.objects, "object")
    done = "kept, made the same way" if outcome.status == "kept" else "segmented"
    terminal.say(f"{name}: {objects}, {done} ({outcome.seconds:.1f} s)", style="bold")
    for path in outcome.task.files:
        terminal.say(f"  {path}")
    if outcome.hidden:
        listed = ", ".join(map(str, outcome.hidden))
        terminal.note(f"{name}: {listed} kept no pixel: empty or covered by better masks.")
    if outcome.note:
        terminal.note(f"{name}: {outcome.note}")


def _event_values(progress: Progress) -> dict[str, Any]:
    from napari_simmat.batch.tasks import BatchProgress

    fraction = None if progress.fraction is None else round(progress.fraction, 4)
    values = {**step_values(progress), "fraction": fraction}
    if isinstance(progress, BatchProgress):
        values |= {"number": progress.number, "state": progress.state}
        if progress.left:  # shown beside the bar, where the window would estimate it
            words = progress.message.removesuffix(f", {progress.left}")
            values |= {"message": words, "left": progress.left}
        if progress.outcome is not None:
            values["file"] = _outcome_values(progress.outcome)
    return values


def _outcome_values(outcome: TaskOutcome) -> dict[str, Any]:
    files = outcome.task.files
    values: dict[str, Any] = {
        "image": str(outcome.task.image),
        "prompts": None if outcome.task.prompts is None else str(outcome.task.prompts),
        "status": outcome.status,
        "seconds": round(outcome.seconds, 3),
    }
    if outcome.status == "failed":
        return {**values, "error": outcome.note}
    return {
        **values,
        "objects": outcome.objects,
        "hidden": list(outcome.hidden),
        "labels_file": str(files.labels),
        "objects_file": str(files.objects),
        "record_file": str(files.record),
        **{f"{kind}_file": str(path) for kind, path in files.extras.items()},
        "note": outcome.note,
    }
