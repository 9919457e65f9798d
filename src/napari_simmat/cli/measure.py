"""`simmat measure`: the table of the objects that any program labeled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from napari_simmat._text import pluralize
from napari_simmat.batch.options import MeasureOptions, TableOptions
from napari_simmat.cli.terminal import DEFAULT_OUTPUT, OUTPUT, OutputOptions, in_pixels

DEFAULT_TABLE = TableOptions()
DEFAULT_MEASURE = MeasureOptions()


def measure(
    image: Path,
    labels: Path,
    /,
    *more: Path,
    output: Annotated[Path, OUTPUT],
    table: TableOptions = DEFAULT_TABLE,
    measuring: MeasureOptions = DEFAULT_MEASURE,
    console: OutputOptions = DEFAULT_OUTPUT,
) -> None:
    """Measure the objects that any program labeled: a row for each.

    The columns are those of `simmat segment`: size, place, shape, and statistics of each channel
    and index.

    ```
    simmat measure cells.tif cells_labels.tif --output cells.csv
    simmat measure cells.tif nuclei.tif --parents cells_labels.tif --output nuclei.csv
    simmat measure cells.tif regions.geojson --children cells_labels.tif --output regions.csv
    simmat measure codex.ome.tif cells.tif --statistics mean,p95 --output cells.h5ad
    simmat measure field.tif plots.geojson --index ndvi --index "r=nir/red" --output plots.parquet
    simmat measure images labels --output all.csv
    ```

    Parameters
    ----------
    image
        An image; or a folder of images, all of whose objects get into one table.
    labels
        Its objects: a label image of any readable format, COCO, GeoJSON or ImageJ ROIs. Of a folder
        of images, the folder of their label images: for STEM.tif one called STEM, or STEM_labels,
        STEM_cp_masks and alike.
    more
        More label images of the one image; a column says which a row is of.
    output
        The table: its name ends in .csv, .parquet (needs pyarrow) or .h5ad (AnnData for scanpy and
        squidpy, needs anndata).
    """
    from napari_simmat.batch.measure import find_tasks, measure_tasks_job, summary_line

    terminal = console.terminal()
    settings = table.settings
    tasks = find_tasks(image, [labels, *more], measuring.parents, measuring.children)
    job = measure_tasks_job(
        tasks,
        output,
        table=settings,
        selection=measuring.selection,
        overwrite=measuring.overwrite,
    )
    done = terminal.watch(job)
    for each in done:
        terminal.say(summary_line(each))
        for note in each.notes:
            terminal.note(f"{each.task.image.name}: {note}")
    count = sum(len(each.rows) for each in done)
    terminal.say(f"{pluralize(count, 'row')} in {output}", style="bold")
    if without := sum(each.reference.of("X") is None for each in done):
        terminal.say(in_pixels(without))
    files = [
        {"image": str(each.task.image), "labels": str(path), "objects": objects}
        for each in done
        for path, objects in each.counts.items()
    ]
    notes = {str(each.task.image): list(each.notes) for each in done if each.notes}
    terminal.result({"table": str(output), "rows": count, "files": files, "notes": notes})
