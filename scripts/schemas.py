"""Write the JSON Schemas of the documentation: ``python scripts/schemas.py``.

The tests compare them with the code.
"""

from __future__ import annotations

import json
from pathlib import Path

from napari_simmat.batch.documented import SCHEMAS

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schemas"


def main() -> None:
    """Write all schemas."""
    FOLDER.mkdir(exist_ok=True)
    for name, schema in SCHEMAS.items():
        path = FOLDER / f"{name}.schema.json"
        path.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8", newline="\n")
        print(path.name)


if __name__ == "__main__":
    main()
