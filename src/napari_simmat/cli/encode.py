"""`simmat encode`: encode images before they are opened in the window."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from napari_simmat._text import pluralize
from napari_simmat.cli.terminal import (
    DEFAULT_CHANNELS,
    DEFAULT_COMPUTE,
    DEFAULT_OUTPUT,
    MODEL,
    ChannelOptions,
    ComputeOptions,
    OutputOptions,
)


def encode(
    image: Path,
    /,
    *more: Path,
    model: Annotated[str, MODEL] = "tiny",
    pattern: str = "",
    channels: ChannelOptions = DEFAULT_CHANNELS,
    compute: ComputeOptions = DEFAULT_COMPUTE,
    speech: OutputOptions = DEFAULT_OUTPUT,
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

    terminal = speech.terminal()
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
