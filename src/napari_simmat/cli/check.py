"""`simmat check`: try the whole program on a device, and write a report that can be sent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from napari_simmat.cli.terminal import DEFAULT_OUTPUT, OutputOptions
from napari_simmat.models.spec import StrategyName

FAILED = "{} of {} checks failed; the report says which: {}"


def check(
    *,
    device: str = "auto",
    foundation: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    strategy: Annotated[tuple[StrategyName, ...], Parameter(consume_multiple=True)] = (),
    output: Path = Path("simmat-check.md"),
    console: OutputOptions = DEFAULT_OUTPUT,
) -> None:
    """Check what a GPU computes in all parts of the program, against the CPU; about ten minutes.

    Encoding and clicks of each foundation in both precisions, two steps of training with each
    strategy, half precision, memory that runs out, and two programs at once. Nothing is downloaded:
    foundations but the built-in one have random weights. Send us the report if something failed, or
    if your kind of device is not known yet.

    ```
    simmat check
    simmat check --device cuda:1 --output second-gpu.md
    simmat check --foundation tiny --strategy lora
    ```

    Parameters
    ----------
    device
        auto (a GPU if there is one), cpu, cuda, cuda:1 or mps.
    foundation
        Only these: tiny, vit_t, vit_b, hiera_tiny, or another architecture.
    strategy
        Only these ways of training, e.g. lora; all by default.
    output
        The report, as Markdown; replaced if it exists.
    """
    from napari_simmat.engine.device import choose_device
    from napari_simmat.io.files import atomic_write, write_text
    from napari_simmat.models.spec import EMBEDDED, STRATEGY_TITLES
    from napari_simmat.models.tuning import ARCHITECTURES
    from napari_simmat.training.device_check import FOUNDATIONS, check_device_job, report

    terminal = console.terminal()
    place = str(choose_device(device))
    known = ("tiny", *(each for each in ARCHITECTURES if each not in EMBEDDED))
    if unknown := [each for each in foundation if each not in known]:
        raise ValueError(f"There is no foundation {unknown[0]!r}; use {', '.join(known)}.")
    job = check_device_job(place, foundation or FOUNDATIONS, strategy or tuple(STRATEGY_TITLES))
    results = terminal.watch(job)
    with atomic_write(output) as temporary:
        write_text(temporary, report(place, results))
    table = Table("check", "", "what was found", box=None, header_style="bold")
    for each in results:
        table.add_row(*(Text(cell) for cell in (each.name, each.state, each.detail)))
    terminal.say(table)
    terminal.say(f"Wrote {output}")
    terminal.result({"device": place, "report": str(output), "checks": [vars(e) for e in results]})
    if failed := [each for each in results if each.state == "FAILED"]:
        raise ValueError(FAILED.format(len(failed), len(results), output))
