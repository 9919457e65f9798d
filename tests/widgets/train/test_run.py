import shlex
import sys

import numpy as np
import pytest
import tifffile

from napari_simmat.checkpoints import registry
from napari_simmat.cli import app
from napari_simmat.cli.terminal import ChannelOptions
from napari_simmat.progress import finish
from napari_simmat.training.config import TrainConfig, practical_config
from napari_simmat.training.trainer import BEST_FILE, LOG_FILE, STOP_FILE
from napari_simmat.widgets.subprocess import in_a_shell
from napari_simmat.widgets.train import run as run_module
from napari_simmat.widgets.train.run import (
    DEFAULT_STEPS,
    NOT_FINISHED,
    CurveHistory,
    TrainingController,
    TrainRequest,
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
    assert (named["output"], named["folder"]) == (run.output, run.work)
    assert named["base"] == request_.base
    assert "practical" not in named, "all of it is said, so that later defaults change nothing"
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


def test_the_default_config_is_that_of_practical():
    tiny = registry.find_model("tiny").spec
    assert practical_config(tiny, steps=DEFAULT_STEPS) == TrainRequest().config


def test_curves_replace_a_step_that_is_repeated():
    history = CurveHistory()
    for step in range(5):
        assert history.add({"step": step, "loss": 1.0, "validation_iou": 10.0 * step})
    assert history.best == (4, 40)
    assert (history.step, CurveHistory().step) == (4, 0)
    assert history.add({"step": 2, "loss": 0.5})
    assert history.loss == [(0, 1), (1, 1), (2, 0.5)]
    assert history.add({"step": 2, "validation_iou": 30.0})
    assert history.iou == [(0, 0), (1, 10), (2, 30)]
    assert not history.add({"step": 3, "learning_rate": 0.1})
    assert not history.add({})
    assert not history.add({"step": 3, "loss": float("nan")})


def test_curves_of_a_log_that_was_cut_skip_its_end(tmp_path):
    log = tmp_path / "log.csv"
    assert CurveHistory.of(log).best is None
    log.write_text(
        "step,epoch,learning_rate,loss,train_iou,validation_iou\n"
        "0,0.0,,,,40.5\n5,1.0,0.0003,0.25,70,\n5,1.0,,,,60\n1x,"
    )
    history = CurveHistory.of(log)
    assert history.iou == [(0, 40.5), (5, 60)]
    assert history.loss == [(5, 0.25)]


def test_file_names_are_those_of_the_trainer():
    """They stand twice, as the trainer's module loads torch."""
    names = run_module._LOG, run_module._BEST, run_module._STOP
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
    monkeypatch.setattr(run_module.WindowRun, "claim", lambda _: pytest.fail("a lock was claimed"))
    assert NOT_FINISHED.format("half") == name_problem("half")
    assert NOT_FINISHED.format("Done") == name_problem("Done")
    assert name_problem("new") is None
    assert free_name("half") == "half-2"
    run.release()


def test_check_of_a_folder_is_not_shown_for_another(qtbot, tmp_path, user_folder):
    """While the check of one folder runs, another is chosen: each gets its own."""
    for name, count in (("good", 6), ("broken", 0)):
        (tmp_path / name).mkdir()
        for number in range(count):
            image = np.random.default_rng(number).integers(0, 255, (32, 32), np.uint8)
            labels = np.zeros((32, 32), np.uint8)
            labels[4:20, 4:20] = 1
            tifffile.imwrite(tmp_path / name / f"{number}.tif", image)
            tifffile.imwrite(tmp_path / name / f"{number}_labels.tif", labels)
    training = TrainingController()
    good, broken = (TrainRequest(folder=str(tmp_path / name)) for name in ("good", "broken"))
    seen = []
    # The form asks again whenever a check has ended; by then the user has chosen the other.
    training.checked.connect(lambda: seen.append(training.check(broken)))
    assert training.check(good) is None
    training._later.stop()
    training._start_check()
    training._to_check = broken
    with qtbot.waitSignal(training.checked):
        pass
    assert seen == [None], "the check of the good folder says nothing of the broken one"
    with qtbot.waitSignal(training.checked):
        pass
    assert seen[-1].problem
    assert not seen[-1].description
    training.close()
