"""The numbers of a training as lines of JSON, where TensorBoard is not installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker, on_main_process

FILE = "numbers.jsonl"


class JsonLines(GeneralTracker):
    """A line for every call: {"step": n, name: value, ...}. A resumed run writes on; a step's last line counts."""

    name = "json_lines"
    requires_logging_directory = False

    def __init__(self, folder: Path):
        self.tracker = folder / FILE
        super().__init__()

    @on_main_process
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.tracker.parent.mkdir(parents=True, exist_ok=True)

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        with self.tracker.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def log_images(self, *_: Any, **__: Any) -> None:
        """The sheets of samples are files."""
