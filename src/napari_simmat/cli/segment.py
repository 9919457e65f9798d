"""`simmat segment`: segment image files with prompts; `simmat encode`: encode them ahead."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from napari_simmat._text import pluralize
from napari_simmat.batch.options import (
    FLAG,
    ChannelOptions,
    ClusterOptions,
    FileOptions,
    PartOptions,
    SegmentTableOptions,
    SeriesOptions,
    SlideOptions,
)
from napari_simmat.cli.terminal import (
    DEFAULT_CHANNELS,
    DEFAULT_COMPUTE,
    DEFAULT_OUTPUT,
    MODEL,
    OUTPUT,
    ComputeOptions,
    OutputOptions,
    RemoteControl,
    Terminal,
    in_pixels,
    print_event,
    step_values,
)
from napari_simmat.engine.settings import AutomaticSettings, Shard
from napari_simmat.io.part import WHOLE, ImagePart

if TYPE_CHECKING:
    from napari_simmat.batch.plan import Plan, SegmentConfig
    from napari_simmat.batch.segment_image import TaskOutcome
    from napari_simmat.progress import Job, Progress


MANY_IMAGES = (
    "--channel-files belong to one image, but there are {}; list them in a manifest, with a column "
    "channel_files."
)
NESTED_PROMPTS = (
    "--children finds everything in two channels, so it takes no prompts; leave --prompts out, or "
    "run simmat segment for each channel and then simmat measure --parents."
)
NESTED_PART = (
    "--children measures whole images; leave --region, --level and --mpp out, or run simmat "
    "segment for each channel."
)
NESTED_EVENTS = "--children is two runs, but --events tells of one; start them one by one."
DEFAULTS_TAKEN = "{} by {}, into {} (--prompts, --model and --output change that)."
_NOUNS = {"auto": "Everything", "same-stem": "The prompts beside each image"}
DEFAULT_FILES = FileOptions()
DEFAULT_SERIES = SeriesOptions()
DEFAULT_TABLE = SegmentTableOptions()
DEFAULT_CLUSTER = ClusterOptions()
DEFAULT_SLIDES = SlideOptions()
DEFAULT_PART = PartOptions()
AUTOMATIC = Parameter(name="auto", group="Segment everything (--prompts auto)")
DEFAULTS = AutomaticSettings()


def segment(
    image: Path,
    /,
    *more: Path,
    model: Annotated[str, MODEL] = "tiny",
    output: Annotated[Path | None, OUTPUT] = None,
    prompts: str = "auto",
    children: Annotated[str, Parameter(group="Channels", show_default=False)] = "",
    series: SeriesOptions = DEFAULT_SERIES,
    channels: ChannelOptions = DEFAULT_CHANNELS,
    slides: SlideOptions = DEFAULT_SLIDES,
    files: FileOptions = DEFAULT_FILES,
    table: SegmentTableOptions = DEFAULT_TABLE,
    automatic: Annotated[AutomaticSettings, AUTOMATIC] = DEFAULTS,
    cluster: ClusterOptions = DEFAULT_CLUSTER,
    events: Annotated[bool, FLAG] = False,
    compute: ComputeOptions = DEFAULT_COMPUTE,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> int:
    """Segment image files: everything, or by the clicks, boxes or masks of a prompt file.

    ```
    simmat segment image.tif
    ```

    segments everything by the model `tiny`, into the folder simmat-results beside the image.

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

    Cells with the nuclei in each, from two channels of one image:

    ```
    simmat segment a.tif --channels membrane --children DAPI --output out
    ```

    Markers of each cell, as spatial omics reads them; vegetation indices of a field:

    ```
    simmat segment a.tif --model tiny --prompts auto --output out --statistics mean,p95 --anndata
    simmat segment a.tif --model tiny --prompts a.csv --output out --index ndvi --index "r=nir/red"
    ```

    A part of a whole slide (SVS, NDPI, SCN or another pyramid) at half a micrometer to a pixel, and
    all nuclei of it where there is tissue:

    ```
    simmat segment slide.svs --model tiny --prompts auto --output out --tissue auto --mpp 0.5
    simmat segment slide.svs --model tiny --prompts a.csv --output out --region 0,0,4096,4096
    ```

    A prompt file is napari's CSV of points (with the columns `label`, 1 on the object or 0 not,
    and `object`, an id), napari's CSV of shapes (each a box), a label image (each label a mask),
    objects of another program (COCO, GeoJSON, ImageJ ROIs; each a mask, a rectangle a box), or an
    earlier record STEM.json, which is replayed, with its channels unless others are given.
    Where masks overlap, the one with the higher score keeps the pixel; of equal scores, that of the
    earlier prompt.

    Parameters
    ----------
    image
        An image (TIFF, OME-Zarr, DICOM, NIfTI, FITS, a picture or another format), a folder, a
        pattern such as "data/**/*.tif", or of captures with a file for each band,
        "data/{capture}_{band}.tif", or a manifest: a CSV with the column image and optionally
        prompts, channels, channel_axis, level, mpp and region.
    more
        More of them.
    model
        A name that `simmat models` lists, or a model's file.
    output
        Output folder, created if needed; simmat-results beside the image by default. Subfolders
        are mirrored in it.
    prompts
        auto to segment everything; a prompt file for all images; or same-stem: for each image the
        file beside it called STEM.csv, STEM_points.csv, STEM_boxes.csv, STEM_shapes.csv or
        STEM_prompts.tif.
    children
        Channels, as of --channels, in which smaller objects are found that lie within the others,
        e.g. nuclei in cells: a second run, into the folder children in that of the output. Two
        tables say how many each object has (simmat-parents.csv), and in which each lies
        (simmat-children.csv).
    automatic
        Settings for segmenting everything.
    events
        For programs: print a line of JSON for each step; read pause, go and stop from stdin.
    """
    from napari_simmat.batch.inputs import folder_beside
    from napari_simmat.batch.nested import CHILDREN_FOLDER
    from napari_simmat.batch.plan import SegmentConfig
    from napari_simmat.batch.run_plan import run_plan_job

    terminal = console.terminal()
    settings = table.settings  # refused before any file is looked for
    if children:
        _refuse_nested(prompts, slides.part, events=events)
    folder = folder_beside(image) if output is None else output
    planned = _planned([image, *more], folder, prompts, files, series, cluster)
    if output is None and not events:
        terminal.say(DEFAULTS_TAKEN.format(_NOUNS.get(prompts, prompts), model, folder))
    config = SegmentConfig(
        model=model,
        selection=channels.selection,
        part=slides.part,
        tissue=slides.tissue,
        compute=compute,
        automatic=automatic,
        propagation=series.propagation,
        link=series.linking,
        table=settings,
        labels_in_memory=files.labels_in_memory,
    )
    scheduler = cluster.scheduler or None
    runs = [(planned, config)]
    if children:
        into = folder / CHILDREN_FOLDER
        inside = _planned([image, *more], into, prompts, files, series, cluster)
        selection = replace(channels, channels=children).selection
        runs.append((inside, replace(config, selection=selection)))
    if events:
        print_event(plan=planned.to_plain())
    else:
        for each, _ in runs:
            _print_plan(terminal, each, only=files.dry_run)
    if files.dry_run:
        checked = [_check(terminal, *run) for run in runs]
        terminal.result(checked[0] | ({"children": checked[1]} if children else {}))
        failed = any(one.failed for each, _ in runs for one in each.skipped)
        return int(failed or any(values["problems"] for values in checked))
    if children:
        return _segment_nested(terminal, runs, scheduler)
    job = run_plan_job(planned, config, scheduler=scheduler)
    if events:
        outcomes = terminal.watch(RemoteControl().steer_job(job, _event_values), logs=False)
        print_event(finished=len(outcomes))
    else:
        outcomes = _watch(terminal, job)
        terminal.result(_print_summary(terminal, planned, outcomes))
    return _status(planned, outcomes)


def _status(planned: Plan, outcomes: Sequence[TaskOutcome]) -> int:
    failed = any(one.status == "failed" for one in outcomes)
    return int(failed or any(one.failed for one in planned.skipped))


def _segment_nested(
    terminal: Terminal,
    runs: Sequence[tuple[Plan, SegmentConfig]],
    scheduler: str | None,
) -> int:
    """Find objects, and those within them, and write which lies in which; the exit status."""
    from napari_simmat.batch.nested import measure_nested_job, nested_tables
    from napari_simmat.batch.run_plan import run_plan_job

    found, values, status = [], [], 0
    for planned, config in runs:
        outcomes = _watch(terminal, run_plan_job(planned, config, scheduler=scheduler))
        values.append(_print_summary(terminal, planned, outcomes))
        status = max(status, _status(planned, outcomes))
        found.append(outcomes)
    planned, config = runs[0]
    outer, inner = found
    job = measure_nested_job(planned, outer, inner, config.table, config.selection)
    tables = nested_tables(planned) if terminal.watch(job) else ()
    for path in tables:
        terminal.say(f"  {path}")
    terminal.result(values[0] | {"children": values[1], "tables": [str(path) for path in tables]})
    return status


def _refuse_nested(prompts: str, part: ImagePart, *, events: bool) -> None:
    """Raise ValueError where objects within objects cannot be found."""
    if prompts != "auto":
        raise ValueError(NESTED_PROMPTS)
    if part != WHOLE:
        raise ValueError(NESTED_PART)
    if events:
        raise ValueError(NESTED_EVENTS)


def encode(
    image: Path,
    /,
    *more: Path,
    model: Annotated[str, MODEL] = "tiny",
    pattern: str = "",
    channels: ChannelOptions = DEFAULT_CHANNELS,
    slides: PartOptions = DEFAULT_PART,
    compute: ComputeOptions = DEFAULT_COMPUTE,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> int:
    """Encode images ahead, so that the Segment tab answers the first click on them at once.

    Every plane is encoded as the window would do it, and stored in the user's folder of
    embeddings, which the window reads. Planes that are there are skipped: a run that was stopped
    is resumed by starting it again. The embeddings reveal much about the images; *Clear* in the
    Segment tab's *Stack* section removes them. Of a large slide, give the level that is chosen
    there.

    ```
    simmat encode data --model vit_b
    simmat encode data --pattern "*.tif" --model thermal --device cuda
    simmat encode slide.svs --level 1
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
    config = SegmentConfig(
        model=model, selection=channels.selection, part=slides.part, compute=compute
    )
    store = EmbeddingStore()
    images = find_images([image, *more], pattern=pattern)
    results = terminal.watch(encode_images_job(images, config, store))
    for each in results:
        if each.problem:
            name = each.image.name
            named = each.problem if each.problem.startswith(name) else f"{name}: {each.problem}"
            terminal.complain(named)
        else:
            known = f", {each.planes - each.new} of them before" if each.planes > each.new else ""
            terminal.say(f"{each.image.name}: {pluralize(each.planes, 'plane')} encoded{known}")
        if each.note:
            terminal.note(f"{each.image.name}: {each.note}")
    planes = sum(each.planes for each in results if not each.problem)
    size = format_size(store.nbytes)
    terminal.say(f"{pluralize(planes, 'plane')} ready; {size} in {store.folder}", "bold")
    values = [asdict(each) | {"image": str(each.image)} for each in results]
    terminal.result({"files": values, "folder": str(store.folder), "bytes": store.nbytes})
    return int(any(each.problem for each in results))


def _planned(
    paths: Sequence[Path],
    output: Path,
    prompts: str,
    files: FileOptions,
    series: SeriesOptions,
    cluster: ClusterOptions,
) -> Plan:
    """All files that a run would read and write."""
    from napari_simmat.batch.inputs import find_inputs
    from napari_simmat.batch.plan import TRACKS, plan

    inputs = find_inputs(paths, pattern=files.pattern, outside=files.allow_outside)
    if files.channel_files:
        if len(inputs.images) != 1:
            raise ValueError(MANY_IMAGES.format(len(inputs.images)))
        inputs.images = [replace(inputs.images[0], channel_files=files.channel_files)]
    return plan(
        inputs,
        output=output,
        prompts=prompts,
        existing=files.existing,
        extras=[*files.extras, *[TRACKS] * series.link],
        shard=Shard.parse(cluster.shard) if cluster.shard else None,
        report=files.report,
    )


def _check(terminal: Terminal, planned: Plan, config: SegmentConfig) -> dict[str, Any]:
    """A dry run: say what a run would refuse; the same as values."""
    from napari_simmat.batch.run_plan import check_plan_job, models_that_fit

    remarks: dict[str, str] = {}
    problems = terminal.watch(check_plan_job(planned, config, remarks))
    for name, remark in remarks.items():
        terminal.note(f"{name}: {remark}")
    for problem in problems.values():
        terminal.complain(problem)
    for image in list(problems)[:1]:
        with suppress(ValueError, OSError):  # as its problem says
            if sentence := models_that_fit(Path(image), config.selection):
                terminal.note(sentence)
    return {**planned.to_plain(), "problems": problems, "remarks": remarks}


def _watch(terminal: Terminal, job: Job[list[TaskOutcome]]) -> list[TaskOutcome]:
    """Run a job, and print each outcome at once: a run may take hours, and its output be a log."""
    from napari_simmat.batch.tasks import BatchProgress
    from napari_simmat.progress import map_progress

    shown: dict[int, TaskOutcome] = {}

    def show(progress: Progress) -> Progress:
        if isinstance(progress, BatchProgress) and progress.outcome is not None:
            shown[progress.number] = progress.outcome
            _print_outcome(terminal, progress.outcome)
        return progress

    outcomes = terminal.watch(map_progress(job, show))
    for number, outcome in enumerate(outcomes):
        if shown.get(number) is not outcome:
            _print_outcome(terminal, outcome)
    return outcomes


def _print_summary(
    terminal: Terminal, planned: Plan, outcomes: Sequence[TaskOutcome]
) -> dict[str, Any]:
    """Print how many images were segmented, and where the summary is; the same as values."""
    from napari_simmat.batch.summary import summary_files
    from napari_simmat.checkpoints.advice import download_sentence
    from napari_simmat.io.captures import proposal_text

    if planned.summarized:
        done = sum(outcome.status != "failed" for outcome in outcomes)
        total = len(outcomes) + sum(one.failed for one in planned.skipped)
        terminal.say(f"{done} of {pluralize(total, 'image')} segmented. Summary:", style="bold")
        for path in summary_files(planned):
            terminal.say(f"  {path}")
    if without := sum(outcome.is_in_pixels for outcome in outcomes):
        terminal.say(in_pixels(without))
    for name in dict.fromkeys(one.better_model for one in outcomes if one.better_model):
        terminal.note(download_sentence(name))
    if planned.proposal and any(outcome.status == "failed" for outcome in outcomes):
        terminal.note(proposal_text(planned.proposal))
    values = [_outcome_values(outcome) for outcome in outcomes]
    return {"files": values, "skipped": planned.to_plain()["skipped"]}


def _print_plan(terminal: Terminal, planned: Plan, only: bool) -> None:
    """Print the number of images, and the skipped ones with the reason."""
    from napari_simmat.batch.inputs import shown_name
    from napari_simmat.io.captures import home_of, proposal_text

    if planned.several or only:
        images = pluralize(len(planned.tasks), "image")
        terminal.say(f"{images} -> {planned.output}", "bold")
        if planned.others:
            others = pluralize(planned.others, "other file")
            terminal.say(
                f"{others} in the folders, without an image's ending or not of the pattern"
            )
    if only:
        for task in planned.tasks:
            image = home_of(task.image) / shown_name(task.image)
            terminal.say(f"  {image} -> {task.files.labels}")
    if only and planned.proposal:
        terminal.note(proposal_text(planned.proposal))
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
        "better_model": outcome.better_model,
        "note": outcome.note,
    }
