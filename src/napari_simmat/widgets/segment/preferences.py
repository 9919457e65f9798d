"""What the window remembers between sessions, in a small file in the user's folder."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from qtpy.QtCore import QObject

from napari_simmat.io.files import atomic_write, user_folder
from napari_simmat.widgets.segment.label_editor import Overlap

if TYPE_CHECKING:
    from napari_simmat.widgets.segment.tab import SegmentTab


log = logging.getLogger(__name__)
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The choices of the Segment tab.

    Parameters
    ----------
    model
        Name of the model, or the path of its file; empty for the default.
    overlap
        Who gets the pixels of a new object that others have.
    classes
        Names of the classes, in the order of their numbers.
    category
        The class of new objects.
    open_parts
        Titles of the parts of the form that are open.
    encode_ahead, keep_on_disk
        Whether planes are encoded before they are looked at, and whether embeddings are stored.
    """

    model: str = ""
    overlap: Overlap = "keep"
    classes: tuple[str, ...] = ()
    category: str = ""
    open_parts: tuple[str, ...] = ()
    encode_ahead: bool = True
    keep_on_disk: bool = False


def settings_file() -> Path:
    """Where the settings are kept."""
    return user_folder() / "settings.json"


def load_settings() -> Settings:
    """Read what was remembered; whatever cannot be used is the default."""
    path = settings_file()
    try:
        if path.stat().st_size > _MOST_BYTES:
            return Settings()
        values = json.loads(path.read_text(encoding="utf-8")).get("segment", {})
        return _settings_of(values)
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        log.warning("%s cannot be read; the window starts with its defaults.", path)
        return Settings()


def _settings_of(values: dict[str, Any]) -> Settings:
    """Settings of plain values; raises where they are none."""
    known = {each.name: values[each.name] for each in fields(Settings) if each.name in values}
    for name in ("classes", "open_parts"):
        known[name] = tuple(str(each) for each in known.get(name, ()))
    for name, usual in (("encode_ahead", True), ("keep_on_disk", False)):
        known[name] = known.get(name, usual) is True
    for name in ("model", "category"):
        known[name] = str(known.get(name, ""))
    if known.get("overlap", "keep") not in get_args(Overlap):
        raise ValueError("unknown way to treat overlaps")
    return Settings(**known)


def save_settings(settings: Settings) -> None:
    """Remember; a disk that cannot be written costs no more than the memory."""
    path = settings_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(
                json.dumps({"segment": asdict(settings)}, indent=1) + "\n", encoding="utf-8"
            )
    except OSError as error:
        log.warning("The window's settings could not be saved: %s", error)


# Keeps the Segment tab's choices from one session to the next.


class Remembering(QObject):
    """Sets the tab as it was left, and saves each choice as it is made."""

    def __init__(self, tab: SegmentTab) -> None:
        super().__init__(tab)
        self._tab = tab
        self._folds = {
            "layers": tab.layers_fold,
            "objects": tab.objects_fold,
            "stack": tab.stack_fold,
            "everything": tab.everything_fold,
        }
        self._saved = load_settings()
        self._restore(self._saved)
        tab.models.changed.connect(self._save)
        tab.panel.overlap_chosen.connect(self._save)
        tab.panel.class_chosen.connect(self._save)
        tab.interaction.changed.connect(self._save)  # a name is a class when an object has it
        tab.stack.panel.ahead_chosen.connect(self._save)
        tab.stack.panel.disk_chosen.connect(self._save)
        for fold in self._folds.values():
            fold.toggled.connect(self._save)

    def value(self) -> Settings:
        """The tab's choices as they are now."""
        tab = self._tab
        return Settings(
            model=str(tab.models.reference()),
            overlap=tab.interaction.actions.overlap,
            classes=tuple(tab.interaction.classes.names),
            category=tab.interaction.actions.category,
            open_parts=tuple(name for name, fold in self._folds.items() if fold.is_open),
            encode_ahead=tab.stack.panel.ahead.isChecked(),
            keep_on_disk=tab.stack.panel.disk.isChecked(),
        )

    def _restore(self, settings: Settings) -> None:
        tab = self._tab
        if settings.model:
            self._choose_model(settings.model)
        tab.interaction.actions.overlap = settings.overlap
        tab.panel.set_overlap(settings.overlap)
        tab.interaction.classes.add(settings.classes)
        tab.interaction.actions.category = settings.category
        tab.panel.category.set_names(settings.classes)
        tab.panel.category.set_value(settings.category)
        tab.stack.panel.ahead.setChecked(settings.encode_ahead)
        tab.stack.panel.disk.setChecked(settings.keep_on_disk)
        for name, fold in self._folds.items():
            fold.set_open(name in settings.open_parts)

    def _choose_model(self, reference: str) -> None:
        """Choose a model by its name or file, unless it is gone."""
        path = Path(reference)
        try:
            self._tab.models.set_value(path if path.is_file() else reference)
        except (ValueError, OSError):
            return

    def _save(self, *_: Any) -> None:
        now = self.value()
        if now != self._saved:
            self._saved = now
            save_settings(now)
