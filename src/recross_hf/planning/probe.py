"""The means of trying work out that several plans share: a clock of training steps, and a folder that all processes see."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from ..core.distributed import process_state
from .resources import existing_folder

PROBE_SECONDS = 15.0
PROBE_EXAMPLES = 20_000
LESS_DISK = "Write to a larger disk"


class Timer(TrainerCallback):
    """Notes when each step of a training ended, and ends the training when enough steps were timed.

    Args:
        num_first: First steps, which are not timed.
        device: Device of the training.

    Attributes:
        ends: Time at the end of each step.
    """

    def __init__(self, num_first: int, device: torch.device) -> None:
        self.num_first, self.device = num_first, device
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Notes the time; the `Trainer` calls it."""
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
        """Seconds of each step that was timed."""
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
