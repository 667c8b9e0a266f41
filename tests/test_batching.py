import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from recross_hf.batching import on_device, token_budget_batches


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
    assert on_device({"labels": values}, torch.device("cuda")) == {"labels": values}
    assert values.calls == ("pinned", "cuda", True)
