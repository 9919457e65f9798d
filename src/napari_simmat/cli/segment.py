"""`simmat segment`: segment image files with prompts; `simmat encode`: encode them ahead."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import chain
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
    SegmentChannelOptions,
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

if TYPE_CHECKING:
    from napari_simmat.batch.nested import NestedOutcome
    from napari_simmat.batch.plan import Plan, SegmentConfig
    from napari_simmat.batch.segment_image import TaskOutcome
    from napari_simmat.engine.settings import ChannelSelection
    from napari_simmat.io.description import ImageDescription
    from napari_simmat.progress import Job, Progress


MANY_IMAGES = (
    "--channel-files belong to one image, but there are {}; list them in a manifest, with a column "
    "channel_files."
)
DEFAULTS_TAKEN = "{} by {}, into {} (--prompts, --model and --output change that)."
TABLES_STAY = (
    "What an earlier run wrote into the folder, its summary and tables included, is as it was."
)
_NOUNS = {"auto": "Everything", "same-stem": "The prompts beside each image"}
DEFAULT_SEGMENT_CHANNELS = SegmentChannelOptions()
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
    series: SeriesOptions = DEFAULT_SERIES,
    channels: SegmentChannelOptions = DEFAULT_SEGMENT_CHANNELS,
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
    automatic
        Settings for segmenting everything.
    events
        For programs: print a line of JSON for each step; read pause, go and stop from stdin.
    """
    from napari_simmat.batch.inputs import folder_beside
    from napari_simmat.batch.nested import inner_plan, refuse_nested
    from napari_simmat.batch.plan import SegmentConfig

    terminal = console.terminal()
    settings = table.settings  # refused before any file is looked for
    children = channels.of_children
    if children is not None:
        refuse_nested(prompts, slides.part)
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
    within = None if children is None else (inner_plan(planned), children)
    if not events:
        for each in (planned, *(within or ())[:1]):
            _print_plan(terminal, each, only=files.dry_run)
    if files.dry_run:
        return _dry_run(terminal, planned, config, within)
    return _run(terminal, planned, config, within, cluster.scheduler or None, events=events)


def _status(planned: Plan, outcomes: Sequence[TaskOutcome]) -> int:
    failed = any(one.status == "failed" for one in outcomes)
    return int(failed or any(one.failed for one in planned.skipped))


def _dry_run(
    terminal: Terminal,
    planned: Plan,
    config: SegmentConfig,
    within: tuple[Plan, ChannelSelection] | None,
) -> int:
    """Say what a run would refuse; the exit status."""
    values = _check(terminal, planned, config)
    checked = [values]
    if within is not None:
        checked.append(_check(terminal, within[0], replace(config, selection=within[1])))
        values = values | {"children": checked[1]}
    terminal.result(values)
    skipped = any(one.failed for one in planned.skipped)
    return int(skipped or any(each["problems"] for each in checked))


def _run(
    terminal: Terminal,
    planned: Plan,
    config: SegmentConfig,
    within: tuple[Plan, ChannelSelection] | None,
    scheduler: str | None,
    *,
    events: bool,
) -> int:
    """Segment, and find the children `within` if there are to be any; the exit status."""
    from napari_simmat.batch.nested import NestedOutcome, both_plans, segment_nested_job
    from napari_simmat.batch.run_plan import idle_options, run_plan_job

    plans = [planned]
    job: Job[list[TaskOutcome] | NestedOutcome] = run_plan_job(planned, config, scheduler=scheduler)
    if within is not None:
        inner, children = within
        plans.append(inner)
        job = segment_nested_job(planned, inner, config, children, scheduler=scheduler)
    if events:
        print_event(plan=both_plans(*plans).to_plain())
        result = terminal.watch(RemoteControl().steer_job(job, _event_values), logs=False)
    else:
        result = _watch(terminal, job)
    found = result.runs if isinstance(result, NestedOutcome) else (result,)
    if events:
        print_event(finished=sum(map(len, found)))
    else:
        if idle := idle_options(planned, config):
            terminal.note(idle)
        values = [_print_summary(terminal, *each) for each in zip(plans, found, strict=True)]
        tables = result.tables if isinstance(result, NestedOutcome) else ()
        for path in tables:
            terminal.say(f"  {path}")
        nested = {"children": values[-1], "tables": [str(path) for path in tables]}
        terminal.result(values[0] | (nested if within else {}))
    return max(_status(*each) for each in zip(plans, found, strict=True))


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
    from napari_simmat.batch.run_plan import check_plan_job, idle_options, models_that_fit
    from napari_simmat.io.plain import to_plain

    remarks: dict[str, str] = {}
    images: dict[str, ImageDescription] = {}
    problems = terminal.watch(check_plan_job(planned, config, remarks, images))
    for name, image in images.items():
        terminal.say(f"{name}: {image.sentence}")
    for name, remark in remarks.items():
        terminal.note(f"{name}: {remark}")
    if idle := idle_options(planned, config):
        terminal.note(idle)
    for problem in problems.values():
        terminal.complain(problem)
    for first in list(problems)[:1]:
        with suppress(ValueError, OSError):  # as its problem says
            if sentence := models_that_fit(Path(first), config.selection):
                terminal.note(sentence)
    described = {name: to_plain(each) for name, each in images.items()}
    return {**planned.to_plain(), "problems": problems, "remarks": remarks, "images": described}


def _watch(
    terminal: Terminal, job: Job[list[TaskOutcome] | NestedOutcome]
) -> list[TaskOutcome] | NestedOutcome:
    """Run a job, and print each outcome at once: a run may take hours, and its output be a log."""
    from napari_simmat.batch.nested import NestedOutcome
    from napari_simmat.batch.tasks import BatchProgress
    from napari_simmat.progress import map_progress

    shown: dict[int, TaskOutcome] = {}

    def show(progress: Progress) -> Progress:
        if isinstance(progress, BatchProgress) and progress.outcome is not None:
            shown[progress.number] = progress.outcome
            _print_outcome(terminal, progress.outcome)
        return progress

    result = terminal.watch(map_progress(job, show))
    outcomes = chain(*result.runs) if isinstance(result, NestedOutcome) else result
    for number, outcome in enumerate(outcomes):
        if shown.get(number) is not outcome:
            _print_outcome(terminal, outcome)
    return result


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
        if not done:
            terminal.note(TABLES_STAY)
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
