import itertools
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recross_hf.core.batching import chunks, on_device, token_budget_batches
from recross_hf.models.collators import padded, padded_rows
from recross_hf.models.modes import evaluating


@given(st.lists(st.integers(), max_size=20), st.integers(1, 7))
def test_chunks_hold_all_items_in_order_and_none_but_the_last_is_short(items, size):
    found = list(chunks(items, size))
    assert [item for chunk in found for item in chunk] == items
    assert all(len(chunk) == size for chunk in found[:-1]) and all(found)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("multiple_of", [1, 4])
def test_rows_are_filled_up_on_one_side_and_the_mask_tells_where(side, multiple_of):
    rows = [[5, 6, 7, 8, 9], [9], []]
    batch = padded(rows, 9, side, multiple_of=multiple_of)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 5 if multiple_of == 1 else 8)
    assert batch["input_ids"].dtype == torch.long
    for ids, mask, row in zip(batch["input_ids"], batch["attention_mask"], rows, strict=True):
        assert ids[mask.bool()].tolist() == row and (ids[~mask.bool()] == 9).all()
        assert mask.tolist() == sorted(mask.tolist(), reverse=side == "right")
    assert padded_rows([[1], [2, 3]], -100).tolist() == [[1, -100], [2, 3]]


def test_each_module_is_afterwards_in_the_mode_that_it_was_in():
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Sequential(torch.nn.Dropout()))
    model.train()
    model[1].eval()
    with pytest.raises(KeyError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == [True, True, False, False]


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
