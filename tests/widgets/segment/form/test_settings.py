"""What the window remembers, and what a file that was tampered with costs."""

import json
import logging
import shutil
from typing import get_args

import pytest
from npe2 import PluginManager

from napari_simmat.checkpoints.registry import find_model
from napari_simmat.engine.settings import Compute
from napari_simmat.io.files import user_folder
from napari_simmat.io.plain import field_rules, to_plain
from napari_simmat.widgets.segment.form.settings import (
    PLUGIN,
    TabSettings,
    load_settings,
    save_settings,
    settings_file,
)
from napari_simmat.widgets.segment.tab import USE_TINY
from napari_simmat.widgets.segment.work.object_actions import committed
from tests.widgets.scenes import CENTERS, gray


@pytest.fixture
def page():
    """What napari's dialog of preferences shows and changes."""
    napari_settings = pytest.importorskip("napari.settings")
    if not hasattr(napari_settings, "get_plugin_settings"):
        pytest.skip("napari has preferences of plugins since 0.9")
    return napari_settings.get_plugin_settings(PLUGIN)


@pytest.fixture(params=["in napari", "in a file alone"])
def either_home(request, monkeypatch):
    """With napari's preferences and, as before napari 0.9, without."""
    if request.param == "in a file alone":
        monkeypatch.delattr("napari.settings.get_plugin_settings", raising=False)


def test_preferences_in_the_manifest_are_those_of_the_tab(page):
    plain = to_plain(TabSettings())
    rules = {rule.name: rule for rule in (*field_rules(TabSettings), *field_rules(Compute))}
    assert page.segment.model_dump() == {n: plain[n] for n in type(page.segment).model_fields}
    for name, schema in type(page.segment).model_json_schema()["properties"].items():
        assert tuple(schema.get("enum", ())) == get_args(rules[name].kind)


def test_preferences_are_taken_over_from_an_older_file_once(page):
    older = TabSettings(overlap="overwrite", classes=("a",), compute=Compute(precision="exact"))
    settings_file().write_text(json.dumps({"segment": to_plain(older)}))
    assert load_settings() == older
    assert (page.segment.overlap, page.segment.precision) == ("overwrite", "exact")
    assert not set(json.loads(settings_file().read_text())["segment"]) & set(
        type(page.segment).model_fields
    )
    page.segment.overlap = "keep"
    assert load_settings().overlap == "keep"
    assert "overwrite" not in page.config_path.read_text()


def test_preferences_changed_in_napari_are_shown_and_done(ready, page):
    page.segment.update({"overlap": "overwrite", "look": "contours", "keep_on_disk": True})
    page.segment.planes = "neurological"
    page.segment.device = "cuda:7"
    ready.qtbot.waitUntil(lambda: ready.tab.compute.value().device == "cuda:7")
    tab = ready.tab
    assert (tab.object_panel.overlap.currentText(), tab.controller.objects.overlap) == (
        "overwrite",
        "overwrite",
    )
    assert (tab.object_panel.look.currentData(), tab.drawing.look) == ("contours", "contours")
    assert tab.controller.inference.service.cache.keeps_on_disk
    assert tab.controller.patient_view.convention == "neurological"
    assert load_settings().compute.device == "cuda:7"


def test_preferences_changed_in_the_tab_are_in_napari(ready, page):
    ready.choose(ready.tab.object_panel.overlap, "overwrite")
    ready.choose(ready.tab.object_panel.look, "contours")
    ready.tab.helpers.setChecked(True)
    assert page.segment.overlap == "overwrite"
    assert "contours" in page.config_path.read_text()
    assert "show_helpers: true" in page.config_path.read_text()


def test_preferences_are_followed_after_a_plugin_came(ready, page, tmp_path, monkeypatch):
    """napari then forgets its pages, and its dialog shows new ones."""
    napari_settings = pytest.importorskip("napari.settings")
    monkeypatch.setattr(napari_settings, "_CFG_PATH", str(page.config_path))
    napari_settings._clear_plugin_settings_cache()
    PluginManager.instance().events.plugins_registered.emit(set())
    ready.qtbot.waitUntil(lambda: not ready.tab._follow_later.isActive())
    new = napari_settings.get_plugin_settings(PLUGIN)
    assert new is not page
    new.segment.look = "contours"
    ready.qtbot.waitUntil(lambda: ready.tab.drawing.look == "contours")
    page.segment.look = "filled by class"
    assert not ready.tab._follow_later.isActive()


def test_preferences_are_followed_until_the_tab_is_closed(ready, page):
    tab = ready.tab
    ready.release()
    page.segment.overlap = "overwrite"
    assert not tab._follow_later.isActive()


def test_settings_saved_round_trip(either_home):
    assert load_settings() == TabSettings()
    settings = TabSettings(
        model="tiny-6",
        compute=Compute(device="cuda:1", precision="exact"),
        overlap="overwrite",
        classes=("nucleus", "µ"),
        encode_ahead=False,
        show_helpers=True,
        keep_on_disk=True,
    )
    save_settings(settings)
    assert load_settings() == settings
    assert [path.name for path in settings_file().parent.iterdir()] == ["settings.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"segment": 3}',
        '{"segment": {"overlap": "burn"}}',
        '{"segment": {"classes": 3}}',
        "[" * 100_000,
        "\x00\xff",
    ],
)
def test_settings_malformed_give_the_defaults_and_a_warning(text, caplog):
    settings_file().write_text(text, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert load_settings() == TabSettings()
    assert "cannot be read" in caplog.text


def test_settings_of_a_later_version_ignore_what_is_new():
    settings_file().write_text(
        json.dumps({"segment": {"overlap": "overwrite", "new": 1}, "other": 2})
    )
    assert load_settings() == TabSettings(overlap="overwrite")


def test_settings_that_cannot_be_written_are_logged(caplog, either_home):
    settings_file().mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        save_settings(TabSettings(overlap="overwrite"))
    assert "could not be saved" in caplog.text


def test_settings_of_the_last_window_open_the_next(either_home, ready, open_window):
    first = ready
    own = user_folder("models") / "mine.safetensors"
    own.parent.mkdir(exist_ok=True)
    shutil.copyfile(str(find_model("tiny-6").path), own)
    first.tab.models.refresh()
    first.tab.models.set_value("mine")
    first.idle()
    first.tab.encoding_panel.disk.setChecked(True)
    first.choose(first.tab.object_panel.overlap, "overwrite")
    first.type_class("nucleus")
    first.choose(first.tab.object_panel.look, "contours")
    chosen = first.tab.models.reference()
    first.release()

    second = open_window()
    second.viewer.add_image(gray(), name="discs")
    second.open_widget()
    assert second.tab.models.reference() == chosen
    assert second.tab.object_panel.overlap.currentText() == "overwrite"
    assert second.tab.object_panel.look.currentData() == second.tab.drawing.look == "contours"
    assert second.controller.objects.overlap == "overwrite"
    assert second.tab.encoding_panel.disk.isChecked()
    assert second.controller.inference.service.cache.keeps_on_disk
    assert not second.tab.sections["everything"].is_open
    second.idle()
    second.add_object(*CENTERS[0])
    assert second.status.text.startswith(committed("SimMAT objects", [1], "") + " Next")
    assert "SimMAT classes" not in second.viewer.layers, "the class was meant for another image"
    second.type_class("nucleus")
    second.add_object(*CENTERS[1])
    assert second.status.text.startswith(committed("SimMAT objects", [2], "nucleus"))
    assert list(second.viewer.layers["SimMAT classes"].features["class"]) == ["nucleus"]


def test_settings_with_an_unfit_model_offer_tiny(window):
    save_settings(TabSettings(model="polarization"))
    window.open(gray(), name="discs")
    assert window.status.kind == "nothing", "not an error: the user has done nothing yet"
    assert window.status.offer == USE_TINY
    window.push(window.tab.status.offer)
    assert window.tab.models.is_embedded
    window.click(*CENTERS[0])
    assert window.status.kind == "done"
    window.tab.models.set_value("polarization")
    window.idle()
    assert (window.status.kind, window.status.offer) == ("failed", USE_TINY)


def test_settings_with_a_deleted_model_give_the_default(window):
    save_settings(TabSettings(model="/nowhere/mine.safetensors"))
    window.open_widget()
    assert str(window.tab.models.reference()).startswith("tiny")
