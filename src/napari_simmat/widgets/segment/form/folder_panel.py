"""The part of the form that goes through a folder."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QWidget

from napari_simmat.widgets.controls import Button, MenuButton, hbox, keep_place, text_label, vbox
from napari_simmat.widgets.forms import PathField
from napari_simmat.widgets.shortcuts import shortcut_text


class FolderPanel(QWidget):
    """Chooses a folder, and goes to its next or previous image.

    Attributes
    ----------
    strip
        Goes on, and says where one is; to be laid out where it is always in sight.
    """

    folder_chosen = Signal(str)
    order_chosen = Signal(bool)
    """Whether the images of which the model was least certain come first."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = PathField(
            "folder",
            "Folder of images",
            "Its images are opened one by one; or a pattern of captures, {capture}_{band}.tif",
        )
        self.batch = Button("From Batch tab", tip="Take the images and results of the Batch tab")
        self.batch.hide()
        self.batch.clicked.connect(lambda: self.folder.set_value(""))  # it may be chosen again
        self.next = MenuButton(
            f"Next image  {shortcut_text('next image')}",
            "Save and close; open the next one. The list has the one before",
            splits=True,
        )
        self.previous = self.next.menu().addAction(
            f"Previous image\t{shortcut_text('previous image')}"
        )
        self.empty = Button("No objects here", tip="Save it as done without objects; open the next")
        self.place, self.older = text_label("muted"), text_label("warning")
        self.by_score = QCheckBox("Least certain first")
        self.by_score.setToolTip(
            "Images whose objects have the lowest mean score in their table of objects come first"
        )
        vbox(
            hbox((self.folder, 1), self.batch),
            self.by_score,
            parent=self,
        )
        self.strip = QWidget()
        self._row = QWidget()
        hbox((self.next, 1), (self.empty, 1), parent=self._row)
        keep_place(self._row)
        vbox(self._row, self.place, self.older, parent=self.strip)
        self.by_score.toggled.connect(self.order_chosen)
        self.folder.changed.connect(self._on_folder)
        self.folder.path.editingFinished.connect(self._on_typed)
        self.set_state(can_go=False, place="")

    def set_state(
        self,
        *,
        can_go: bool,
        place: str,
        is_empty: bool = True,
        held: bool = False,
        older: str = "",
    ) -> None:
        """Show where the list stands, whether one can go on, and whether nothing was done here.

        An image is `held` while something is open on it that is committed or discarded first.
        """
        self._row.setVisible(not held)
        self.empty.setVisible(can_go and is_empty)
        self.by_score.setEnabled(can_go or not place)
        self.previous.setEnabled(can_go)
        self.next.setEnabled(can_go)
        self.place.setText(place)
        self.older.setText(older)
        self.older.setVisible(bool(older))
        self.strip.setVisible(bool(place))

    def _on_folder(self) -> None:
        if not self.folder.path.isModified():  # dropped or browsed for
            self.folder_chosen.emit(self.folder.value())

    def _on_typed(self) -> None:
        if self.folder.path.isModified():
            self.folder.path.setModified(False)
            self.folder_chosen.emit(self.folder.value())
