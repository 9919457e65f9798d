"""Keeps the Segment tab's choices from one session to the next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

from napari_simmat.widgets.segment.settings import Settings, load_settings, save_settings

if TYPE_CHECKING:
    from napari_simmat.widgets.segment.tab import SegmentTab


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
