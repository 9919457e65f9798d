"""Means over images and over objects, counted by hand."""

from __future__ import annotations

from napari_simmat.evaluation.scores import (
    ImageScores,
    MaskAgreement,
    ObjectScore,
    Scores,
    column_title,
)


def clicked(label: int, *iou: float) -> tuple[tuple[int, ...], ObjectScore]:
    clicks = tuple(MaskAgreement(each, each / 2, each / 4) for each in iou)
    return (), ObjectScore(label, 20, clicks)


SCORES = Scores(
    (
        ImageScores("a", (clicked(1, 0.25, 0.5), clicked(2, 0.75, 0.875), clicked(3, 0.8, 0.95))),
        ImageScores("b", (clicked(1, 1, 0.75),)),
    )
)


def test_a_mean_over_images_counts_each_image_alike() -> None:
    assert SCORES.over_images == {
        "click": 0.8,
        "click+1": (2.325 / 3 + 0.75) / 2,
        "dice_click": 0.4,
        "dice_click+1": (2.325 / 3 + 0.75) / 4,
        "boundary_f_click": 0.2,
        "boundary_f_click+1": (2.325 / 3 + 0.75) / 8,
        "noc@80": (5 / 3 + 1) / 2,  # 2 that count although never reached, 2, 1; and 1
        "failed@80": (1 / 3 + 0) / 2,
        "noc@90": (2 + 1) / 2,  # the third object alone reaches it with its second click
        "failed@90": (2 / 3 + 0) / 2,
    }
    assert list(SCORES.headline) == ["click", "click+1"]


def test_a_mean_over_objects_counts_each_object_alike() -> None:
    means = SCORES.over_objects
    assert SCORES.counts == {"objects": 4}
    assert means["click"] == (0.25 + 0.75 + 0.8 + 1) / 4
    assert means["noc@80"] == (2 + 2 + 1 + 1) / 4
    assert means["failed@90"] == 2 / 4


def test_each_object_has_a_row() -> None:
    first, *_, last = (row for image in SCORES.images for row in image.rows())
    assert (first["image"], first["label"], first["area_px"], first["noc@80"]) == ("a", 1, 20, 2)
    assert (last["image"], last["click+1"], last["noc@90"]) == ("b", 0.75, 1)


def test_columns_have_titles_for_people() -> None:
    titles = {"click": "1 click", "click+1": "2 clicks", "click+9": "10 clicks", "box": "box"}
    assert {column: column_title(column) for column in titles} == titles
