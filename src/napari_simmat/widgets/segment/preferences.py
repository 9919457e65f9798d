"""What the Segment tab remembers between sessions, in a small file in the user's folder."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from napari_simmat.engine.settings import Quality
from napari_simmat.io.files import atomic_write, user_folder
from napari_simmat.widgets.segment.label_editor import Overlap

log = logging.getLogger(__name__)
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class TabSettings:
    """The choices of the Segment tab."""

    model: str = ""
    """Name of the model, or the path of its file; empty for the default."""
    device: str = "auto"
    precision: str = "auto"
    quality: Quality = "fast"
    """How the model computes, as for `Predictor`."""
    overlap: Overlap = "keep"
    """Which object gets the pixels that a new object shares with others."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of their numbers."""
    open_parts: tuple[str, ...] = ()
    closed_parts: tuple[str, ...] = ()
    """Sections of the form that the user opened, and that the user closed."""
    encode_ahead: bool = True
    keep_on_disk: bool = False
    """Whether planes are encoded before they are shown, and whether embeddings are stored."""


def settings_file() -> Path:
    """The file of the settings."""
    return user_folder() / "settings.json"


def load_settings() -> TabSettings:
    """Read the saved settings; the defaults if the file cannot be used."""
    path = settings_file()
    try:
        if path.stat().st_size > _MOST_BYTES:
            return TabSettings()
        values = json.loads(path.read_text(encoding="utf-8")).get("segment", {})
        return _settings_of(values)
    except FileNotFoundError:
        return TabSettings()
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        log.warning("%s cannot be read; the window starts with its defaults.", path)
        return TabSettings()


def _settings_of(values: dict[str, Any]) -> TabSettings:
    """Settings from JSON values; raises if they are malformed. Unknown names are ignored."""
    known = {each.name: values[each.name] for each in fields(TabSettings) if each.name in values}
    for name in ("classes", "open_parts", "closed_parts"):
        known[name] = tuple(str(each) for each in known.get(name, ()))
    for name, usual in (("encode_ahead", True), ("keep_on_disk", False)):
        known[name] = known.get(name, usual) is True
    known["model"] = str(known.get("model", ""))
    for name in ("device", "precision"):
        known[name] = str(known.get(name, "auto"))
    for name, values_of in (("overlap", Overlap), ("quality", Quality)):
        if name in known and known[name] not in get_args(values_of):
            raise ValueError(f"unknown value of {name}")
    return TabSettings(**known)


def save_settings(settings: TabSettings) -> None:
    """Write the settings; a disk that cannot be written is only logged."""
    path = settings_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(
                json.dumps({"segment": asdict(settings)}, indent=1) + "\n", encoding="utf-8"
            )
    except OSError as error:
        log.warning("The window's settings could not be saved: %s", error)
