"""Files in, label images out: a plan of tasks, and runs of it that can be stopped at any time.

`inputs` finds images, `plan` names every file that will be read and written and refuses what cannot
work before anything is loaded, `running` does the tasks one by one, each whole or not at all, and
`carrying_out` does so with the output folder locked and a summary at the end.
"""

from napari_simmat.batch.inputs import find_inputs
from napari_simmat.batch.planning import AUTO, PROMPT_ENDINGS, SAME_STEM, plan
from napari_simmat.batch.plans import Plan, Skipped
from napari_simmat.batch.run import carrying_out
from napari_simmat.batch.running import BatchProgress, running

__all__ = [
    "AUTO",
    "PROMPT_ENDINGS",
    "SAME_STEM",
    "BatchProgress",
    "Plan",
    "Skipped",
    "carrying_out",
    "find_inputs",
    "plan",
    "running",
]
