"""`simmat channels`: derive channels, and show what a foundation makes of an image's channels."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App
from rich.table import Table

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
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_simmat.engine.prompts import Prompt
    from napari_simmat.progress import Job

channels_app = App(name="channels", help="Derive channels, and show what a model makes of them.")
EXISTS = "{} exists already. Use --overwrite to replace it, or another output."


@channels_app.command
def derive(
    image: Path,
    kind: Literal["polarization", "ndvi", "ct-windows"],
    /,
    *,
    output: Annotated[Path, OUTPUT],
    channels: ChannelOptions = DEFAULT_CHANNELS,
    overwrite: Annotated[bool, FLAG] = False,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> None:
    """Compute channels from those of an image, and write them as a TIFF of float32.

    polarization: intensity, angle (AoLP, degrees) and degree (DoLP) of linear polarization, from
    images at 0, 45, 90 and 135 degrees. ndvi: from red and near infra-red. ct-windows: soft tissue,
    lung and bone as three channels from 0 to 1, from Hounsfield units.

    ```
    simmat channels derive camera.tif polarization --output polarized.tif
    simmat channels derive field.tif ndvi --channels red,nir --output ndvi.tif
    simmat channels derive scan.nii.gz ct-windows --output windows.tif
    ```

    Parameters
    ----------
    image
        The image, in any format that simmat reads.
    kind
        What to compute; --channels gives the channels in the order above.
    output
        The TIFF.
    overwrite
        Replace the output if it exists.
    """
    import numpy as np
    import tifffile

    from napari_simmat.batch.segment_image import without_channels
    from napari_simmat.engine.channels import derive_channels
    from napari_simmat.engine.image_stack import channel_index
    from napari_simmat.io.files import atomic_outputs
    from napari_simmat.io.readers import open_image

    terminal = console.terminal()
    if output.exists() and not overwrite:
        raise ValueError(EXISTS.format(output))
    opened, selection = open_image(image), channels.selection
    axis, axes, _ = without_channels(opened, selection.channel_axis)
    data = np.asarray(opened.data)
    planes = [data] if axis is None else list(np.moveaxis(data, axis, 0))
    names = opened.channel_names if axis == opened.channel_axis else None
    wanted = range(len(planes)) if selection.channels is None else selection.channels
    made = derive_channels(kind, [planes[channel_index(n, len(planes), names)] for n in wanted])
    values = np.stack(list(made.values()), axis=-3)
    with atomic_outputs(output) as (temporary,):
        tifffile.imwrite(
            temporary,
            values,
            ome=True,
            photometric="minisblack",
            metadata={"axes": f"{axes[:-2]}CYX", "Channel": {"Name": list(made)}},
        )
    terminal.say(f"Wrote {output}: {', '.join(made)}")
    terminal.result({"file": str(output), "channels": list(made)})


@channels_app.command
def show(
    image: Path,
    /,
    *,
    model: Annotated[str, MODEL],
    output: Annotated[Path, OUTPUT],
    prompts: Path | None = None,
    channels: ChannelOptions = DEFAULT_CHANNELS,
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

    from napari_simmat.batch.segment_image import (
        label_numbers,
        read_task_prompts,
        without_channels,
    )
    from napari_simmat.checkpoints.loading import load_model
    from napari_simmat.engine.channels import (
        ChannelInfluence,
        channel_influence_job,
        foundation_colors,
    )
    from napari_simmat.engine.drawing import to_rgb
    from napari_simmat.engine.predictor import Predictor
    from napari_simmat.io.files import atomic_outputs, write_table
    from napari_simmat.io.readers import open_image

    terminal, selection = console.terminal(), channels.selection
    paths = [output / f"{image.name.split('.')[0]}_{end}" for end in ("seen.png", "channels.csv")]
    paths = paths if prompts else paths[:1]
    for path in paths:
        if path.exists() and not overwrite:
            raise ValueError(EXISTS.format(path))
    opened = replace(open_image(image), pixel_ratio=selection.pixel_ratio)
    axis, _, shape = without_channels(opened, selection.channel_axis)
    given: Sequence[Prompt] = ()
    if prompts is not None:
        given, _ = read_task_prompts(prompts, shape, opened.reference)
        given = [prompt for prompt in given if prompt.plane == given[0].plane]
    predictor = Predictor(load_model(model), **asdict(compute))
    names = opened.channel_names if axis == opened.channel_axis else None

    def job() -> Job[list[list[ChannelInfluence]]]:
        plane = given[0].plane if given else None
        yield from predictor.set_image_job(
            opened.data,
            axis,
            selection.channels,
            plane,
            names=names,
            pixel_size=opened.pixel_size,
        )
        if not given:
            return []
        return (yield from channel_influence_job(predictor, given))

    influences, numbers = terminal.watch(job()), label_numbers([each.object for each in given])
    rows = [
        {"object": number, **influence._asdict()}
        for number, of_object in zip(numbers, influences, strict=True)
        for influence in of_object
    ]
    output.mkdir(parents=True, exist_ok=True)
    with atomic_outputs(*paths) as (picture, *table):
        Image.fromarray(to_rgb(foundation_colors(predictor))).save(picture, format="png")
        for path in table:
            write_table(path, ["object", *ChannelInfluence._fields], rows)
    if rows:
        shown = Table(*rows[0], box=None, header_style="bold")
        for row in rows:
            shown.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
        terminal.say(shown)
    for path in paths:
        terminal.say(f"Wrote {path}")
    terminal.result({"files": [str(path) for path in paths], "channels": rows})
