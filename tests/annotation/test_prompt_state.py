from napari_simmat.annotation.prompt_state import Outline, Prompts, plane_of


def test_prompts_on_and_off_a_plane_are_separated():
    prompts = Prompts(
        points=((0.0, 1.0, 1.0), (2.4, 3.0, 3.0), (1.6, 4.0, 4.0)),
        labels=(1, 0, 1),
        groups=(0, 1, 2),
        outlines=(
            Outline("rectangle", ((2.0, 0.0, 0.0), (2.0, 5.0, 5.0))),
            Outline("path", ((0.0, 0.0, 0.0), (0.0, 5.0, 5.0))),
        ),
    )
    here = prompts.on((2,))
    assert here.points == ((2.4, 3.0, 3.0), (1.6, 4.0, 4.0))
    assert here.labels == (0, 1)
    assert here.groups == (1, 2)
    assert here.outlines == prompts.outlines[:1]
    rest = prompts.off((2,))
    assert rest.points == ((0.0, 1.0, 1.0),)
    assert rest.outlines == prompts.outlines[1:]
    assert plane_of((1.5, -0.5, 7, 7)) == (2, 0)
