"""`simmat evaluate`: how good a model is on labelled images."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.table import Table

from napari_simmat import __version__
from napari_simmat.cli.segment import channels_of
from napari_simmat.cli.terminal import COMPUTE, FLAG, SPEECH, Compute, Speech, Terminal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.learn.labelled import LabelledFile
    from napari_simmat.learn.scoring import ScoreConfig, Scores
    from napari_simmat.progress import Job

TABLE, SUMMARY = "results.csv", "summary.json"


def evaluate(
    data: Path,
    /,
    *,
    model: str,
    prompt: Literal["click", "box", "iterative", "all"] = "all",
    corrections: int = 3,
    most: int | None = None,
    output: Path | None = None,
    history: Path | None = None,
    channels: str | None = None,
    channel_axis: int | None = None,
    overwrite: Annotated[bool, FLAG] = False,
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
    simmat evaluate cells --model tiny --prompt click --most 20 --history history.jsonl
    ```

    The table shows the mean IoU over the objects of each image, and the mean over the images; a
    model is of use where it is well above the last two columns, which need none: the whole box
    (filled), and a disk as large as the median object at the click.

    Parameters
    ----------
    data
        The folder. Of a stack, every plane with objects is evaluated.
    model
        A name that `simmat models` lists, or a model's file.
    prompt
        What the model is asked: iterative is the click and its corrections.
    corrections
        Clicks after the first one, each in the largest wrong region.
    most
        Objects per image; all by default. Fewer are spread evenly, the same ones each time.
    output
        Folder for results.csv (every object), summary.json and STEM_overlay.png (the answers to
        clicks and boxes, the true outlines in white).
    history
        A file that gets one line per run. What is worse by more than 0.02 than in the best earlier
        run on the same images is said.
    channels
        Which channels the model gets, names or numbers from 0 with commas between, e.g. 0,2,DAPI.
    channel_axis
        The axis that holds the channels, counted from 0, if a file does not say.
    overwrite
        Replace results that exist.
    """
    from napari_simmat.learn.history import append_line, read_history, worse
    from napari_simmat.learn.labelled import find_labelled, fingerprint
    from napari_simmat.learn.scoring import ScoreConfig

    terminal = speech.terminal()
    config = ScoreConfig(
        prompt=prompt,
        corrections=corrections,
        most=most,
        channels=channels_of(channels),
        channel_axis=channel_axis,
    )
    files = find_labelled(data)
    _check_output(output, files, overwrite)
    earlier = [] if history is None else read_history(history)
    start = time.monotonic()
    predictor, scores = terminal.watch(_running(model, files, config, compute, output))
    line = _line(predictor, scores, config, fingerprint(files))
    values = _summary(line, scores, predictor, time.monotonic() - start)

    _show(terminal, scores)
    written = list(scores.overlays)
    if output is not None:
        written = [*_write(output, scores, values), *written]
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
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.engine.zoo import loading
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


def _line(
    predictor: Predictor, scores: Scores, config: ScoreConfig, fingerprint: str
) -> dict[str, Any]:
    """The evaluation as a line of the history."""
    spec = predictor.model.spec
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "set": fingerprint,
        "model": spec.name,
        "base": spec.base.name,
        "fingerprint": predictor.model.fingerprint,
        "steps": spec.training.get("steps"),
        "version": __version__,
        "settings": {**config.to_dict(), "precision": predictor.precision},
        "mean": _rounded(scores.figures),
        "images": {
            image.name: {"objects": len(image.scores), **_rounded(image.figures)}
            for image in scores.images
        },
    }


def _summary(
    line: Mapping[str, Any], scores: Scores, predictor: Predictor, seconds: float
) -> dict[str, Any]:
    """The same with what was left out; all but `run` follows from images, model and settings."""
    values = {name: value for name, value in line.items() if name != "date"}
    run = {"date": line["date"], "seconds": round(seconds, 1), "device": predictor.device.type}
    return {**values, "too_small": {i.name: i.too_small for i in scores.images}, "run": run}


def _write(output: Path, scores: Scores, values: Mapping[str, Any]) -> tuple[Path, Path]:
    from napari_simmat.engine.outputs import staged, write_table, write_text

    paths = output / TABLE, output / SUMMARY
    columns = ["image", "plane", "label", "area_px", *scores.figures]
    rows = [row for image in scores.images for row in image.rows()]
    with staged(*paths) as (table, summary):
        write_table(table, columns, rows)
        write_text(summary, json.dumps(values, indent=1, allow_nan=False) + "\n")
    return paths


def _show(terminal: Terminal, scores: Scores) -> None:
    """The table; a correction's column is called after its number alone."""
    from napari_simmat.learn.scoring import SMALLEST

    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    table.add_column("mean IoU", overflow="fold")
    names = [name.removeprefix("click+") for name in scores.figures]
    for name in ("objects", *names):
        heading = f"+{name}" if name.isdecimal() else name.removesuffix("_box")
        table.add_column(heading, justify="right", no_wrap=True)
    for image in scores.images:
        figures = (f"{value:.3f}" for value in image.figures.values())
        table.add_row(image.name, str(len(image.scores)), *figures)
    mean = (f"{value:.3f}" for value in scores.figures.values())
    table.add_row("mean over images", "", *mean, style="bold")
    terminal.say(table)
    for image in scores.images:
        if image.too_small:
            objects = f"{image.too_small} object{'' if image.too_small == 1 else 's'}"
            terminal.note(f"{image.name}: {objects} of fewer than {SMALLEST} pixels left out.")


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    """To six digits, which is far below what can matter."""
    return {name: round(value, 6) for name, value in figures.items()}
