"""`Plan`: the time, memory and disk that a run will take, beside what the machine has; printed as a table."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from ..core.tables import format_table
from .resources import Resources, existing_folder, peak_device_memory, peak_memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TimeEstimate:
    """Seconds that a run will take, and a range for them that holds if the rest of the work is like the probe.

    Attributes:
        expected: Expected seconds.
        low: Lower end of the range.
        high: Upper end of the range.
    """

    expected: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: list[float], count: float) -> Self:
        """The time of `count` pieces of work, by the mean of some that took `samples` seconds, and two standard errors about it."""
        mean = float(np.mean(samples))
        error = 2 * float(np.std(samples, ddof=1)) / len(samples) ** 0.5 if len(samples) > 1 else mean
        return cls(count * mean, count * max(mean - error, 0.0), count * (mean + error))

    def plus(self, seconds: float) -> Self:
        """An estimate that is longer by so many seconds."""
        return type(self)(self.expected + seconds, self.low + seconds, self.high + seconds)

    def __str__(self) -> str:
        return f"{duration(self.expected)} ({duration(self.low)} to {duration(self.high)})"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The time, memory and disk that a run will take, extrapolated from a probe; `print(plan)` shows them beside what there is.

    Attributes:
        work: The run, in words.
        probe: The part of it that was tried out, in words.
        seconds: Time of the whole run on as many processes as the probe had; None where nothing could be tried out.
        shared: Share of `seconds` that more processes would divide between them, 0 to 1.
        memory: Bytes of host memory that a process holds at its peak.
        device_memory: Bytes of GPU memory that a process holds at its peak; None without a GPU.
        disk: Bytes below the output folder at their most.
        kept: Bytes below the output folder that stay.
        resources: Resources that the run may use.
        num_processes: Number of the run's processes; those on this host share its memory.
        advice: Sentences that say what to change where `memory`, `device_memory` or `disk` falls short, by that name.
    """

    work: str
    probe: str
    seconds: TimeEstimate | None
    shared: float
    memory: int
    device_memory: int | None
    disk: int
    kept: int
    resources: Resources
    num_processes: int
    advice: dict[str, str]

    @classmethod
    def after_probe(
        cls,
        output_dir: str | Path,
        device: torch.device | None = None,
        *,
        work: str,
        probe: str,
        seconds: TimeEstimate | None,
        disk: int,
        advice: dict[str, str],
        shared: float = 1.0,
        memory: int | None = None,
        device_memory: int | None = None,
        kept: int | None = None,
        num_processes: int = 1,
    ) -> Self:
        """The plan of a run that this process has just tried out, so that its memory so far is the run's.

        Args:
            output_dir: Folder that the run writes to.
            device: Device that the run computes on; None where no device does.
            work: The run, in words.
            probe: The part of it that was tried out, in words.
            seconds: Time of the whole run; None where nothing could be tried out.
            disk: Bytes below the output folder at their most.
            advice: Sentences that say what to change, by the resource that falls short.
            shared: Share of `seconds` that more processes would divide between them.
            memory: Bytes of host memory; by default this process's peak.
            device_memory: Bytes of GPU memory; by default this process's peak.
            kept: Bytes below the output folder that stay; by default all of `disk`.
            num_processes: Number of the run's processes.

        Returns:
            The plan.
        """
        return cls(
            work=work,
            probe=probe,
            seconds=seconds,
            shared=shared,
            memory=peak_memory() if memory is None else memory,
            device_memory=peak_device_memory(device) if device_memory is None else device_memory,
            disk=disk,
            kept=disk if kept is None else kept,
            resources=Resources.of(output_dir, device),
            num_processes=num_processes,
            advice=advice,
        )

    @property
    def memory_of_host(self) -> int:
        """Bytes of memory that the processes on this host hold together."""
        return self.memory * min(self.num_processes, int(os.environ.get("LOCAL_WORLD_SIZE", self.num_processes)))

    @property
    def warnings(self) -> list[str]:
        """A sentence for each resource that falls short; empty where the run fits."""
        resources = self.resources
        return [
            f"This cannot fit: {noun} of {size(needed)} is needed, there is {size(there_is)}. {self.advice[name]}"
            for name, noun, needed, there_is in (
                ("memory", "memory", self.memory_of_host, resources.memory),
                ("device_memory", "GPU memory", self.device_memory or 0, resources.device_memory or 0),
                ("disk", "disk space", self.disk, resources.disk),
            )
            if needed > there_is
        ]

    def seconds_on(self, num_processes: int) -> float:
        """Expected seconds on so many processes of the same kind, computed and not tried out.

        Raises:
            ValueError: The run could not be tried out.
        """
        if self.seconds is None:
            raise ValueError("Expected a plan with `seconds`, found one of a run that cannot fit.")
        shared = self.seconds.expected * self.shared
        return self.seconds.expected - shared + shared * self.num_processes / num_processes

    def __str__(self) -> str:
        local = self.memory_of_host // self.memory if self.memory else 1
        memory = f"{size(self.memory)} x {local}" if local > 1 else size(self.memory)
        time = "unknown" if self.seconds is None else str(self.seconds)
        rows = [["time", time, ""], ["memory", memory, size(self.resources.memory)]]
        if self.device_memory is not None:
            rows.append(["GPU memory", size(self.device_memory), size(self.resources.device_memory or 0)])
        disk = size(self.disk) + (f", {size(self.kept)} of it to stay" if self.kept < self.disk else "")
        rows.append(["disk", disk, size(self.resources.disk)])
        lines = [f"{self.work}. Tried out: {self.probe}.", "", format_table(["", "needed", "there is"], rows)]
        if self.seconds is not None and self.shared:
            more = [self.num_processes * factor for factor in (2, 4, 8)]
            times = ", ".join(f"{number}: {duration(self.seconds_on(number))}" for number in more)
            lines.append(f"\ntime on more processes (computed): {times}")
        return "\n".join([*lines, *(f"\n{warning}" for warning in self.warnings)])


def warn_where_disk_is_short(output_dir: str | Path, num_bytes: int, advice: str) -> None:
    """Logs a warning, with advice, where a run that is about to start needs more bytes below `output_dir` than are free."""
    if num_bytes > (free := shutil.disk_usage(existing_folder(output_dir)).free):
        logger.warning(
            "This cannot fit: at least %s are needed below %s, %s are free. %s",
            size(num_bytes),
            output_dir,
            size(free),
            advice,
        )


def size(num_bytes: float) -> str:
    """Bytes as people write them: '1.2 GB'."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"


def duration(seconds: float) -> str:
    """Seconds as people write them: '3.4 h'."""
    for unit, length, limit in (("s", 1, 99.5), ("min", 60, 99.5 * 60), ("h", 3600, 72 * 3600)):
        if seconds < limit:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds / 86400:,.0f} days"
