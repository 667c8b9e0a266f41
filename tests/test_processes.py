"""Processes that leave their group."""

import os
import subprocess
import sys

import pytest

from recross_hf import processes

GROUP = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "x",
    "MASTER_PORT": "1",
}


def left(code="", **environment):
    """What a process finds after it has left the group, in a process of its own: a group is for life."""
    program = f"""
import os
import torch
torch.cuda.device_count = lambda: 2
from recross_hf.processes import leave_process_group, process_state
{code}
rank = leave_process_group()
print(rank, os.environ.get("CUDA_VISIBLE_DEVICES"), {sorted(GROUP)!r}[0] in os.environ, process_state().num_processes)
"""
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", **environment}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout.split() or done.stderr


def test_a_process_of_a_launcher_is_alone_with_its_gpu():
    assert left(**GROUP, CUDA_VISIBLE_DEVICES="4,6,7") == ["3", "6", "False", "1"]


def test_a_process_that_was_started_alone_stays_as_it_is():
    assert left(CUDA_VISIBLE_DEVICES="4,6,7") == ["0", "4,6,7", "False", "1"]


def test_it_is_too_late_once_the_group_was_asked_for():
    assert "Expected a process that has not asked for its device or its group yet" in left("process_state()")


@pytest.mark.parametrize(("rank", "device"), [("0", "0"), ("1", "1"), ("2", "0")])
def test_more_processes_than_gpus_share_them(rank, device, monkeypatch):
    for name in processes._OF_THE_GROUP:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(processes.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(processes.PartialState, "_shared_state", {})
    processes.leave_process_group()
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == device
