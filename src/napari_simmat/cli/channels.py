"""`simmat channels`: derive and register channels, show what a foundation makes of them."""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    from collections.abc import Callable, Mapping, Sequence

    from napari_simmat.batch.channel_images import ChannelImage, MadeChannels
    from napari_simmat.engine.channels.rig import Rig
    from napari_simmat.engine.prompts import Prompt
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
ONE_OF = "{} say the same in different ways; give one of them."
SEVERAL = "Several images are called {}; say which with its folder, e.g. one of {}."
NOT_MEASURED_ON = "There is no image {} to measure on; give one of {}."
FAR_APART = "{} still {} up to {:.1f} pixels apart in the median. {}."
WIDER = "Allow turns and scales, too (--motion affine)"
ELSEWHERE = "Measure on another image (--measure-on), or give another --reference"
NOT_FOUND = (
    "{} cannot be registered onto {}: they show the same edges in too few places of {}. Measure on "
    "another image (--measure-on), give another --reference, leave the channel out (--channels), "
    "or give --shifts."
)
_FAR = 0.7
"""Pixels of residual from which that is said."""
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
) -> int:
    """Compute channels from those of images, and write them as float32 where the image is.

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
    simmat channels derive "flight/{capture}_{band}.tif" ndvi --output ndvi
    ```

    Parameters
    ----------
    image
        The image, in any format that simmat reads; or a folder, a pattern such as
        "flight/{capture}_{band}.tif", or a manifest, of several.
    kind
        What to compute. --channels gives the channels in the order above; without it, they are
        found by their names (nir, 842 nm, Sentinel-2's B8), or taken in their order if none fits.
    output
        A file that ends in .tif (also of a map), .nii.gz, .nrrd or .mha (also of a patient); for
        several images a folder, in which each is called STEM.tif.
    focal
        Focal length of the depth camera in pixels, for hha.
    overwrite
        Replace the output if it exists.
    """
    from napari_simmat.batch.channel_images import MadeChannels
    from napari_simmat.engine.channels.derivation import derive_channels

    terminal = console.terminal()

    def make(one: ChannelImage, _: Path) -> MadeChannels:
        planes = list(one.planes)
        if channels.channels is None:
            planes = [planes[n] for n in _derived_from(kind, one.names, one.name, terminal)]
        return MadeChannels(derive_channels(kind, planes, focal))

    return _make_images(terminal, image, output, channels, slides, make, overwrite=overwrite)


def _derived_from(kind: str, names: Sequence[str], image: str, terminal: Terminal) -> list[int]:
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
        raise ValueError(UNNAMED.format(image, format_list(names), format_list(missing)))
    if not found:
        return list(range(len(names)))
    pairs = [f"{names[found[name]]} as {name}" for name in wanted if names[found[name]] != name]
    if pairs:
        terminal.note(f"{image}: taken by their names: {format_list(pairs)}.")
    return [found[name] for name in wanted]


@channels_app.command
def register(
    image: Path,
    /,
    *,
    output: Annotated[Path, OUTPUT],
    motion: Literal["shift", "rigid", "affine"] = "shift",
    rig: Path | None = None,
    measure_on: str = "",
    shifts: str | None = None,
    reference: str = "0",
    channels: ChannelOptions = DEFAULT_CHANNELS,
    slides: PartOptions = DEFAULT_PART,
    overwrite: Annotated[bool, FLAG] = False,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> int:
    """Move the channels of images onto one of them, and write them where the image is.

    The motions are found by the edges that the channels share, on the middle plane of a stack, and
    printed with what is left of the distance; --shifts takes others, or the same again. The file
    holds them as its description. Pixels that a channel does not cover have no data.

    The cameras of a rig do not move against each other: of several captures the motions are
    measured on one, and applied to all. They are saved beside the results as rig.json, which --rig
    takes for later captures, and shown in rig.webp, before and after. A capture on which channels
    agree much less than on that one is named.

    ```
    simmat channels register rig.tif --output registered.tif
    simmat channels register rig.tif --output registered.tif --shifts "0,0 0,0 0,0 2.4,-3.1"
    simmat channels register "flight/{capture}_{band}.tif" --output registered --motion affine
    simmat channels register "later/{capture}_{band}.tif" --output more --rig registered/rig.json
    ```

    Parameters
    ----------
    image
        The image, in any format that simmat reads; or a folder, a pattern such as
        "flight/{capture}_{band}.tif", or a manifest, of several.
    output
        A file that ends in .tif (also of a map), .nii.gz, .nrrd or .mha (also of a patient); for
        several images a folder, in which each is called STEM.tif.
    motion
        What may lie between two channels: a shift; rigid, also a turn; affine, also scales. The
        last two need SimpleITK: pip install SimpleITK.
    rig
        A rig.json of earlier captures, in place of measuring.
    measure_on
        The capture, of several, to measure on; by default the one in the middle.
    shifts
        For each channel the pixels down and right by which its content is moved.
    reference
        The channel that stays, by name or number, of those in --channels.
    overwrite
        Replace the output if it exists.
    """
    from napari_simmat.batch.channel_images import (
        ChannelImage,
        ChannelSource,
        measure_rig_job,
        plan_targets,
        register_image,
    )
    from napari_simmat.engine.channels.rig import Rig

    terminal = console.terminal()
    given = {"--rig": rig, "--shifts": shifts, "--measure-on": measure_on or None}
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) > 1:
        raise ValueError(ONE_OF.format(" and ".join(chosen)))
    targets = plan_targets(image, output, overwrite=overwrite)
    first = _measured_image(list(targets), measure_on)
    known = None
    if rig is not None:
        known = Rig.load(rig)
    else:
        source = ChannelSource(channels.selection, slides.part)
        read = ChannelImage.read(first, source, targets[first])
        if shifts is None:
            known = terminal.watch(measure_rig_job(read, reference, motion))
            if known.unsure:
                names = ", ".join(known.unsure)
                raise ValueError(NOT_FOUND.format(names, known.reference, read.name))
        else:
            known = _rig_of_shifts(shifts, read, reference)
        if targets[first] != output:
            _save_rig(terminal, known, read, output, overwrite=overwrite)
    _say_rig(terminal, known)
    values = {"shifts": known.shifts, "motions": _motion_values(known)}
    return _make_images(
        terminal,
        image,
        output,
        channels,
        slides,
        lambda one, target: register_image(one, known, target),
        overwrite=overwrite,
        more=values,
    )


def _measured_image(images: Sequence[Path], name: str) -> Path:
    """The image of a name to measure on, without one that in the middle."""
    from napari_simmat._text import format_list
    from napari_simmat.batch.inputs import shown_name
    from napari_simmat.io.captures import home_of

    if not name:
        return images[len(images) // 2]
    root = os.path.commonpath([home_of(image).absolute() for image in images])
    titles = [
        (home_of(image).absolute().relative_to(root) / shown_name(image)).as_posix()
        for image in images
    ]
    found = [
        image
        for image, title in zip(images, titles, strict=True)
        if f"/{title}".endswith(f"/{name}") or name == str(image)
    ]
    if len(found) != 1:
        why = SEVERAL if found else NOT_MEASURED_ON
        raise ValueError(why.format(name, format_list(titles[:5])))
    return found[0]


def _rig_of_shifts(text: str, image: ChannelImage, reference: str) -> Rig:
    """The rig of ``--shifts``."""
    from napari_simmat.batch.channel_images import reference_number
    from napari_simmat.engine.channels.registration import ChannelMotion, matrix_of_shift
    from napari_simmat.engine.channels.rig import Rig

    rows, columns = image.planes[0].shape[-2:]
    shifts = _parse_shifts(text, len(image.planes), (rows, columns))
    motions = [ChannelMotion(matrix_of_shift(*shift)) for shift in shifts]
    return Rig(
        reference=image.names[reference_number(image, reference)],
        motion="shift",
        shape=(rows, columns),
        channels=dict(zip(image.names, motions, strict=True)),
    )


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


def _save_rig(
    terminal: Terminal, rig: Rig, image: ChannelImage, folder: Path, *, overwrite: bool
) -> None:
    """Save what was measured beside the results, and a picture of it."""
    from PIL import Image

    from napari_simmat.batch.channel_images import draw_rig
    from napari_simmat.io.files import atomic_write
    from napari_simmat.io.readers import RIG_PICTURE

    paths = (folder / "rig.json", folder / RIG_PICTURE)
    for path in paths:
        if path.exists() and not overwrite:
            raise ValueError(EXISTS.format(path))
    folder.mkdir(parents=True, exist_ok=True)
    rig.save(paths[0])
    with atomic_write(paths[1]) as temporary:
        Image.fromarray(draw_rig(image, rig)).save(temporary, format="webp", lossless=True)
    for path in paths:
        terminal.say(f"Wrote {path}")


def _say_rig(terminal: Terminal, rig: Rig) -> None:
    """Print the motion of each channel, and what is left."""
    rows = []
    for name, values in _motion_values(rig).items():
        text = {
            key: "" if value is None else f"{value:.{4 if key == 'scale' else 2}f}"
            for key, value in values.items()
        }
        rows.append({"channel": name, **text})
    if rig.measured_on:
        terminal.say(f"Motions onto {rig.reference}, measured on {rig.measured_on}:")
    terminal.say(_shown_rows(rows))
    left = {n: m.residual for n, m in rig.channels.items() if (m.residual or 0) > _FAR}
    if left:
        lie = "lies" if len(left) == 1 else "lie"
        most = max(value or 0 for value in left.values())
        advice = ELSEWHERE if rig.motion == "affine" else WIDER
        terminal.note(FAR_APART.format(", ".join(left), lie, most, advice))


def _motion_values(rig: Rig) -> dict[str, dict[str, float | None]]:
    """Motion in the middle of the image, and residuals in pixels, of each channel."""
    values = {}
    for name, motion in rig.channels.items():
        down, right = motion.shift(rig.shape)
        values[name] = {
            "down": round(down, 3),
            "right": round(right, 3),
            "turn": round(motion.turn, 4),
            "scale": round(motion.scale, 5),
            "distance": motion.distance,
            "residual": motion.residual,
        }
    return values


def _make_images(
    terminal: Terminal,
    image: Path,
    output: Path,
    channels: ChannelOptions,
    slides: PartOptions,
    make: Callable[[ChannelImage, Path], MadeChannels],
    *,
    overwrite: bool,
    more: Mapping[str, object] | None = None,
) -> int:
    """Make a file of each image, and say what became of it; the exit status."""
    from napari_simmat.batch.channel_images import ChannelSource, make_images_job, plan_targets
    from napari_simmat.batch.inputs import shown_name

    targets = plan_targets(image, output, overwrite=overwrite)
    source = ChannelSource(channels.selection, slides.part)
    made = terminal.watch(make_images_job(targets, source, make))
    for each in made:
        name = shown_name(each.image)
        if each.problem:
            terminal.complain(f"{name}: {each.problem}")
            continue
        for note in each.notes:
            terminal.note(f"{name}: {note}")
        terminal.say(f"Wrote {each.file}: {', '.join(each.channels)}")
    files = [{"file": str(each.file), "channels": list(each.channels)} for each in made]
    if len(targets) == 1:
        terminal.result({**files[0], **(more or {})})
    else:
        problems = {str(each.image): each.problem for each in made if each.problem}
        if problems:
            terminal.say(f"{len(made) - len(problems)} of {len(made)} images written.", "bold")
        terminal.result({"files": files, "problems": problems, **(more or {})})
    return int(any(each.problem for each in made))


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

    from napari_simmat.batch.loaded_image import OpenedImage, check_at_once, read_task_prompts
    from napari_simmat.batch.segment_image import label_numbers
    from napari_simmat.checkpoints.loading import load_model
    from napari_simmat.engine.channel_influence import (
        ChannelInfluence,
        channel_influence_job,
        foundation_colors,
    )
    from napari_simmat.engine.drawing import to_rgb
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.io.files import atomic_outputs, write_table
    from napari_simmat.io.pyramid import levels_note
    from napari_simmat.io.readers import open_image, stem_of

    terminal = console.terminal()
    stem = stem_of(image)
    paths = [output / f"{stem}_seen.png"]
    if prompts is not None:
        paths.append(output / f"{stem}_channels.csv")
    for path in paths:
        if path.exists() and not overwrite:
            raise ValueError(EXISTS.format(path))
    file = open_image(image, part=slides.part, in_parts=True)
    opened = OpenedImage.of(file, channels.selection)
    check_at_once(opened, slides.part)
    for note in filter(None, (levels_note(file), *file.notes)):
        terminal.note(f"{file.path.name}: {note}")
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
