"""The command that does the same as a form."""

import tomllib

from napari_simmat.widgets.command_line import settings_text


def test_settings_text_of_arguments_is_the_same_as_toml():
    words = ["segment", "my images", '--model=a "b"', "--rois", "--no-link", "--auto.seeds=maxima"]
    text = settings_text([*words, "--prompts=click", "--prompts=box"])
    assert tomllib.loads(text) == {
        "segment": {
            "model": 'a "b"',
            "rois": True,
            "link": False,
            "auto": {"seeds": "maxima"},
            "prompts": ["click", "box"],
        }
    }


def test_settings_text_leaves_out_a_path_with_an_equals_sign():
    words = ["segment", "2026/dose=5/a.tif", "--model=tiny", "--output=dose=5"]
    assert tomllib.loads(settings_text(words)) == {"segment": {"model": "tiny", "output": "dose=5"}}
