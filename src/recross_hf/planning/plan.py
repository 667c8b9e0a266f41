"""`Plan`: what a run will take, beside what the machine has; printed as a table."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import torch

from ..core.tables import format_table

logger = logging.getLogger(__name__)

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Room:
    """What a run may use, in bytes.

    Attributes:
        memory: of the host, for all processes on it, with what this process holds already.
        device_memory: of this process's GPU; None without one.
        disk: below the folder that is written.
    """

    memory: int
    device_memory: int | None
    disk: int

    @classmethod
    def of(cls, output_dir: str | Path, device: torch.device | None = None) -> Self:
        """The room on this machine, for a run that writes to `output_dir` and computes on `device`."""
        on_gpu = device is not None and device.type == "cuda"
        on_device = None
        if on_gpu:
            on_device = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        return cls(_host_memory(), on_device, shutil.disk_usage(existing_folder(output_dir)).free)


@dataclass(frozen=True)
class Seconds:
    """How long something takes: what is expected, and where the truth should lie if the rest is like what was tried out."""

    expected: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: list[float], count: float) -> Self:
        """Of `count` pieces of work, some of which took `samples` seconds: their mean, and two standard errors about it."""
        mean = float(np.mean(samples))
        error = 2 * float(np.std(samples, ddof=1)) / len(samples) ** 0.5 if len(samples) > 1 else mean
        return cls(count * mean, count * max(mean - error, 0.0), count * (mean + error))

    def plus(self, seconds: float) -> Self:
        """As much longer."""
        return type(self)(self.expected + seconds, self.low + seconds, self.high + seconds)

    def __str__(self) -> str:
        return f"{duration(self.expected)} ({duration(self.low)} to {duration(self.high)})"


@dataclass(frozen=True)
class Plan:
    """What a run will take, extrapolated from a probe; `print(plan)` shows it beside what there is.

    Attributes:
        work: what was planned.
        probe: what was tried out.
        seconds: of the whole run on as many processes as the probe had; None where it could not be tried out.
        shared: the share of `seconds` that more processes would have between them, 0 to 1.
        memory: bytes of host memory that a process holds at its peak.
        device_memory: bytes of GPU memory that a process holds at its peak; None without a GPU.
        disk: bytes below the output folder at their most; `kept` of them stay.
        num_processes: of the run; those on this host share its memory.
        room: what there is.
        advice: what to change where `memory`, `device_memory` or `disk` falls short, by that name.
    """

    work: str
    probe: str
    seconds: Seconds | None
    shared: float
    memory: int
    device_memory: int | None
    disk: int
    kept: int
    room: Room
    num_processes: int = 1
    advice: dict[str, str] = field(default_factory=dict)

    @property
    def memory_of_host(self) -> int:
        """Bytes that the processes on this host hold together."""
        return self.memory * min(self.num_processes, int(os.environ.get("LOCAL_WORLD_SIZE", self.num_processes)))

    @property
    def warnings(self) -> list[str]:
        """A sentence for each thing that there is too little of; empty where the run fits."""
        found = []
        for name, what, needed, there_is in (
            ("memory", "memory", self.memory_of_host, self.room.memory),
            ("device_memory", "GPU memory", self.device_memory or 0, self.room.device_memory or 0),
            ("disk", "disk space", self.disk, self.room.disk),
        ):
            if needed > there_is:
                found.append(
                    f"This cannot fit: {what} of {size(needed)} is needed, there is {size(there_is)}. {self.advice[name]}"
                )
        return found

    def seconds_on(self, num_processes: int) -> float:
        """Expected seconds on so many processes of the same kind; computed, not tried out.

        Raises:
            ValueError: the run could not be tried out.
        """
        if self.seconds is None:
            raise ValueError("Expected a plan with `seconds`, found one of a run that cannot fit.")
        shared = self.seconds.expected * self.shared
        return self.seconds.expected - shared + shared * self.num_processes / num_processes

    def __str__(self) -> str:
        local = self.memory_of_host // self.memory if self.memory else 1
        memory = f"{size(self.memory)} x {local}" if local > 1 else size(self.memory)
        time = "unknown" if self.seconds is None else str(self.seconds)
        rows = [["time", time, ""], ["memory", memory, size(self.room.memory)]]
        if self.device_memory is not None:
            rows.append(["GPU memory", size(self.device_memory), size(self.room.device_memory or 0)])
        disk = size(self.disk) + (f", {size(self.kept)} of it to stay" if self.kept < self.disk else "")
        rows.append(["disk", disk, size(self.room.disk)])
        lines = [f"{self.work}. Tried out: {self.probe}.", "", format_table(["", "needed", "there is"], rows)]
        if self.seconds is not None and self.shared:
            more = [self.num_processes * factor for factor in (2, 4, 8)]
            times = ", ".join(f"{number}: {duration(self.seconds_on(number))}" for number in more)
            lines.append(f"time on more processes (computed): {times}")
        return "\n".join([*lines, *(f"\n{warning}" for warning in self.warnings)])


def existing_folder(output_dir: str | Path) -> Path:
    """A folder that need not exist yet, or the nearest above it that does."""
    folder = Path(output_dir).absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def warn_where_disk_is_short(output_dir: str | Path, num_bytes: int, advice: str) -> None:
    """Logs a warning where a run that is about to start needs more bytes below `output_dir` than are free."""
    if num_bytes > (free := shutil.disk_usage(existing_folder(output_dir)).free):
        logger.warning(
            "This cannot fit: at least %s are needed below %s, %s are free. %s",
            size(num_bytes),
            output_dir,
            size(free),
            advice,
        )


def peak_memory() -> int:
    """Bytes of memory that this process has held at its peak."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_device_memory(device: torch.device) -> int | None:
    """Bytes of GPU memory that this process has held at its peak, since [`reset_peak_device_memory`]; None without a GPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None


def reset_peak_device_memory(device: torch.device) -> None:
    """Lets what this process did before count no more, but for what it still holds on its GPU."""
    if device.type == "cuda":
        torch.cuda.init()  # without it, there is no peak to reset, which is an error
        torch.cuda.empty_cache()  # what PyTorch only keeps for later counts as held
        torch.cuda.reset_peak_memory_stats(device)


def _host_memory() -> int:
    page = os.sysconf("SC_PAGE_SIZE")
    total = os.sysconf("SC_PHYS_PAGES") * page
    meminfo, statm = Path("/proc/meminfo"), Path("/proc/self/statm")
    if meminfo.is_file():  # Linux says what can be had without swapping, and what this process has
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        total = int(fields["MemAvailable"].split()[0]) * 1024 + int(statm.read_text().split()[1]) * page
    limits = [path.read_text().strip() for path in CGROUP_LIMITS if path.is_file()]
    return min([total, *(int(limit) for limit in limits if limit.isdigit())])


def size(num_bytes: float) -> str:
    """Bytes for people: '1.2 GB'."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"


def duration(seconds: float) -> str:
    """Seconds for people: '3.4 h'."""
    for unit, length, limit in (("s", 1, 99.5), ("min", 60, 99.5 * 60), ("h", 3600, 72 * 3600)):
        if seconds < limit:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds / 86400:,.0f} days"
