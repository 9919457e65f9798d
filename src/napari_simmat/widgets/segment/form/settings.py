"""The choices of the Segment tab: in a small file of the user's folder, and in napari's own."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from napari_simmat.annotation.channel_choice import RememberedChannels
from napari_simmat.annotation.label_editor import Overlap
from napari_simmat.batch.options import SegmentTableOptions
from napari_simmat.engine.settings import Compute
from napari_simmat.io.files import atomic_write, user_folder
from napari_simmat.io.plain import FLAT, from_plain, to_plain
from napari_simmat.widgets.segment.layers.outputs import Look
from napari_simmat.widgets.segment.layers.patient_view import Convention

log = logging.getLogger(__name__)
PLUGIN = "napari-simmat"
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


class Preferences:
    """The choices that napari's own dialog of preferences shows too, from napari 0.9 on.

    They live in napari's file then, and all windows follow them. With an older napari, or where it
    does not know the plugin, they live in `settings_file` with the others, and this holds none.
    """

    def __init__(self) -> None:
        self._page = _napari_page()
        self._follow: Callable[..., object] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The choices that are here."""
        return () if self._page is None else tuple(type(self._page).model_fields)

    def over(self, settings: TabSettings) -> TabSettings:
        """`settings` with what napari has."""
        self._renew()
        return _replaced(settings, {name: getattr(self._page, name) for name in self.names})

    def change(self, values: Mapping[str, Any]) -> None:
        """Set those of `values` that are here; napari writes them to its file."""
        self._renew()
        for name in set(self.names) & set(values):
            setattr(self._page, name, values[name])

    def connect(self, follow: Callable[..., object]) -> None:
        """Call `follow` after each change, whoever made it, and where plugins come or go."""
        self._follow = follow
        if self._page is not None:
            self._page.events.connect(follow)
        for changed in _plugin_events():
            changed.connect(follow)

    def disconnect(self) -> None:
        """Undo `connect`."""
        if self._page is not None and self._follow is not None:
            self._page.events.disconnect(self._follow)
        for changed in _plugin_events():
            changed.disconnect(self._follow, missing_ok=True)
        self._follow = None

    def _renew(self) -> None:
        """Take up the page that napari made anew: it does where plugins come or go."""
        page = _napari_page()
        if page is self._page:
            return
        follow = self._follow
        if follow is not None and self._page is not None:
            self._page.events.disconnect(follow)
        if follow is not None and page is not None:
            page.events.connect(follow)
        self._page = page


def _napari_page() -> Any | None:
    try:
        from napari.settings import get_plugin_settings  # since napari 0.9

        return get_plugin_settings(PLUGIN).segment
    except (ImportError, KeyError):
        return None


def _plugin_events() -> tuple[Any, ...]:
    from npe2 import PluginManager

    events = PluginManager.instance().events
    return events.plugins_registered, events.enablement_changed


def settings_file() -> Path:
    """The file of what napari does not keep."""
    return user_folder() / "settings.json"


def load_settings() -> TabSettings:
    """Read the saved settings; the defaults if the file cannot be used.

    What a file of before napari 0.9 has of the preferences is taken over, and leaves the file.
    """
    values = _read_file()
    try:
        settings = _replaced(TabSettings(), values)
    except (ValueError, TypeError, RecursionError):
        log.warning("%s cannot be read; the window starts with its defaults.", settings_file())
        settings, values = TabSettings(), {}
    preferences = Preferences()
    if set(preferences.names) & set(values):
        save_settings(settings)
    return preferences.over(settings)


def save_settings(settings: TabSettings, before: TabSettings | None = None) -> None:
    """Write the settings; a disk that cannot be written is only logged.

    Parameters
    ----------
    settings
        What is written.
    before
        What was written last; what has changed since then is told to napari. None for all.
    """
    plain, old = to_plain(settings), {} if before is None else to_plain(before)
    preferences = Preferences()
    path = settings_file()
    own = {name: value for name, value in plain.items() if name not in preferences.names}
    try:
        preferences.change({name: plain[name] for name in plain if plain[name] != old.get(name)})
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps({"segment": own}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        log.warning("The window's settings could not be saved: %s", error)


def _read_file() -> dict[str, Any]:
    path = settings_file()
    try:
        if path.stat().st_size > _MOST_SETTINGS:
            return {}
        return dict(json.loads(path.read_text(encoding="utf-8")).get("segment", {}))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        log.warning("%s cannot be read; the window starts with its defaults.", path)
        return {}


def _replaced(settings: TabSettings, values: Mapping[str, Any]) -> TabSettings:
    """`settings` with other values; names of other versions are ignored."""
    plain = to_plain(settings)
    return from_plain(TabSettings, plain | {name: values[name] for name in plain if name in values})
