import itertools
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recross_hf.core.batching import on_device, token_budget_batches


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 100))
def test_batches_hold_every_row_once_longest_first_within_the_budget(lengths, budget):
    batches = list(token_budget_batches(lengths, budget))
    rows = [row for batch in batches for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget
    for batch, following in itertools.pairwise(batches):  # no batch is smaller than it must be
        assert (len(batch) + 1) * lengths[batch[0]] > budget
        assert following


def test_a_batch_stays_what_it_is_on_a_cpu():
    batch = {"input_ids": torch.arange(6).reshape(2, 3)}
    moved = on_device(batch, torch.device("cpu"))
    assert moved["input_ids"] is batch["input_ids"]


@pytest.mark.parametrize("names", [["input_ids"], ["input_ids", "attention_mask", "labels"]])
def test_a_batch_on_another_device_leaves_the_one_on_the_cpu(names):
    batch = {name: torch.arange(6).reshape(2, 3) for name in names}
    moved = on_device(batch, torch.device("meta"))
    assert list(moved) == names
    assert all((values.device.type, values.shape) == ("meta", (2, 3)) for values in moved.values())
    assert all(values.device.type == "cpu" for values in batch.values())


def test_a_batch_goes_to_a_gpu_from_pinned_memory():
    class Recording:
        """Stands for a tensor where there is no GPU to copy one to."""

        calls = ()

        def pin_memory(self):
            self.calls += ("pinned",)
            return self

        def to(self, device, non_blocking):
            self.calls += (device.type, non_blocking)
            return self

    values = Recording()
    on_device({"labels": values}, torch.device("cuda"))
    assert values.calls == ("pinned", "cuda", True)


GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # to ask torch takes seconds
TO_A_GPU = """
import torch
from recross_hf.core.batching import on_device

if torch.cuda.is_available():
    batch = {name: torch.arange(6).reshape(2, 3) + n for n, name in enumerate(("input_ids", "labels"))}
    moved = on_device(batch, torch.device("cuda"))
    assert list(moved) == list(batch) and all(values.is_cuda for values in moved.values())
    assert all(torch.equal(moved[name].cpu(), values) for name, values in batch.items())
    print("copied")
"""


@pytest.mark.skipif(not any(map(os.path.exists, GPU_DRIVERS)), reason="there is no GPU")
def test_a_batch_is_on_a_gpu_what_it_was():
    # In a process of its own: the tests' own hides the GPUs.
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    output = subprocess.run([sys.executable, "-c", TO_A_GPU], env=environment, check=True, capture_output=True).stdout
    if not output:
        pytest.skip("torch finds no GPU, though there is a driver of one")
    assert output == b"copied\n"
