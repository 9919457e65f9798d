"""`simmat evaluate`: measure a model, or the labels of any program, on labeled images."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from napari_simmat._text import pluralize
from napari_simmat.batch.options import FLAG, ChannelOptions
from napari_simmat.cli.segment import AUTOMATIC, DEFAULTS
from napari_simmat.cli.terminal import (
    DEFAULT_CHANNELS,
    DEFAULT_COMPUTE,
    DEFAULT_OUTPUT,
    MODEL,
    OUTPUT,
    ComputeOptions,
    OutputOptions,
    Terminal,
)
from napari_simmat.engine.settings import AutomaticSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_simmat.datasets.folder import LabeledFile
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.settings import ChannelSelection
    from napari_simmat.evaluation.scores import ScoreConfig, Scores
    from napari_simmat.progress import Job

NO_SUBJECT = (
    "Give --model, the model to prompt, or --labels, a folder of label images to compare with the "
    "true objects."
)
NO_MEANING = "--labels compares label images that exist, so {} has no meaning; leave it out."
_OF_A_MODEL = (
    "model", "m", "prompts", "clicks", "max-objects", "channels", "pixel-ratio", "device",
    "precision", "quality",
)  # fmt: skip


@Parameter(name="*", group="Labels of any program")
@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Label images to score instead of a model.

    Parameters
    ----------
    labels
        Folder of label images that any program wrote: for each image STEM.tif one called STEM, or
        STEM_labels, STEM_cp_masks and alike, in any readable format.
    taught
        Folder of label images, named alike, of the objects that the program was given: these
        objects, and labels on them, are left out of the count.
    """

    labels: Path | None = None
    taught: Path | None = None


DEFAULT_LABELS = LabelOptions()


def evaluate(
    data: Path,
    /,
    *,
    model: Annotated[str | None, MODEL] = None,
    others: LabelOptions = DEFAULT_LABELS,
    prompts: Literal["click", "box", "iterative", "paper", "auto", "all"] = "all",
    clicks: int = 4,
    min_size: int = 0,
    max_objects: int | None = None,
    output: Annotated[Path | None, OUTPUT] = None,
    overwrite: Annotated[bool, FLAG] = False,
    channels: ChannelOptions = DEFAULT_CHANNELS,
    automatic: Annotated[AutomaticSettings, AUTOMATIC] = DEFAULTS,
    compute: ComputeOptions = DEFAULT_COMPUTE,
    console: OutputOptions = DEFAULT_OUTPUT,
    typed: Annotated[frozenset[str], Parameter(parse=False)],
) -> None:
    """Measure a model, or the labels of any program, on a folder of labeled images.

    Beside each image STEM.tif is its label image STEM_labels.tif; or the images are in a folder
    images and the labels, with the same names, in a folder labels. Every object is prompted with a
    click in its middle, with clicks that correct the mask, and with its box:

    ```
    simmat evaluate cells --model tiny
    simmat evaluate cells --model tiny --output results
    simmat evaluate cells --model tiny --prompts iterative --clicks 10 --output results
    simmat evaluate cells --model sensor.safetensors --prompts paper --min-size 1000
    simmat evaluate cells --model tiny --prompts click --max-objects 20
    simmat evaluate cells --model tiny --prompts auto --auto.quality 0.7
    ```

    The table shows the mean IoU over the objects of each image after 1, 2, 3, ... clicks and with
    the box, followed by the means over all images and over all objects. A useful model is well
    above the last two columns, which need no model: the filled box, and a disk as large as the
    median object around the click. NoC@80 is the mean number of clicks to reach an IoU of 80 %; all
    clicks count if it is not reached.

    Or score label images that another program made, against the same objects:

    ```
    simmat evaluate cells --labels cellpose
    simmat evaluate cells --labels ilastik --taught five --output results
    ```

    found is the share of objects that a label meets at an IoU of .75, at .5 at that of .5; wrong,
    the labels that meet none at .75, per object; IoU, the mean of the best label of each object;
    AP50 and AP75 the average precision. actions is how many actions per object finish the image at
    least, if each missed object costs one and each wrong label its deletion, unless missed objects
    replace it.

    Parameters
    ----------
    data
        The folder. In a stack, every plane with objects is evaluated.
    model
        A name that `simmat models` lists, or a model's file; not with --labels.
    prompts
        Prompts of the model: iterative is the click and its corrections; all adds the box; paper
        is the protocol of SimMAT's paper (one click on the median of the object's pixels, IoU and
        Dice on 256 x 256 cells); auto segments everything and compares with all objects: average
        precision (AP50, AP75, AP) and panoptic quality (PQ).
    clicks
        Clicks per object with iterative and all, 1 to 20: the first in its middle, each further
        one in the largest wrong region.
    min_size
        Ignore objects with no more pixels than this in an image scaled to 1024 x 1024.
    max_objects
        Objects per image; all by default. Fewer are spread evenly, the same ones each time.
    output
        Folder for results.csv (every object; with auto and --labels every plane), summary.json and
        STEM_overlay.png (predicted objects, with the true outlines in white).
    overwrite
        Replace existing results.
    automatic
        Settings for segmenting everything.
    """
    from napari_simmat.datasets.folder import find_labeled_files, fingerprint
    from napari_simmat.evaluation.evaluate import summary_values
    from napari_simmat.evaluation.scores import ScoreConfig

    terminal = console.terminal()
    if others.labels is not None or model is None:
        _check_label_options(others, typed)
        selection = channels.selection
        _evaluate_labels(terminal, data, others, min_size, selection, output, overwrite=overwrite)
        return
    if others.taught is not None:
        raise ValueError("--taught belongs to --labels; give both, or leave it out.")
    config = ScoreConfig(
        prompts=prompts,
        clicks=clicks,
        min_size=min_size,
        max_objects=max_objects,
        selection=channels.selection,
        automatic=automatic,
    )
    files = find_labeled_files(data)
    _check_folder(output, files, overwrite)
    start = time.monotonic()
    predictor, scores = terminal.watch(_evaluate_job(model, files, config, compute, output))
    seconds = time.monotonic() - start
    contents = fingerprint(files)
    values = summary_values(predictor, scores, config, contents, seconds)

    _show(terminal, scores, config)
    _report(terminal, scores, values, output)


def _check_label_options(others: LabelOptions, typed: frozenset[str]) -> None:
    """Refuse a command without a subject, and options that mean nothing for labels."""
    if others.labels is None:
        raise ValueError(NO_SUBJECT)
    for option in sorted(typed):
        name = option.lstrip("-")
        if option.startswith("-") and (name in _OF_A_MODEL or name.startswith("auto.")):
            raise ValueError(NO_MEANING.format(option))


def _evaluate_labels(
    terminal: Terminal,
    data: Path,
    others: LabelOptions,
    min_size: int,
    selection: ChannelSelection,
    output: Path | None,
    *,
    overwrite: bool,
) -> None:
    """Compare the label images of another program with the true objects."""
    from napari_simmat.datasets.folder import find_labeled_files, fingerprint
    from napari_simmat.datasets.label_folder import check_complete, match_label_files
    from napari_simmat.evaluation.evaluate import label_summary_values
    from napari_simmat.evaluation.evaluate_labels import evaluate_labels_job, hash_of_labels
    from napari_simmat.evaluation.scores import ScoreConfig

    assert others.labels is not None
    config = ScoreConfig(min_size=min_size)
    start = time.monotonic()
    files = find_labeled_files(data)
    labels = match_label_files(others.labels, files)
    check_complete(others.labels, labels, files)
    taught = {} if others.taught is None else match_label_files(others.taught, files)
    _check_folder(output, files, overwrite)
    folders = {path.resolve().parent for path in (*labels.values(), *taught.values())}
    if output is not None and output.resolve() in folders:
        raise ValueError(f"{output} holds the labels; choose another folder for the results.")
    job = evaluate_labels_job(
        files, labels, taught, min_size=min_size, selection=selection, output=output
    )
    scores = terminal.watch(job)
    hashes = {"set": fingerprint(files), "labels": hash_of_labels(labels)}
    if taught:
        hashes["taught"] = hash_of_labels(taught)
    values = label_summary_values(scores, min_size, hashes, time.monotonic() - start)
    _show(terminal, scores, config)
    _report(terminal, scores, values, output)


def _report(
    terminal: Terminal, scores: Scores, values: Mapping[str, Any], output: Path | None
) -> None:
    """Write the tables, and say what was written."""
    from napari_simmat.evaluation.evaluate import write_report

    written = list(scores.overlays)
    if output is not None:
        written = [*write_report(output, scores, values), *written]
    for path in written:
        terminal.say(f"Wrote {path}")
    terminal.result({**values, "files": [str(path) for path in written]})


def _evaluate_job(
    model: str,
    files: Sequence[LabeledFile],
    config: ScoreConfig,
    compute: ComputeOptions,
    output: Path | None,
) -> Job[tuple[Predictor, Scores]]:
    """Check all files, then load the model and evaluate it."""
    from napari_simmat.checkpoints.loading import load_model_job
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.evaluation.evaluate import evaluate_job
    from napari_simmat.progress import Progress

    for done, file in enumerate(files):
        yield Progress(done, len(files), f"{file.name}: checking")
        replace(file, selection=config.selection).read()
    whole = yield from load_model_job(model)
    predictor = Predictor(whole, **asdict(compute))
    scores = yield from evaluate_job(predictor, files, config, output)
    return predictor, scores


def _check_folder(output: Path | None, files: Sequence[LabeledFile], overwrite: bool) -> None:
    """Fail early: check the output folder before the evaluation."""
    from napari_simmat.evaluation.evaluate import RESULTS_FILE, SUMMARY_FILE

    if output is None:
        return
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file, not a folder. Choose another output folder.")
    if output.resolve() in {file.image.resolve().parent for file in files}:
        raise ValueError(f"{output} holds the images; choose another folder for the results.")
    for path in (output / RESULTS_FILE, output / SUMMARY_FILE):
        if path.exists() and not overwrite:
            raise ValueError(
                f"{path} exists already. Use --overwrite to replace it, or another output folder."
            )


def _show(terminal: Terminal, scores: Scores, config: ScoreConfig) -> None:
    """Print the mean IoU of each image, the means over all, and the number of clicks."""
    from napari_simmat.evaluation.scores import TARGET_IOUS

    together = scores.together
    columns, counts = _shown(scores.headline), together.counts
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    table.add_column(together.subject, overflow="fold")
    for heading in (*counts, *columns.values()):
        table.add_column(heading, justify="right", no_wrap=True)

    def add(
        title: str,
        figures: Mapping[str, float],
        own: Mapping[str, int] | None = None,
        of: str = "",
        **how: Any,
    ) -> None:
        cells = (f"{figures[of + each]:.3f}" if of + each in figures else "" for each in columns)
        numbers = ("" if own is None else str(own[name]) for name in counts)
        table.add_row(Text(title), *numbers, *cells, **how)

    for image in scores.images:
        add(image.name, image.headline, image.counts)
    everything = together.figures
    add("mean over images", scores.headline, style="bold")
    all_objects = "all objects" if together.automatic else "mean over objects"
    add(all_objects, everything, counts, style="bold")
    if not together.automatic:
        add("Dice over objects", everything, of="dice_")
    terminal.say(table)
    for percent in TARGET_IOUS:
        if f"noc@{percent}" in everything:
            needed, failed = everything[f"noc@{percent}"], everything[f"failed@{percent}"]
            terminal.say(
                f"NoC@{percent}: {needed:.2f} clicks per object; {100 * failed:.0f} % are below "
                f"{percent} % IoU after {config.clicks}."
            )
    for image in scores.images:
        if image.too_small:
            objects = pluralize(image.too_small, "object")
            terminal.note(f"{image.name}: {objects} left out; {config.needed} are needed.")


def _shown(iou: Mapping[str, float]) -> dict[str, str]:
    """The columns that fit, with their headings: a few numbers of clicks and the last one."""
    from napari_simmat.evaluation.scores import SHOWN_CLICKS, click_column, column_title

    clicks = {click_column(number): number for number in range(1, len(iou) + 1)}
    last = max((number for name, number in clicks.items() if name in iou), default=0)
    shown = {}
    for name in iou:
        number = clicks.get(name)
        if number is None:
            shown[name] = column_title(name).removesuffix(" box").removesuffix("'s click")
        elif number in (*SHOWN_CLICKS, last):
            shown[name] = column_title(name) if number == 1 else str(number)
    return shown
