import itertools

from hypothesis import given
from hypothesis import strategies as st

from recross_hf.batching import token_budget_batches


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
