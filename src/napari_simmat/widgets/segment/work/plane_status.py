"""`PlaneStatus`: what the status line says of the current plane, said anew as work goes on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_simmat.annotation.predictions import Prediction
from napari_simmat.annotation.prompt_state import Plane, plane_names
from napari_simmat.widgets.segment.layers.images_in_view import is_black, is_even, stretch
from napari_simmat.widgets.segment.layers.open_images import LayerSession
from napari_simmat.widgets.segment.work.inference import InferenceQueue
from napari_simmat.widgets.segment.work.large_plane import LargePlane
from napari_simmat.widgets.segment.work.propagation import Propagation
from napari_simmat.widgets.segment.work.workspace import Workspace
from napari_simmat.widgets.shortcuts import shortcut_text
from napari_simmat.widgets.status_line import Status

READY = "Ready: click on an object, or draw a box or a line around it."
NO_TOOL = "Ready: choose Point, Box or Pen, then mark an object."
PROPAGATED_HERE = (
    "Propagated to this plane: a click corrects it, Commit (<key:commit>) writes all planes."
)
OPEN_ELSEWHERE = "Prompts are open on {planes} too: Propagate ({key}) joins them."
HIDDEN = "{image} is segmented, but {front} lies in front of it."
SHOW_IMAGE = "Show {image}"
STOP_ENCODING = "Stop encoding"
BLACK = "Nothing is to be seen: {image} is black at this contrast."
EVEN = "Nothing is to be seen here of {image}."
STRETCH = "Stretch the contrast"
CUT = "The mask ends where the encoded part does."


class Said(NamedTuple):
    """What was said last of the current plane.

    The status line is made of it: `before`, what a click does or what was predicted, and `after`.
    """

    status: Status
    """What was predicted; of kind ``ready``, without words, what a click does."""
    before: str = ""
    after: tuple[str, ...] = ()
    prediction: Prediction | None = None
    """That this is about."""


class PlaneStatus(QObject):
    """Says what was predicted on the current plane, or what a click on it does.

    Parameters
    ----------
    workspace
        Its status line is used.
    inference, propagation, large_plane
        The work on which the words depend.
    """

    encoding_declined = Signal()
    """The user does without the whole of a large plane."""

    def __init__(
        self,
        workspace: Workspace,
        inference: InferenceQueue,
        propagation: Propagation,
        large_plane: LargePlane,
    ) -> None:
        super().__init__(workspace)
        self._workspace = workspace
        self._inference = inference
        self._propagation = propagation
        self._large = large_plane
        self._said: Said | None = None
        self._composed: Status | None = None  # the status line made of it
        self._shown: Status | None = None  # what the status line shows, whoever said it
        workspace.status.connect(partial(setattr, self, "_shown"))
        large_plane.changed.connect(self.say_on)

    def say_ready(self) -> None:
        """Say what a click on the current plane does."""
        self.say(Said(Status("ready", "")))

    def say_ready_again(self) -> None:
        """Say what a click does now, if the status line still shows what it did before."""
        if self._said is not None and self._said.status.kind == "ready":
            self.say_on()

    def say(self, said: Said) -> None:
        """Say something of the current plane; `say_on` says it again as work goes on."""
        self._said = said
        self._compose()

    def say_on(self) -> None:
        """Say anew what was said last, as long as the status line shows it."""
        if self._shown is not None and self._shown == self._composed:
            self._compose()

    def say_of_the_whole(self) -> None:
        """What was said of a part of the plane is true of the whole now."""
        if self._said is not None:
            self._said = self._said._replace(prediction=None)
            self.say_on()

    def join_hint(self, session: LayerSession, plane: Plane) -> str:
        """Prompts of the same object on another plane would be committed as another object."""
        elsewhere = session.prompt_state.off(plane)
        new = [each for each in elsewhere.planes() if elsewhere.edited_on(each) is None]
        # Of what is linked over time, clicks on two frames tell which link is meant.
        if not new or self._propagation.result is not None or session.time_axis is not None:
            return ""
        return OPEN_ELSEWHERE.format(planes=plane_names(new), key=shortcut_text("propagate"))

    def _compose(self) -> None:
        """Make the status line of what was said, of the plane's encoding, and of what is in sight.

        Its button is for what is most in the way: an image in front, then an encoding.
        """
        said, workspace = self._said, self._workspace
        assert said is not None, "something was said"
        large = self._text_of_part(said.prediction)
        text = said.status.text or self._what_a_click_does()
        black = None if said.status.text else self._black_image()
        if black is not None:
            even = is_even(black)
            text = (EVEN if even else BLACK).format(image=black.name)
        text = " ".join(filter(None, [said.before, text, *said.after, large]))
        status = replace(said.status, text=text)
        if workspace.session is not None and workspace.in_front:
            image = workspace.session.geometry.name
            hidden = HIDDEN.format(image=image, front=workspace.in_front)
            status = replace(status, text=f"{text} {hidden}", offer=SHOW_IMAGE.format(image=image))
            self._composed = status
            workspace.offer(status, workspace.show_image)
        elif black is not None and not even:
            status = replace(status, offer=STRETCH)
            self._composed = status
            workspace.offer(status, partial(self._stretch, black))
        elif large and self._large.busy:
            status = replace(status, offer=STOP_ENCODING)
            self._composed = status
            workspace.offer(status, self.encoding_declined.emit)
        else:
            self._composed = status
            workspace.status.emit(status)

    def _text_of_part(self, prediction: Prediction | None) -> str:
        """What to say of a prediction on a part of its plane; empty for one on the whole."""
        if prediction is None:
            return ""
        text = self._large.text(prediction, self._inference.request)
        if not (text and prediction.cut):
            return text
        return f"{CUT} {text}"

    def _black_image(self) -> Image | None:
        """A layer of the chosen image that is black where it is to be clicked on."""
        workspace = self._workspace
        if workspace.plane_or_none() is None:
            return None
        shown = [each for each in workspace.images if workspace.is_used(each) and each.visible]
        return shown[-1] if shown and all(map(is_black, shown)) else None

    def _stretch(self, image: Image) -> None:
        stretch(image)
        self.say_ready()

    def _what_a_click_does(self) -> str:
        workspace = self._workspace
        session, plane = workspace.session, workspace.plane_or_none()
        if session is None or plane is None:
            return READY
        if session.propagated.get(plane):
            return PROPAGATED_HERE
        text = READY if workspace.prompt_layers.tool else NO_TOOL
        if not all(map(workspace.is_used, workspace.images)):
            text = ready_on(text, session.geometry.name)
        return f"{text} {self.join_hint(session, plane)}".strip()


def ready_on(text: str, image: str) -> str:
    """`READY` or `NO_TOOL` with the name of the image, if there are several."""
    return text.replace("Ready", f"Ready on {image}", 1)
