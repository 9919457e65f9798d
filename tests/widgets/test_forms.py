"""Forms, commands and JSON of config dataclasses."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QFormLayout, QWidget

from napari_simmat.batch.options import (
    EXTRAS,
    ClusterOptions,
    FileOptions,
    SegmentTableOptions,
    SeriesOptions,
)
from napari_simmat.checkpoints.catalog import sam_spec
from napari_simmat.checkpoints.loading import load_model
from napari_simmat.engine.settings import SAM_THRESHOLDS, WORDS_THRESHOLDS, AutomaticSettings
from napari_simmat.training.config import TrainConfig
from napari_simmat.widgets import forms
from napari_simmat.widgets.batch.request import BatchRequest
from napari_simmat.widgets.forms import (
    EverythingForm,
    Options,
    PathField,
    command_words,
    field_texts,
    shown_fields,
)
from napari_simmat.widgets.train.request import DEFAULT_CONFIG, TrainRequest
from napari_simmat.widgets.train.window_run import FORM_SETTINGS
from tests.widgets.dropping import drop


@dataclass(frozen=True)
class Inner:
    share: float | None = None


@dataclass(frozen=True)
class Config:
    count: Annotated[int, {"label": "Count", "min": 0, "max": 9, "special": "Auto"}] = 0
    rate: Annotated[
        float, {"label": "Rate", "widget_type": "LineEdit", "min": 1e-7, "max": 0.9}
    ] = 3e-4
    kind: Annotated[
        Literal["a", "b"], {"label": "Kind", "choices": [("First", "a"), ("Second", "b")]}
    ] = "a"
    keep: Annotated[bool, {"label": "Keep"}] = True
    name: Annotated[str, {"label": "Name"}] = ""
    sizes: tuple[int, ...] = (1,)
    inner: Inner = Inner()


SAM = sam_spec("mine", "vit_b", "")
NAMES = ("count", "rate", "kind", "keep", "name")
OTHER = Config(count=4, rate=1.5e-3, kind="b", keep=False, name="new")


@pytest.fixture
def options(qtbot):
    widget = QWidget()
    qtbot.addWidget(widget)
    options = Options(Config(), widget)
    options.add_rows(QFormLayout(widget))
    yield options  # noqa: PT022 - the widget lives until then


def changed(value: Any, hint: Any) -> Any:
    """Another value of a field that its control can show."""
    given = hint.__metadata__ if get_origin(hint) is Annotated else ()
    notes = {name: note for each in given if isinstance(each, dict) for name, note in each.items()}
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, "ndvi", "r = minimum(nir, red)")
    if isinstance(value, str) and "choices" in notes:
        return next(other for _, other in notes["choices"] if other != value)
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, int):
        return value + 1
    return 0.75 if value is None or notes.get("max") == 1 else value / 2


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (DEFAULT_CONFIG, FORM_SETTINGS),
        (TrainRequest(), ("name", "modality", "channels")),
        (FileOptions(), ("pattern", *EXTRAS, "report")),
        (SeriesOptions(), ("propagate", "link", "objects", "link_axis")),
        (SegmentTableOptions(), ("statistics", "index", "all_channels", "object_class")),
        (ClusterOptions(), ("scheduler",)),
        (Config(), NAMES),
    ],
)
def test_options_value_reads_back(qtbot, value, names):
    options = Options(value)
    assert options.value() == value
    hints = get_type_hints(type(value), include_extras=True)
    assert shown_fields(type(value)) == names
    for name in names:
        other = replace(value, **{name: changed(getattr(value, name), hints[name])})
        options.set_value(other)
        assert options.value() == other
        options.set_value(value)
        options.show(**{name: getattr(other, name)})
        assert options.value() == other
        options.set_value(value)


@pytest.mark.parametrize(
    "value",
    [
        TrainConfig(),
        TrainRequest(),
        FileOptions(),
        SeriesOptions(),
        SegmentTableOptions(),
        AutomaticSettings(),
    ],
)
def test_options_tooltip_is_the_docstrings_text(qtbot, value):
    options, texts = Options(value), field_texts(type(value))
    for name in shown_fields(type(value)):
        assert " ".join(options[name].toolTip().split()) == texts[name]
        assert len(texts[name]) > 10
    assert "``" not in " ".join(texts.values())


def test_field_texts_joins_lines_and_drops_markup():
    assert field_texts(BatchRequest)["prompts"] == "auto, same-stem or a file."
    assert field_texts(TrainConfig)["steps"].endswith("Training can be stopped at any time.")


def test_everything_form_offers_the_ways_of_a_model(qtbot):
    form = EverythingForm()
    qtbot.addWidget(form)
    by = form.options["by"]
    assert not form.rows.isRowVisible(by)
    form.show_model(replace(SAM, instance_decoder="here"))
    assert form.rows.isRowVisible(by)
    own = by.model().item(by.findText("the model's decoder"))
    assert own.isEnabled()
    assert form.options.shown("quality") == 0.5  # all that it finds
    asked: list[str] = []
    form.asked.connect(lambda: asked.append(form.value().by))
    by.setCurrentIndex(by.findText("clicks"))
    assert asked == ["clicks"]
    assert form.options.shown("quality") == 0.88
    assert form.value().quality is None  # the model's own
    by.setCurrentIndex(by.findText("the model's decoder"))
    form.show_model(SAM)
    assert not own.isEnabled()
    assert form.value().by == "auto"
    assert form.options.shown("quality") == 0.88
    by.setCurrentIndex(by.findText("tiny, outlined by the model"))
    assert form.value().by == "tiny"
    assert form.options.shown("quality") == 0.5


@pytest.mark.parametrize(("option", "value"), [("points_per_side", 8), ("object_side", 20.0)])
def test_everything_form_that_clicks_has_thresholds_of_clicks(qtbot, option, value):
    form = EverythingForm()
    qtbot.addWidget(form)
    form.show_model(replace(SAM, instance_decoder="here"))
    form.options[option].setValue(value)
    wanted = AutomaticSettings(**{option: value}).for_model(SAM).thresholds
    assert (form.options.shown("quality"), form.options.shown("stability")) == wanted


def test_everything_form_grays_idle_settings(qtbot):
    form = EverythingForm()
    qtbot.addWidget(form)
    form.show_model(load_model("tiny").spec)

    def grayed():
        return {name for name in forms.FORM_SETTINGS if not form.options[name].isEnabled()} - {
            "words"
        }

    decoder = {"second_look", "stability", "agreement", "maxima_distance"}
    assert grayed() == decoder
    by = form.options["by"]
    by.setCurrentIndex(by.findText("clicks"))
    assert grayed() == {"maxima_distance"}
    by.setCurrentIndex(by.findData("auto"))
    assert grayed() == decoder
    seeds = form.options["seeds"]
    seeds.setCurrentIndex(seeds.findText("at bright spots"))
    assert grayed() == {"points_per_side", "crop_layers", "second_look"}
    seeds.setCurrentIndex(seeds.findText("on a grid"))
    form.show_seeded(True)
    assert not {"stability", "agreement", "quality"} & grayed()
    assert "second_look" in grayed()


def test_everything_form_value_reads_back(qtbot):
    form = EverythingForm()
    qtbot.addWidget(form)
    expected = AutomaticSettings(second_look=True)
    assert form.value() == expected, "thresholds stay the model's own"
    form.show_model(sam_spec("mine", "sam3", "", with_decoder=True))  # it has all settings
    hints = get_type_hints(AutomaticSettings, include_extras=True)
    for each in fields(AutomaticSettings):
        if each.name == "tile":
            continue
        value = getattr(AutomaticSettings(), each.name)
        other = replace(AutomaticSettings(), **{each.name: changed(value, hints[each.name])})
        form.set_value(other)
        assert form.value() == other


def test_everything_form_has_words_for_models_that_read_them(qtbot):
    form = EverythingForm()
    qtbot.addWidget(form)
    qtbot.addWidget(form.words_row)
    reader, other = (sam_spec("mine", each, "") for each in ("sam3", "vit_b"))
    asked: list[str] = []
    form.asked.connect(lambda: asked.append("asked"))
    form.show_model(reader)
    assert form.words_row.isVisible()
    assert form.options.shown("quality") == SAM_THRESHOLDS[0]
    form.words.setText("yellow leaf ")
    form.words.textEdited.emit("yellow leaf ")
    form.words.editingFinished.emit()
    assert asked
    assert form.value().words == "yellow leaf"
    assert form.value().quality is None
    assert form.options.shown("quality") == WORDS_THRESHOLDS[0]
    form.show_model(other)
    assert not form.words_row.isVisible()
    assert not form.value().words
    assert form.options.shown("quality") == SAM_THRESHOLDS[0]
    form.show_model(reader)
    assert form.value().words == "yellow leaf"


@pytest.mark.parametrize("name", NAMES)
def test_options_changed_by_hand_names_the_field(options, name):
    seen: list[str] = []
    options.changed.connect(seen.append)
    act: dict[str, Callable[[], Any]] = {
        "count": lambda: options["count"].setValue(4),
        "rate": lambda: options["rate"].setText("1.5e-3"),
        "kind": lambda: options["kind"].setCurrentIndex(1),
        "keep": lambda: options["keep"].setChecked(False),
        "name": lambda: options["name"].setText(" new "),
    }
    act[name]()
    assert seen == [name]
    assert options.value() == replace(Config(), **{name: getattr(OTHER, name)})


def test_options_show_numbers_and_special_values(options):
    assert options["count"].text() == "Auto"
    assert options["rate"].text() == "0.0003"
    options["rate"].setText("3e-5")
    assert options.value().rate == 3e-5
    options["rate"].setText("3e-")
    with pytest.raises(ValueError, match=r"^Rate is '.*', not a number between .*: type one"):
        options.value()
    assert options["kind"].currentText() == "First"


def test_options_untouched_field_keeps_its_exact_value(options):
    odd = replace(Config(), rate=1.23456789e-4)
    options.set_value(odd)
    options["count"].setValue(2)
    assert options.value() == replace(odd, count=2)


def test_options_wheel_without_focus_changes_nothing(options):
    for name in ("count", "kind"):
        here, turn = QPointF(2, 2), QPoint(0, -120)
        no_button, no_key = Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier
        phase = Qt.ScrollPhase.NoScrollPhase
        wheel = QWheelEvent(here, here, turn, turn, no_button, no_key, phase, False)
        QApplication.sendEvent(options[name], wheel)
    assert options.value() == Config()


def test_command_words_state_what_is_no_default():
    assert command_words(Config(), omit=("inner",)) == []
    assert command_words(OTHER, prefix="--a.", omit=("inner", "kind")) == [
        "--a.count=4", "--a.rate=0.0015", "--a.no-keep", "--a.name=new",
    ]  # fmt: skip
    assert command_words(Config(sizes=(2, 3)), always=("count",)) == [
        "--count=0", "--sizes=2", "--sizes=3",
    ]  # fmt: skip


def test_form_settings_are_fields_of_the_config():
    assert set(FORM_SETTINGS) <= {each.name for each in fields(TrainConfig)}
    hints = get_type_hints(TrainConfig, include_extras=True)
    strategies = [value for _, value in hints["strategy"].__metadata__[0]["choices"]]
    assert strategies == list(get_args(get_args(hints["strategy"])[0]))


@pytest.mark.parametrize(
    ("kind", "taken"), [("folder", {"d"}), ("file", {"f"}), ("either", {"d", "f"})]
)
def test_path_field_takes_one_path_of_its_kind(kind, taken, tmp_path, qtbot):
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    for name in "df":
        field = PathField(kind, "Title")
        qtbot.addWidget(field)
        assert drop(field, tmp_path / name) is (name in taken)
        assert field.value() == (str(tmp_path / name) if name in taken else "")
        assert not drop(field, tmp_path / "d", tmp_path / "f"), "several are not taken"
