"""`simmat channels`: derive and register channels, show what a foundation makes of them."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cyclopts import App
from rich.table import Table

from napari_simmat.batch.options import FLAG, ChannelOptions, PartOptions
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

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_simmat.engine.prompts import Prompt
    from napari_simmat.io.reference import ImageReference
    from napari_simmat.progress import Job

channels_app = App(
    name="channels", help="Derive and register channels, and show what a model makes of them."
)
DEFAULT_PART = PartOptions()
EXISTS = "{} exists already. Use --overwrite to replace it, or another output."
UNNAMED = (
    "{} has the channels {}, of which none or several could be {}; say which with --channels, in "
    "the order of simmat channels derive --help."
)
NO_REFERENCE = "There is no channel {}; give --reference from 0 to {}."
WRONG_SHIFTS = (
    "--shifts {!r} is not one pair of numbers for each of {} channels; write them as 0,0 2.4,-3.1."
)
OUTSIDE = (
    "--shifts moves a channel by {:g},{:g} pixels, so that nothing of it stays on the image of "
    "{} x {}; give smaller shifts, down and right in pixels."
)


@channels_app.command
def derive(
    image: Path,
    kind: Literal["polarization", "ndvi", "ct-windows", "stains", "hha"],
    /,
    *,
    output: Annotated[Path, OUTPUT],
    focal: float | None = None,
    channels: ChannelOptions = DEFAULT_CHANNELS,
    slides: PartOptions = DEFAULT_PART,
    overwrite: Annotated[bool, FLAG] = False,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> None:
    """Compute channels from those of an image, and write them as float32 where the image is.

    polarization: intensity, angle (AoLP, degrees) and degree (DoLP) of linear polarization, from
    images at 0, 45, 90 and 135 degrees. ndvi: from red and near infra-red. ct-windows: soft tissue,
    lung and bone as three channels from 0 to 1, from Hounsfield units. stains: hematoxylin, eosin
    and DAB of stained tissue, from red, green and blue; of a slide give a --region. hha: disparity,
    height above ground and angle with gravity from 0 to 255, from depth in meters, or in whole
    millimeters.

    ```
    simmat channels derive camera.tif polarization --output polarized.tif
    simmat channels derive field.tif ndvi --channels red,nir --output ndvi.tif
    simmat channels derive scan.nii.gz ct-windows --output windows.nii.gz
    simmat channels derive slide.svs stains --region 0,0,2048,2048 --output stains.tif
    simmat channels derive depth.png hha --focal 519 --output hha.tif
    ```

    Parameters
    ----------
    image
        The image, in any format that simmat reads.
    kind
        What to compute. --channels gives the channels in the order above; without it, they are
        found by their names (nir, 842 nm, Sentinel-2's B8), or taken in their order if none fits.
    output
        A file that ends in .tif (also of a map), .nii.gz, .nrrd or .mha (also of a patient).
    focal
        Focal length of the depth camera in pixels, for hha.
    overwrite
        Replace the output if it exists.
    """
    from napari_simmat.engine.channels.derivation import derive_channels
    from napari_simmat.io.channel_files import write_channels

    terminal = console.terminal()
    read = _read_channels(image, channels, slides, output, overwrite, terminal)
    planes = read.planes
    if channels.channels is None:
        planes = [planes[n] for n in _derived_from(kind, read.names, image, terminal)]
    made = derive_channels(kind, planes, focal)
    write_channels(output, made, read.axes, read.reference)
    terminal.say(f"Wrote {output}: {', '.join(made)}")
    terminal.result({"file": str(output), "channels": list(made)})


def _derived_from(kind: str, names: Sequence[str], image: Path, terminal: Terminal) -> list[int]:
    """Which channels are meant where nobody says so: those that have the names, else in order.

    Raises ValueError if some have the names and others have not.
    """
    from napari_simmat._text import format_list
    from napari_simmat.engine.channels.derivation import DERIVATIONS
    from napari_simmat.engine.channels.matching import match_names

    wanted = DERIVATIONS[kind].inputs
    are_named = not all(name.isdecimal() for name in names)
    found = match_names(wanted, names) if are_named else {}
    if found and len(found) < len(wanted):
        missing = [name for name in wanted if name not in found]
        raise ValueError(UNNAMED.format(image.name, format_list(names), format_list(missing)))
    if not found:
        return list(range(len(names)))
    pairs = [f"{names[found[name]]} as {name}" for name in wanted if names[found[name]] != name]
    if pairs:
        terminal.note(f"{image.name}: taken by their names: {format_list(pairs)}.")
    return [found[name] for name in wanted]


@channels_app.command
def register(
    image: Path,
    /,
    *,
    output: Annotated[Path, OUTPUT],
    shifts: str | None = None,
    reference: int = 0,
    channels: ChannelOptions = DEFAULT_CHANNELS,
    slides: PartOptions = DEFAULT_PART,
    overwrite: Annotated[bool, FLAG] = False,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> None:
    """Move the channels of an image onto one of them, and write them where the image is.

    The shifts are found by the edges that the channels share, on the middle plane of a stack, and
    printed; --shifts takes others, or the same again. The file holds them as its description.

    ```
    simmat channels register rig.tif --output registered.tif
    simmat channels register rig.tif --output registered.tif --shifts "0,0 0,0 0,0 2.4,-3.1"
    ```

    Parameters
    ----------
    image
        The image, in any format that simmat reads.
    output
        A file that ends in .tif (also of a map), .nii.gz, .nrrd or .mha (also of a patient).
    shifts
        For each channel the pixels down and right by which its content is moved.
    reference
        The number of the channel that stays, of those in --channels.
    overwrite
        Replace the output if it exists.
    """
    import numpy as np

    from napari_simmat.engine.channels.registration import register_channels_job, shift_channel
    from napari_simmat.io.channel_files import write_channels

    terminal = console.terminal()
    planes, names, axes, place = _read_channels(
        image, channels, slides, output, overwrite, terminal
    )
    if not 0 <= reference < len(planes):
        raise ValueError(NO_REFERENCE.format(reference, len(planes) - 1))
    if shifts is None:
        middle = tuple(size // 2 for size in planes[0].shape[:-2])
        job = register_channels_job([plane[middle] for plane in planes], reference)
        chosen = [(each.down, each.right) for each in terminal.watch(job)]
    else:
        chosen = _parse_shifts(shifts, len(planes), planes[0].shape)
    common = np.result_type(*planes)
    moved = [shift_channel(p.astype(common), s) for p, s in zip(planes, chosen, strict=True)]
    words = " ".join(f"{down:g},{right:g}" for down, right in chosen)
    write_channels(output, dict(zip(names, moved, strict=True)), axes, place, f"shifts: {words}")
    for name, (down, right) in zip(names, chosen, strict=True):
        terminal.say(f"{name}: {down:g} down, {right:g} right")
    terminal.say(f"Wrote {output}; the same again: --shifts {words!r}")
    terminal.result({"file": str(output), "channels": names, "shifts": words})


def _parse_shifts(text: str, count: int, shape: tuple[int, ...]) -> list[tuple[float, float]]:
    """Shifts of `count` channels (..., Y, X); ValueError for others, or for leaving the image."""
    try:
        pairs = [tuple(map(float, pair.split(","))) for pair in text.split()]
    except ValueError:
        pairs = []
    is_finite = all(math.isfinite(value) for pair in pairs for value in pair)
    if [len(pair) for pair in pairs] != [2] * count or not is_finite:
        raise ValueError(WRONG_SHIFTS.format(text, count))
    for down, right in pairs:
        if abs(down) >= shape[-2] or abs(right) >= shape[-1]:
            raise ValueError(OUTSIDE.format(down, right, shape[-2], shape[-1]))
    return [(down, right) for down, right in pairs]


class _ReadChannels(NamedTuple):
    """The chosen channels of an image (..., Y, X), their names and axes, and its place."""

    planes: list[NDArray[Any]]
    names: list[str]
    axes: str
    reference: ImageReference


def _read_channels(
    image: Path,
    channels: ChannelOptions,
    slides: PartOptions,
    output: Path,
    overwrite: bool,
    terminal: Terminal,
) -> _ReadChannels:
    """Read what a command needs, once it is known that its output can hold it."""
    import numpy as np

    from napari_simmat.batch.segment_image import OpenedImage
    from napari_simmat.engine.channels.matching import channel_index
    from napari_simmat.io.channel_files import check_channel_format
    from napari_simmat.io.readers import open_image

    if output.exists() and not overwrite:
        raise ValueError(EXISTS.format(output))
    opened = OpenedImage.of(open_image(image, part=slides.part), channels.selection)
    reference = opened.image.reference
    lost = check_channel_format(output, opened.axes, reference)
    for note in (*opened.image.notes, *filter(None, [lost])):
        terminal.note(f"{image.name}: {note}")
    data = np.asarray(opened.image.data)
    names = opened.channel_names
    planes = [data] if opened.axis is None else list(np.moveaxis(data, opened.axis, 0))
    wanted = range(len(planes)) if opened.channels is None else opened.channels
    chosen = [channel_index(channel, len(planes), names) for channel in wanted]
    named = [names[n] if names else str(n) for n in chosen]
    return _ReadChannels([planes[n] for n in chosen], named, opened.axes, reference)


@channels_app.command
def show(
    image: Path,
    /,
    *,
    model: Annotated[str, MODEL],
    output: Annotated[Path, OUTPUT],
    prompts: Path | None = None,
    channels: ChannelOptions = DEFAULT_CHANNELS,
    slides: PartOptions = DEFAULT_PART,
    overwrite: Annotated[bool, FLAG] = False,
    compute: ComputeOptions = DEFAULT_COMPUTE,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> None:
    """Show what the foundation sees, and how each channel moves the masks.

    Writes STEM_seen.png: the three channels that the model's transfer layer makes of the image's,
    as red, green and blue. With prompts also STEM_channels.csv, a row for each object and channel:
    mean and standard deviation inside the mask (over all channels, the object's spectrum), and the
    channel's influence, 1 minus the IoU of the masks with and without it.

    ```
    simmat channels show camera.tif --model polarization --output seen
    simmat channels show camera.tif --model polarization --prompts clicks.csv --output seen
    ```

    Parameters
    ----------
    image
        The image, in any format that simmat reads; of a stack the plane of the first prompt.
    model
        A name that `simmat models` lists, or a model's file.
    output
        Folder for the results, created if needed.
    prompts
        A prompt file, as for `simmat segment`.
    overwrite
        Replace existing results.
    """
    from PIL import Image

    from napari_simmat.batch.segment_image import OpenedImage, label_numbers, read_task_prompts
    from napari_simmat.checkpoints.loading import load_model
    from napari_simmat.engine.channel_influence import (
        ChannelInfluence,
        channel_influence_job,
        foundation_colors,
    )
    from napari_simmat.engine.drawing import to_rgb
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.io.files import atomic_outputs, write_table
    from napari_simmat.io.readers import open_image

    terminal = console.terminal()
    stem = image.name.split(".")[0]
    paths = [output / f"{stem}_seen.png"]
    if prompts is not None:
        paths.append(output / f"{stem}_channels.csv")
    for path in paths:
        if path.exists() and not overwrite:
            raise ValueError(EXISTS.format(path))
    opened = OpenedImage.of(open_image(image, part=slides.part), channels.selection)
    asked: Sequence[Prompt] = ()
    if prompts is not None:
        given, _ = read_task_prompts(prompts, opened.shape, opened.image.reference)
        asked = [prompt for prompt in given if prompt.plane == given[0].plane]
    predictor = Predictor(load_model(model), **asdict(compute))

    def job() -> Job[list[list[ChannelInfluence]]]:
        plane = asked[0].plane if asked else None
        yield from predictor.set_image_job(**opened.as_read, plane=plane)
        if not asked:
            return []
        return (yield from channel_influence_job(predictor, asked))

    influences = terminal.watch(job())
    numbers = label_numbers([prompt.object for prompt in asked])
    rows = []
    for number, of_object in zip(numbers, influences, strict=True):
        rows += [{"object": number, **influence._asdict()} for influence in of_object]
    output.mkdir(parents=True, exist_ok=True)
    with atomic_outputs(*paths) as (picture, *table):
        Image.fromarray(to_rgb(foundation_colors(predictor))).save(picture, format="png")
        for path in table:
            write_table(path, ["object", *ChannelInfluence._fields], rows)
    if rows:
        terminal.say(_shown_rows(rows))
    for path in paths:
        terminal.say(f"Wrote {path}")
    terminal.result({"files": [str(path) for path in paths], "channels": rows})


def _shown_rows(rows: Sequence[Mapping[str, object]]) -> Table:
    """Rows as a table with three digits."""
    table = Table(*rows[0], box=None, header_style="bold")
    for row in rows:
        cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()]
        table.add_row(*cells)
    return table
