from napari_simmat.annotation.history import (
    Command,
    LayerEdit,
    ObjectEntry,
    ObjectRegister,
    UndoStack,
)
from napari_simmat.annotation.prompt_state import Prompts, PromptState


def asking(number: int) -> PromptState:
    return PromptState(Prompts(points=((0.0, float(number)),), labels=(1,)))


def a_change(number: int) -> Command:
    return Command("prompts", PromptState(), asking(number))


def test_undo_150_steps_and_redo_keep_their_order():
    operations = UndoStack()
    changes = [a_change(number) for number in range(150)]
    for change in changes:
        operations.add(change)
    undone = [operations.undo() for _ in range(150)]
    assert undone == changes[::-1]
    assert operations.undo() is None
    assert [operations.redo() for _ in range(150)] == changes
    assert operations.redo() is None


def test_add_after_undo_forgets_what_was_undone():
    operations = UndoStack()
    operations.add(a_change(1))
    operations.undo()
    assert operations.can_redo
    second = a_change(2)
    operations.add(second)
    assert not operations.can_redo
    assert operations.undo() is second


def test_add_beyond_the_limit_forgets_the_oldest():
    operations = UndoStack(limit=3)
    changes = [a_change(number) for number in range(5)]
    for change in changes:
        operations.add(change)
    assert list(operations) == changes[2:]
    assert operations.undo() is changes[4]


def test_forget_layer_drops_its_edits_and_keeps_prompts():
    operations = UndoStack()
    prompts = a_change(1)
    operations.add(prompts)
    operations.add(Command("commit", asking(1), PromptState(), LayerEdit("layer")))
    operations.add(Command("painting", PromptState(), PromptState(), LayerEdit("layer")))
    elsewhere = Command("painting", PromptState(), PromptState(), LayerEdit("other"))
    operations.add(elsewhere)
    operations.forget_layer("layer")
    assert operations.undo() is elsewhere
    commit = operations.undo()
    assert commit.edit is None
    assert commit.before == asking(1), "undoing it brings its prompts back"
    assert operations.undo() is prompts
    assert operations.undo() is None


def test_register_apply_and_back_follow_an_edit():
    register = ObjectRegister()
    edit = LayerEdit("layer", entries={4: (None, ObjectEntry(0.9, "nucleus"))})
    register.apply(edit)
    assert register.entry(4).category == "nucleus"
    assert register.next_label == 5
    register.apply(edit, back=True)
    assert register.entry(4).category == ""
    assert register.next_label == 1
