"""Views of an image, and the masks that are averaged over them."""

from dataclasses import replace

import pytest
import torch

from napari_simmat.models.multiscale import LevelWindow
from napari_simmat.models.symmetric_views import ALL_VIEWS, AVERAGED_VIEWS
from napari_simmat.models.tuning import build_network
from napari_simmat.progress import finish

HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = build_network("tiny")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("view", ALL_VIEWS)
def test_view_points_stay_on_their_pixel(view):
    image = torch.zeros(1, 5, 7)
    image[0, 1, 4] = 1
    seen = view.apply(image)
    [[x, y]] = view.points(torch.tensor([[[4.0, 1.0]]]), torch.tensor([[1]]), seen.shape[1:])[0]
    assert seen[0, int(y), int(x)] == 1
    assert torch.equal(view.undo(seen), image)


@pytest.mark.parametrize("view", ALL_VIEWS)
def test_view_points_of_a_box_keep_its_lower_corner_first(view):
    image = torch.zeros(1, 5, 7)
    image[0, 1:3, 2:6] = 1
    seen = view.apply(image)
    corners = torch.tensor([[[1.5, 0.5], [5.5, 2.5]], [[0.0, 0.0], [3.0, 3.0]]])
    found = view.points(corners, torch.tensor([[2, 3], [1, -1]]), seen.shape[1:])
    (x0, y0), (x1, y1) = found[0].tolist()
    rows, columns = torch.nonzero(seen[0]).T
    assert (x0, x1) == (columns.min() - 0.5, columns.max() + 0.5)
    assert (y0, y1) == (rows.min() - 0.5, rows.max() + 0.5)


PROMPTS = {
    "click": {"points": [[40.0, 30.0]], "labels": [1.0]},
    "box and click": {
        "points": [[30.0, 20.0]],
        "labels": [0.0],
        "box": torch.tensor([10.0, 12.0, 50.0, 41.5]),
    },
    "mask": {"mask": torch.randn(1, 1, HEIGHT // 2, WIDTH // 2)},
}


def in_window(network, level, window, points, labels, box, mask):
    prompt = {"points": points, "labels": labels, "box": box, "mask": mask}
    given = {name: each for name, each in prompt.items() if each is not None}
    return network._in_window(level, window, given)


@pytest.mark.parametrize("kind", PROMPTS)
@torch.no_grad()
def test_decode_of_views_is_their_mean(network, kind):
    """Each view is encoded and decoded by itself, with prompts and masks turned by hand."""
    image = torch.randn(1, 3, HEIGHT, WIDTH)
    level = finish(network.encode_job(image, averaged=True)).levels[1]
    assert level.scale == 1
    given = PROMPTS[kind]
    points = torch.tensor(given.get("points", [])).reshape(-1, 2)
    labels = torch.tensor(given.get("labels", []))
    prompt = (points, labels, given.get("box"), given.get("mask"))
    found = in_window(network, level, LevelWindow(0, 0, HEIGHT, WIDTH), *prompt)

    def seen(turn, points, box):
        part = replace(network.encode(turn(image)), scale=1)
        whole = LevelWindow(0, 0, *part.input_size)
        mask = None if prompt[3] is None else turn(prompt[3])
        logits, quality = in_window(network, part, whole, points, labels, box, mask)
        return turn(logits), quality  # each of the four turns is its own inverse

    def at(x, y):
        return torch.stack([x, y], -1)

    x, y = points.T
    x0, y0, x1, y1 = prompt[2] if prompt[2] is not None else torch.zeros(4)
    boxes = (
        torch.stack(each) if prompt[2] is not None else None
        for each in (
            (x0, y0, x1, y1),
            (WIDTH - 1 - x1, y0, WIDTH - 1 - x0, y1),
            (x0, HEIGHT - 1 - y1, x1, HEIGHT - 1 - y0),
            (y0, x0, y1, x1),
        )
    )
    turns = (lambda a: a, lambda a: a.flip(-1), lambda a: a.flip(-2), lambda a: a.mT)
    clicks = (at(x, y), at(WIDTH - 1 - x, y), at(x, HEIGHT - 1 - y), at(y, x))
    each = [seen(*one) for one in zip(turns, clicks, boxes, strict=True)]
    for ours, theirs in zip(found, map(torch.stack, zip(*each, strict=True)), strict=True):
        torch.testing.assert_close(ours, theirs.mean(0), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[0], each[0][0], rtol=1e-2, atol=1e-2)  # no view is enough


@pytest.mark.slow
@torch.no_grad()
def test_encode_views_of_a_large_level_is_tiled(network, monkeypatch):
    monkeypatch.setattr("napari_simmat.models.multiscale.MAX_UNTILED_SIDE", 64)
    monkeypatch.setattr("napari_simmat.models.multiscale.TILE_CORE", 64)
    monkeypatch.setattr("napari_simmat.models.multiscale.TILE_HALO", 32)
    encoded = finish(network.encode_job(torch.randn(1, 3, 96, 160), averaged=True))
    for level in encoded.levels:
        own = {name: each.shape[-2:] for name, each in level.maps.items()}
        own["embedding"] = level.embedding.shape[-2:]
        assert len(own) == 4 * len(AVERAGED_VIEWS)
        for name, shape in own.items():
            assert shape == own[name.rpartition(".")[2]]
