"""`simmat evaluate`: how good a model is on labelled images."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from napari_simmat.cli.segment import DEFAULTS, channels_of
from napari_simmat.cli.terminal import COMPUTE, FLAG, SPEECH, Compute, Speech, Terminal
from napari_simmat.engine.automatic.settings import AutomaticSettings
from napari_simmat.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.learn.labelled import LabelledFile
    from napari_simmat.learn.score_config import ScoreConfig
    from napari_simmat.learn.scores import Scores
    from napari_simmat.progress import Job

AUTOMATIC = Parameter(name="auto", group="Segment everything (--prompt auto)")


def evaluate(
    data: Path,
    /,
    *,
    model: str,
    prompt: Literal["click", "box", "iterative", "paper", "auto", "all"] = "all",
    clicks: int = 4,
    smallest: int = 0,
    most: int | None = None,
    output: Path | None = None,
    history: Path | None = None,
    channels: str | None = None,
    channel_axis: int | None = None,
    pixel_ratio: float = 1.0,
    overwrite: Annotated[bool, FLAG] = False,
    automatic: Annotated[AutomaticSettings, AUTOMATIC] = DEFAULTS,
    compute: Compute = COMPUTE,
    speech: Speech = SPEECH,
) -> None:
    """Measure a model on a folder of labelled images.

    Beside each image STEM.tif lies its label image STEM_labels.tif; or the images lie in a folder
    images and the labels, of the same names, in a folder labels. Every object is prompted with a
    click in its middle, with clicks that correct the answer, and with its box:

    ```
    simmat evaluate cells --model tiny
    simmat evaluate cells --model tiny --output results
    simmat evaluate cells --model tiny --prompt iterative --clicks 10 --output results
    simmat evaluate cells --model sensor.safetensors --prompt paper --smallest 1000
    simmat evaluate cells --model tiny --prompt click --most 20 --history history.jsonl
    simmat evaluate cells --model tiny --prompt auto --auto.quality 0.7
    ```

    The table shows the mean IoU over the objects of each image after 1, 2, 3, ... clicks and with
    the box, and below them the means over all images and over all objects. A model is of use where
    it is well above the last two columns, which need none: the whole box (filled), and a disk as
    large as the median object at the click. NoC@80 is the mean number of clicks until the IoU is
    80 %; where it never is, all clicks count.

    Parameters
    ----------
    data
        The folder. Of a stack, every plane with objects is evaluated.
    model
        A name that `simmat models` lists, or a model's file.
    prompt
        What the model is asked: iterative is the click and its corrections, all is that and the
        box, paper is the protocol of SimMAT's paper (one click on the middle one of the object's
        pixels, IoU and Dice on 256 x 256 cells), auto segments everything and compares with all
        objects: average precision (AP50, AP75, AP) and panoptic quality (PQ).
    clicks
        Clicks into each object with iterative and all, 1 to 20: the first in its middle, each
        further one in the largest wrong region.
    smallest
        Only objects of more pixels, if their image had 1024 x 1024 of them.
    most
        Objects per image; all by default. Fewer are spread evenly, the same ones each time.
    output
        Folder for results.csv (every object; with auto every plane), summary.json,
        STEM_overlay.png (the answers to clicks and boxes, or what was found, the true outlines in
        white) and, but for auto, overlays.png (the worst and best objects of all images).
    history
        A file that gets one line per run. What is worse by more than 0.02 than in the best earlier
        run on the same images is said.
    channels
        Which channels the model gets, names or numbers from 0 with commas between, e.g. 0,2,DAPI.
    channel_axis
        The axis that holds the channels, counted from 0, if a file does not say.
    pixel_ratio
        Height of a pixel over its width, where a file does not say.
    overwrite
        Replace results that exist.
    automatic
        How everything is segmented.
    """
    from napari_simmat.learn.history import append_line, read_history, worse
    from napari_simmat.learn.labelled import find_labelled, fingerprint
    from napari_simmat.learn.report import history_line, summary, write_report
    from napari_simmat.learn.score_config import ScoreConfig

    terminal = speech.terminal()
    config = ScoreConfig(
        prompt=prompt,
        clicks=clicks,
        smallest=smallest,
        most=most,
        channels=channels_of(channels),
        channel_axis=channel_axis,
        pixel_ratio=pixel_ratio,
        automatic=automatic,
    )
    files = find_labelled(data)
    _check_output(output, files, overwrite)
    earlier = [] if history is None else read_history(history)
    start = time.monotonic()
    predictor, scores = terminal.watch(_running(model, files, config, compute, output))
    seconds, contents = time.monotonic() - start, fingerprint(files)
    line = history_line(predictor, scores, config, contents)
    values = summary(predictor, scores, config, contents, seconds)

    _show(terminal, scores, config)
    written = list(scores.overlays)
    if output is not None:
        written = [*write_report(output, scores, values), *written]
    sentences = worse(line, earlier)
    if history is not None:
        append_line(history, line)
        written.append(history)
    for sentence in sentences:
        terminal.note(sentence)
    for path in written:
        terminal.say(f"Wrote {path}")
    terminal.result({**values, "worse": sentences, "files": [str(path) for path in written]})


def _running(
    model: str,
    files: Sequence[LabelledFile],
    config: ScoreConfig,
    compute: Compute,
    output: Path | None,
) -> Job[tuple[Predictor, Scores]]:
    """Everything that is checked without the model comes before it is loaded."""
    from napari_simmat.engine.checkpoints.zoo import loading
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.learn.scoring import scoring
    from napari_simmat.progress import Progress

    for done, file in enumerate(files):
        yield Progress(done, len(files), f"{file.name}: checking")
        file.read(config.channel_axis)
    whole = yield from loading(model)
    predictor = Predictor(whole, device=compute.device, precision=compute.precision)
    scores = yield from scoring(predictor, files, config, output)
    return predictor, scores


def _check_output(output: Path | None, files: Sequence[LabelledFile], overwrite: bool) -> None:
    """Say before the work what would make it vain."""
    from napari_simmat.learn.report import SUMMARY, TABLE

    if output is None:
        return
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file, not a folder. Choose another output folder.")
    if output.resolve() in {file.image.resolve().parent for file in files}:
        raise ValueError(f"{output} holds the images; choose another folder for the results.")
    for path in (output / TABLE, output / SUMMARY):
        if path.exists() and not overwrite:
            raise ValueError(
                f"{path} exists already. Use --overwrite to replace it, or another output folder."
            )


def _show(terminal: Terminal, scores: Scores, config: ScoreConfig) -> None:
    """The mean IoU of each image, the means over all, and how many clicks were needed."""
    from napari_simmat.learn.object_score import TARGETS

    columns, counts = _shown(scores.headline), scores.counts
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    table.add_column("segment everything" if scores.automatic else "mean IoU", overflow="fold")
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
    everything = scores.over_objects
    add("mean over images", scores.headline, style="bold")
    all_objects = "all objects" if scores.automatic else "mean over objects"
    add(all_objects, everything, counts, style="bold")
    for title, of in (("Dice", "dice_"), ("boundary F", "boundary_f_")):
        if any(name.startswith(of) for name in everything):
            add(f"{title} over objects", everything, of=of)
    terminal.say(table)
    for percent in TARGETS:
        if f"noc@{percent}" in everything:
            needed, failed = everything[f"noc@{percent}"], everything[f"failed@{percent}"]
            terminal.say(
                f"NoC@{percent}: {needed:.2f} clicks per object; {100 * failed:.0f} % are below "
                f"{percent} % IoU after {config.clicks}."
            )
    for image in scores.images:
        if image.too_small:
            objects = counted(image.too_small, "object")
            terminal.note(f"{image.name}: {objects} left out; {config.needed} are needed.")


def _shown(iou: Mapping[str, float]) -> dict[str, str]:
    """The columns that have room, with their headings: of the clicks a few numbers and the last."""
    from napari_simmat.learn.object_score import MARKS, click_column, title_of

    clicks = {click_column(number): number for number in range(1, len(iou) + 1)}
    last = max((number for name, number in clicks.items() if name in iou), default=0)
    shown = {}
    for name in iou:
        number = clicks.get(name)
        if number is None:
            shown[name] = title_of(name).removesuffix(" box").removesuffix("'s click")
        elif number in (*MARKS, last):
            shown[name] = title_of(name) if number == 1 else str(number)
    return shown
