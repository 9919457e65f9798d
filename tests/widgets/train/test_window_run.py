import shlex
import sys

import pytest

from napari_simmat.batch.options import ChannelOptions
from napari_simmat.cli import app
from napari_simmat.progress import finish
from napari_simmat.training.config import TrainConfig
from napari_simmat.training.run_folder import BEST_FILE, LOG_FILE, STOP_FILE
from napari_simmat.widgets.command_line import in_a_shell
from napari_simmat.widgets.train import window_run
from napari_simmat.widgets.train.request import TrainRequest
from napari_simmat.widgets.train.window_run import (
    NOT_FINISHED,
    WindowRun,
    free_name,
    name_problem,
    remove_leftovers,
    unfinished_runs,
)

REQUESTS = [
    TrainRequest(name="plain"),
    TrainRequest(
        name="all of it",
        base="vit_b",
        modality="-thermal & more",
        folder="/data/my images",
        channels="-1 deg,DAPI",
        config=TrainConfig(
            strategy="full", steps=7, batch=2, learning_rate=3e-5, seed=4, patience=2, size=None
        ),
    ),
    TrainRequest(name="long pixels", pixel_ratio=2.5),
    TrainRequest(name="more", config=TrainConfig(prompts=("box", "click"), augment=True, side=64)),
]


def interrupted(name: str) -> WindowRun:
    run = WindowRun(name)
    run.claim()
    run.write_request(TrainRequest(name=name))
    run.work.mkdir()
    run.best.write_bytes(b"weights")
    (run.work / "log.csv").write_text("step,loss\n1,0.5\n")
    return run


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.name)
def test_arguments_are_parsed_to_what_the_request_says(request_):
    run = WindowRun("mine")
    words = run.arguments(request_)
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    named = bound.arguments
    assert command.__name__ == "train"
    assert named["data"] == (request_.folder or str(run.data))
    assert (named["output"], named["state"].folder) == (run.output, run.work)
    assert named["base"] == request_.base
    assert "learning" not in named, "all of it is said, so that later defaults change nothing"
    assert named["labeled"].modality == (request_.modality or request_.name)
    options = named.get("channels", ChannelOptions())
    assert options.channels == (request_.channels or None)
    assert options.pixel_ratio == request_.pixel_ratio
    assert named["training"] == request_.config


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.name)
def test_a_written_request_reads_back(request_):
    run = WindowRun("mine")
    run.folder.mkdir(parents=True)
    run.write_request(request_)
    assert run.request() == request_


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"config": 3}',
        '{"config": {"steps": 0}}',
        '{"config": {}, "a": 1}',
        '{"config": {}, "pixel_ratio": "1"}',
        '{"config": {}, "name": 3}',
    ],
)
def test_a_foreign_request_is_refused(text):
    run = WindowRun("mine")
    run.folder.mkdir(parents=True)
    (run.folder / "request.json").write_text(text)
    with pytest.raises(ValueError, match="is not a training request"):
        run.request()


@pytest.mark.skipif(sys.platform == "win32", reason="another shell")
def test_arguments_can_be_pasted_into_a_shell():
    words = WindowRun("mine").arguments(REQUESTS[1])
    assert shlex.split(in_a_shell(words)) == ["simmat", *words]


def test_file_names_are_those_of_the_trainer():
    """They stand twice, as the trainer's module loads torch."""
    names = window_run._LOG, window_run._BEST, window_run._STOP
    assert names == (LOG_FILE, BEST_FILE, STOP_FILE)


def test_an_interrupted_run_is_resumed_in_one_window_only():
    run = interrupted("mine")
    assert unfinished_runs() == [], "this window has it"
    with pytest.raises(ValueError, match="mine is being trained in another window"):
        WindowRun("mine").claim()
    run.release()
    assert unfinished_runs() == ["mine"]
    assert run.request() == TrainRequest(name="mine")
    assert run.history().loss == [(1, 0.5)]
    run.request_stop()
    assert (run.work / STOP_FILE).exists()
    run.clear()
    assert unfinished_runs() == []
    assert run.log.read_text().startswith("step"), "the table stays"
    finish(run.prepare_job(TrainRequest(name="mine"), []))
    assert not run.log.exists()


def test_leftovers_without_a_request_are_removed():
    run = interrupted("done")
    run.release()
    half = WindowRun("half")
    half.data.mkdir(parents=True)
    (half.data / "a_b.npy").write_bytes(b"1")
    remove_leftovers()
    assert not half.folder.exists()
    assert run.is_prepared


def test_keep_best_makes_a_model():
    run = interrupted("mine")
    finish(run.keep_best_job())
    assert run.output.read_bytes() == b"weights"
    run.release()


def test_keep_best_does_not_replace_a_model_of_that_name():
    run = interrupted("mine")
    run.output.parent.mkdir(parents=True)
    run.output.write_bytes(b"imported meanwhile")
    with pytest.raises(ValueError, match="There is a model called mine already, which stays"):
        finish(run.keep_best_job())
    assert run.output.read_bytes() == b"imported meanwhile"
    assert run.best.exists()
    run.release()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (" ", "Give the new model a name."),
        ("tiny", "tiny is the name of a built-in model"),
        ("a/b", "cannot be a model's name"),
        ("MINE", "There is a model called MINE already"),
        ("Half", "The training of Half is not finished: resume or discard it"),
        ("new", None),
    ],
)
def test_name_problem_of_a_used_name_is_one_sentence(name, words, user_folder):
    (user_folder / "models").mkdir()
    (user_folder / "models" / "mine.safetensors").write_bytes(b"no model, but a name")
    interrupted("half").release()
    problem = name_problem(name)
    assert (problem is None) if words is None else (words in str(problem))


def test_free_name_of_a_used_name_is_numbered(user_folder):
    assert free_name("mine") == "mine"
    interrupted("mine").release()
    assert free_name("mine") == "mine-2"
    assert (user_folder / "trainings" / "mine").is_dir()


def test_name_problem_leaves_the_locks_of_runs_alone(user_folder, monkeypatch):
    """The name is checked at each key; a run that another window holds keeps its name."""
    run = interrupted("half")
    interrupted("done").release()
    monkeypatch.setattr(window_run.WindowRun, "claim", lambda _: pytest.fail("a lock was claimed"))
    assert NOT_FINISHED.format("half") == name_problem("half")
    assert NOT_FINISHED.format("Done") == name_problem("Done")
    assert name_problem("new") is None
    assert free_name("half") == "half-2"
    run.release()
