from pathlib import Path
from typing import Any, get_args

import pytest
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QWidget

from napari_simmat.models.spec import STRATEGY_TITLES, StrategyName
from napari_simmat.training.config import TrainConfig
from napari_simmat.widgets.model_picker import NOT_DOWNLOADED
from napari_simmat.widgets.train.form import CHOOSE_FOLDER, TrainForm
from napari_simmat.widgets.train.request import TrainRequest
from napari_simmat.widgets.train.tab import GainTable
from tests.widgets.dropping import drop


@pytest.fixture
def form(qtbot):
    form = TrainForm(QWidget())
    qtbot.addWidget(form)
    yield form
    form.base.release()


@pytest.mark.parametrize("strategy", get_args(StrategyName))
def test_form_reads_back_what_is_set(form, strategy, qtbot):
    request = TrainRequest(
        name="thermal",
        base="vit_b",
        modality="heat",
        folder="/data",
        channels="0,DAPI",
        pixel_ratio=2.5,
        config=TrainConfig(
            strategy=strategy, steps=77, batch=3, learning_rate=1.25e-4, seed=9, patience=4
        ),
    )
    with qtbot.waitSignal(form.changed):
        form.set_value(request)
    assert form.value() == request
    layers = TrainRequest(name="b", base="vit_b", config=TrainConfig(steps=5))
    form.set_value(layers)
    assert form.value() == layers


def test_only_foundations_are_offered(form):
    titles = [form.base.choice.itemText(n) for n in range(form.base.choice.count())]
    assert any(title.startswith("tiny-6") for title in titles)
    assert any(title.startswith("vit_b") for title in titles)
    assert not any(title.startswith("polarization") for title in titles)
    assert form.value().base == "tiny-6"
    form.base.set_value("polarization")
    base = form.base.value().spec.base.name
    assert form.problem() == (
        f"polarization is a modality checkpoint: train on its base, {base}, instead."
    )
    form.base.set_value("vit_b")
    assert form.problem() == NOT_DOWNLOADED.format(name="vit_b")


def test_learning_rate_follows_the_strategy_until_it_is_set(form):
    assert form.value().config.learning_rate == 1e-3
    choose(form.options["strategy"], "full")
    assert form.value().config.learning_rate == 1e-3
    form.base.set_value("vit_b")
    assert form.value().config.learning_rate == 3e-5
    choose(form.options["strategy"], "adapter")
    assert form.value().config.learning_rate == 3e-4
    form.options["learning_rate"].setText("1e-4")
    choose(form.options["strategy"], "full")
    assert form.value().config.learning_rate == 1e-4
    form.options["learning_rate"].setText("1e-")
    with pytest.raises(ValueError, match="Learning rate is '1e-', not a number between 1e-07 and"):
        form.value()


@pytest.mark.parametrize("strategy", get_args(StrategyName))
def test_strategy_text_is_shown_uncut(form, strategy):
    form.resize(300, 600)
    form.show()
    choose(form.options["strategy"], strategy)
    assert form.options["strategy"].currentText() == strategy
    label = form.strategy_text
    assert label.text().lower() == f"{STRATEGY_TITLES[strategy]}.".lower()
    form.layout().activate()
    assert label.height() >= label.heightForWidth(label.width())


def test_strategy_follows_the_base_until_it_is_chosen(form):
    assert form.value().config.strategy == "lora_conv"
    form.base.set_value("vit_b")
    assert form.value().config.strategy == "lora"
    form.base.set_value("tiny")
    assert form.value().config.strategy == "lora_conv"
    assert form.value().config.learning_rate == 1e-3
    choose(form.options["strategy"], "adapter")
    form.base.set_value("vit_b")
    assert form.value().config.strategy == "adapter"
    form.set_value(TrainRequest(config=TrainConfig(steps=5, strategy="lora")))
    form.base.set_value("vit_b")
    form.base.set_value("tiny")
    assert form.value().config.strategy == "lora", "what a request says is chosen"


def test_a_folder_is_typed_or_dropped(form, tmp_path):
    form.name.setText("new")
    assert form.problem() is None
    form.source.setCurrentIndex(1)
    form._on_changed()
    assert form.problem() == CHOOSE_FOLDER
    QTest.keyClicks(form.folder.path, str(tmp_path / "gone"))
    assert "There is no folder" in str(form.problem())
    assert drop(form.folder, tmp_path)
    assert form.problem() is None
    assert form.value().folder == str(tmp_path)
    assert not drop(form.folder, Path(__file__)), "a file is no folder"
    assert form.value().folder == str(tmp_path)


def test_figures_before_and_after_read_back(qtbot):
    gains = GainTable()
    qtbot.addWidget(gains)
    assert gains.isHidden()
    metrics = {
        "validation": {"click": 70.0},
        "before": {"click": 50.04, "box": 75.0},
        "after": {"click": 80.0, "box": 70.5},
    }
    gains.set_value(metrics)
    assert gains.value() is metrics
    assert not gains.isHidden()
    shown = {name: cell.text() for name, cell in gains.cells.items()}
    assert shown["click", "before"] == "50.0"
    assert shown["click", "after"] == "80.0"
    assert shown["click", "gain"] == "+30.0"
    assert shown["box", "gain"] == "\N{MINUS SIGN}4.5"
    gains.set_value(None)
    assert gains.isHidden()


def choose(choice: Any, data: str) -> None:
    choice.setCurrentIndex(choice.findData(data))
    choice.activated.emit(choice.currentIndex())
