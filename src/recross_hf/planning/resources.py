"""`Resources`: the memory and the disk that a run may use, and the memory that this process has held."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil
import torch

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
PROCESS_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Resources:
    """The resources that a run may use, in bytes.

    Attributes:
        memory: Memory of the host for all processes on it, with the memory that this process holds already.
        device_memory: Memory of this process's GPU; None without one.
        disk: Free disk space below the folder that is written.
    """

    memory: int
    device_memory: int | None
    disk: int

    @classmethod
    def of(cls, output_dir: str | Path, device: torch.device | None = None) -> Self:
        """The resources of this machine, for a run that writes to `output_dir` and computes on `device`."""
        on_device = None
        if device is not None and device.type == "cuda":
            on_device = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        return cls(_host_memory(), on_device, shutil.disk_usage(existing_folder(output_dir)).free)


def existing_folder(output_dir: str | Path) -> Path:
    """The folder itself where it exists, else the nearest above it that does."""
    folder = Path(output_dir).absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def peak_memory() -> int:
    """Bytes of memory that this process has held at its peak; Linux corrects it by some pages now and then."""
    if PROCESS_STATUS.is_file() and (peak := re.search(r"VmHWM:\s*(\d+) kB", PROCESS_STATUS.read_text())):
        return int(peak[1]) * 1024
    if (peak_of_windows := getattr(psutil.Process().memory_info(), "peak_wset", None)) is not None:
        return int(peak_of_windows)
    import resource  # Windows has no such module

    peak_of_unix = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_of_unix if sys.platform == "darwin" else peak_of_unix * 1024


def peak_device_memory(device: torch.device | None) -> int | None:
    """Bytes of GPU memory that this process has held at its peak, since [`reset_peak_device_memory`]; None without a GPU."""
    return torch.cuda.max_memory_reserved(device) if device is not None and device.type == "cuda" else None


def reset_peak_device_memory(device: torch.device) -> None:
    """Forgets the peak of GPU memory so far; memory that this process still holds on its GPU counts on."""
    if device.type == "cuda":
        torch.cuda.init()  # without it, there is no peak to reset, which is an error
        torch.cuda.empty_cache()  # memory that PyTorch only keeps for later counts as held
        torch.cuda.reset_peak_memory_stats(device)


def _host_memory() -> int:
    """Bytes that processes can have without swapping, with those of this process; a container may have a limit below."""
    there_is = psutil.virtual_memory().available + psutil.Process().memory_info().rss
    limits = [path.read_text().strip() for path in CGROUP_LIMITS if path.is_file()]
    return min([there_is, *(int(limit) for limit in limits if limit.isdigit())])
