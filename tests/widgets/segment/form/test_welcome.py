"""The first minute: a sample, an object in two actions, and a tour that can be left."""

from qtpy.QtCore import Qt

from napari_simmat.engine.settings import AutomaticSettings
from napari_simmat.widgets.samples import OFFERED
from napari_simmat.widgets.segment.form.welcome import STEPS
from tests.widgets.segment.noted import save_as

COIN, OTHER = (125.0, 206.0), (119.0, 270.0)


def test_a_sample_is_opened_and_an_object_made_in_two_actions(window):
    window.open_widget()
    window.idle()
    assert window.tab.welcome.isVisible()
    window.push(window.tab.welcome.samples[0])
    assert not window.tab.welcome.isVisible()
    assert [layer.name for layer in window.viewer.layers][:1] == ["coins"]
    window.press(*COIN)  # with the tool that is in hand
    window.idle()
    window.commit()
    assert 800 < (window.objects == 1).sum() < 1600
    window.viewer.layers.clear()
    window.idle()
    assert window.tab.welcome.isVisible()


def test_samples_are_real_images_with_a_source():
    for each in OFFERED:
        [(data, _, kind)] = each.make()
        assert kind == "image"
        assert min(data.shape[:2]) > 300
        assert "CC0" in each.source or "no known copyright" in each.source


def test_the_tour_leads_from_a_click_to_a_saved_table(window, tmp_path, monkeypatch):
    window.open_widget()
    window.idle()
    window.push(window.tab.welcome.tour)
    tour = window.tab.tour
    steps = [tour.number]
    window.press(*COIN)
    window.idle()
    steps.append(tour.number)
    window.commit()
    steps.append(tour.number)
    window.tab.automatic_panel.set_value(AutomaticSettings(points_per_side=6))
    window.push(window.tab.automatic_panel.start)
    steps.append(tour.number)
    window.commit()
    steps.append(tour.number)
    assert steps == [0, 1, 2, 3, 4]
    assert "Press Save" in tour.text.text()
    save_as(monkeypatch, tmp_path / "coins_labels.tif")
    window.push(window.tab.object_panel.save)
    window.qtbot.waitUntil(lambda: (tmp_path / "coins_objects.csv").exists())
    window.qtbot.waitUntil(lambda: not tour.isVisible())


def test_the_tour_is_left_at_any_step(window):
    window.open_widget()
    window.idle()
    tour = window.tab.tour
    for step in range(len(STEPS)):
        window.tab.begin_tour()
        for _ in range(step):
            window.push(tour.next)
        assert tour.isVisible()
        window.push(tour.leave)
        assert not tour.isVisible()
    window.press(*OTHER)
    window.key(Qt.Key.Key_C)
    assert tour.number == -1, "it does not come back"
