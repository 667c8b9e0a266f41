import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recross_hf.reranking.losses import binary, pairwise, regression

ONE_QUERY = torch.zeros(3, dtype=torch.long)
LABELS = torch.tensor([1.0, 0.0, 0.0])
UTILITIES = torch.tensor([1.2, -0.2, -1.0])


def test_binary_is_the_cross_entropy_of_the_labels_alone():
    scores = torch.tensor([0.3, -2.0, 4.0])
    probabilities = torch.sigmoid(scores)
    expected = torch.nn.functional.binary_cross_entropy(probabilities, LABELS)
    assert binary(scores, LABELS, UTILITIES, ONE_QUERY).item() == pytest.approx(expected.item(), rel=1e-5)
    assert binary(scores, LABELS, -UTILITIES, ONE_QUERY + 1) == binary(scores, LABELS, UTILITIES, ONE_QUERY)


def test_regression_is_the_squared_error_of_the_utilities_alone():
    assert regression(UTILITIES, LABELS, UTILITIES, ONE_QUERY) == 0
    assert regression(UTILITIES + 2, 1 - LABELS, UTILITIES, ONE_QUERY).item() == pytest.approx(4)


@given(st.permutations(range(4)), st.lists(st.integers(0, 1), min_size=4, max_size=4), st.integers(-2, 2))
def test_pairwise_is_the_mean_over_pairs_of_one_query(order, numbers, shift):
    utilities, queries = torch.tensor(order, dtype=torch.float32), torch.tensor(numbers)
    scores = torch.tensor([0.5, -1.0, 2.0, 0.0])
    losses = [
        torch.log1p(torch.exp(scores[worse] - scores[better])).item()
        for better in range(4)
        for worse in range(4)
        if numbers[better] == numbers[worse] and order[better] > order[worse]
    ]
    found = pairwise(scores + shift, torch.zeros(4), utilities, queries)
    assert found.item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_pairwise_prefers_the_right_order():
    right, wrong = (pairwise(sign * UTILITIES, LABELS, UTILITIES, ONE_QUERY) for sign in (1, -1))
    assert right < torch.log(torch.tensor(2.0)) < wrong


def test_pairwise_does_not_compare_candidates_of_different_queries():
    scores = torch.tensor([1.0, 0.0, 50.0, 40.0], requires_grad=True)
    utilities, queries = torch.tensor([1.0, 0.0, -8.0, -9.0]), torch.tensor([0, 0, 1, 1])
    pairwise(scores, torch.zeros(4), utilities, queries).backward()
    first, second = scores.grad[:2], scores.grad[2:]
    assert first.sum().item() == pytest.approx(0)
    assert second.sum().item() == pytest.approx(0)
    assert first.abs().sum() > second.abs().sum() > 0


@pytest.mark.parametrize(
    "utilities, queries", [(torch.zeros(3), ONE_QUERY), (UTILITIES, torch.arange(3)), (torch.zeros(0), ONE_QUERY[:0])]
)
def test_pairwise_has_no_loss_where_nothing_can_be_compared(utilities, queries):
    scores = torch.zeros(len(utilities), requires_grad=True)
    loss = pairwise(scores, torch.zeros(len(utilities)), utilities, queries)
    loss.backward()
    assert loss.item() == 0
    assert (scores.grad == 0).all()
