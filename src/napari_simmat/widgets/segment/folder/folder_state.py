"""How far somebody went through a folder, and what is known of the image in hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_simmat.widgets.segment.folder.folder_images import FolderImage, ReadImage
from napari_simmat.widgets.segment.folder.folder_review import SeenImages


@dataclass(kw_only=True)
class ImageInHand:
    """The image that was chosen from the list, until another one is.

    Attributes
    ----------
    read
        Its layer and earlier results; None while it is read, and if it cannot be.
    problem
        Why it cannot be opened, or empty.
    is_new
        Whether it is shown, but its work is not restored: that waits until it is chosen.
    unrestored
        The file whose work could not be restored, which therefore is not replaced; or empty.
    is_unsaved
        Whether there is something to save that its log does not tell.
    is_empty
        Whether the user said that it holds no objects.
    """

    read: ReadImage | None = None
    problem: str = ""
    is_new: bool = False
    unrestored: str = ""
    is_unsaved: bool = False
    is_empty: bool = False


@dataclass(kw_only=True)
class FolderState:
    """A list of images, and how far somebody went.

    Attributes
    ----------
    images
        The list; empty before one is chosen.
    number
        Index of the image in hand; -1 for none.
    done
        Indices of the images that have a result.
    seen
        The images that were looked at.
    older
        Names of the batch's files that are older than the corrections, in order.
    output
        The folder of the batch whose images these are; None of a folder that was chosen.
    by_score
        Whether images of which the model was least certain come first.
    in_hand
        The image that is open.
    """

    images: Sequence[FolderImage] = ()
    number: int = -1
    done: set[int] = field(default_factory=set)
    seen: SeenImages = field(default_factory=SeenImages)
    older: dict[str, None] = field(default_factory=dict)
    output: Path | None = None
    by_score: bool = False
    in_hand: ImageInHand = field(default_factory=ImageInHand)
