"""A trial of the work in a folder of its own: what the plans share."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from transformers import (
    TrainerCallback,
)

from ..core.distributed import process_state
from .plan import existing_folder

logger = logging.getLogger(__name__)

PROBE_SECONDS = 15.0
PROBE_EXAMPLES = 20_000
TURNS = 4
# Of a task, digests are held while it is prepared.
BYTES_A_ROW, BYTES_AN_EXAMPLE = 8, 24

LESS_DISK = "Write to a larger disk"


# ---- training ----------------------------------------------------------------------------------------------------------


class Timer(TrainerCallback):
    """Notes when each step ended, and ends the training when enough were timed."""

    def __init__(self, num_first: int, device: torch.device) -> None:
        self.num_first, self.device, self.ends = num_first, device, []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.ends.append(time.perf_counter())
        timed = len(self.ends) - self.num_first
        late = [timed >= 4 and self.ends[-1] - self.ends[self.num_first - 1] > PROBE_SECONDS]
        if process_state().num_processes > 1:  # they must end together
            broadcast_object_list(late)
        control.should_training_stop = late[0]

    @property
    def seconds(self) -> list[float]:
        return np.diff(self.ends[self.num_first - 1 :]).tolist()


@contextmanager
def folder_for_all(output_dir: str | Path) -> Iterator[Path]:
    """A temporary folder beside the output, which all processes see."""
    state = process_state()
    with tempfile.TemporaryDirectory(dir=existing_folder(output_dir)) as own:
        name = [own]
        if state.num_processes > 1:
            broadcast_object_list(name)
        yield Path(name[0])
        state.wait_for_everyone()
