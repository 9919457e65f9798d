"""The choices of the Segment tab, in a small file of the user's folder."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from napari_simmat.annotation.channel_choice import RememberedChannels
from napari_simmat.annotation.label_editor import Overlap
from napari_simmat.batch.options import SegmentTableOptions
from napari_simmat.engine.settings import Compute
from napari_simmat.io.files import atomic_write, user_folder
from napari_simmat.io.plain import FLAT, from_plain, to_plain
from napari_simmat.widgets.segment.outputs import Look
from napari_simmat.widgets.segment.patient_view import Convention

log = logging.getLogger(__name__)
_MOST_SETTINGS = 1 << 20
"""Bytes; a larger file of settings is not read."""


@dataclass(frozen=True, kw_only=True)
class TabSettings:
    """The choices of the Segment tab."""

    model: str = ""
    """Name of the model, or the path of its file; empty for the default."""
    compute: Annotated[Compute, FLAT] = field(default_factory=Compute)
    """How the model computes."""
    overlap: Overlap = "keep"
    """Which object gets the pixels that a new object shares with others."""
    look: Look = "filled"
    """How objects are drawn."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of their numbers."""
    encode_ahead: bool = True
    keep_on_disk: bool = False
    """Whether planes are encoded before they are shown, and whether embeddings are stored."""
    show_helpers: bool = False
    """Whether napari lists the layers of prompts, preview and outline."""
    planes: Convention = "radiological"
    """How planes of patients are seen."""
    channels: tuple[RememberedChannels, ...] = ()
    """The channels that were chosen by hand, the last first."""
    table: SegmentTableOptions = field(default_factory=SegmentTableOptions)
    """What the table beside saved objects holds."""


def settings_file() -> Path:
    """The file of the settings."""
    return user_folder() / "settings.json"


def load_settings() -> TabSettings:
    """Read the saved settings; the defaults if the file cannot be used."""
    path = settings_file()
    try:
        if path.stat().st_size > _MOST_SETTINGS:
            return TabSettings()
        values = json.loads(path.read_text(encoding="utf-8")).get("segment", {})
        # Settings of other versions are ignored.
        known = set(to_plain(TabSettings())) & set(values)
        return from_plain(TabSettings, {name: values[name] for name in known})
    except FileNotFoundError:
        return TabSettings()
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        log.warning("%s cannot be read; the window starts with its defaults.", path)
        return TabSettings()


def save_settings(settings: TabSettings) -> None:
    """Write the settings; a disk that cannot be written is only logged."""
    path = settings_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(
                json.dumps({"segment": to_plain(settings)}, indent=1) + "\n", encoding="utf-8"
            )
    except OSError as error:
        log.warning("The window's settings could not be saved: %s", error)
