import copy
import dataclasses
import warnings

import numpy as np
import pytest

from recross_hf import SupervisionArguments, mine_supervision
from recross_hf.core.files import read_json
from recross_hf.reranking.metrics import spearman
from recross_hf.retrieval.retriever import DenseRetriever
from recross_hf.supervision.group_trainer import GroupTrainer
from recross_hf.supervision.query_sets import load_query_sets
from recross_hf.supervision.utility import by_groups, by_reversal

ARGS = SupervisionArguments(
    num_query_sets=4,
    num_queries=2,
    num_held_out=6,
    num_candidates=10,
    group_size=1,
    num_rounds=2,
    num_labelled=3,
    learning_rate=1e-4,
    per_device_train_batch_size=3,
)


def estimated(estimator, model, tokenizer, candidates, held_out, args=ARGS, seed=0):
    calls = []
    with GroupTrainer(model, tokenizer, args) as trainer:
        found = estimator(
            trainer,
            trainer.tokenize(candidates),
            trainer.tokenize(held_out),
            args,
            np.random.default_rng(seed),
            lambda: calls.append(1),
        )
    return found, len(calls)


@pytest.fixture
def parts(examples):
    """Candidates of all four tasks; held-out examples of the first."""
    return examples.select(range(0, 48, 3)), examples.select(range(1, 12, 2))


def test_learning_in_either_direction_says_the_same_of_small_steps(answering_bart, tokenizer, parts):
    candidates, held_out = parts
    groups, _ = estimated(by_groups, answering_bart, tokenizer, candidates, held_out)
    reversal, _ = estimated(by_reversal, answering_bart, tokenizer, candidates, held_out)
    assert groups.base_loss == reversal.base_loss
    assert spearman(groups.utilities.mean(axis=1), reversal.utilities.mean(axis=1)) > 0.5


def test_reversal_finds_the_examples_that_it_is_to_help(answering_bart, tokenizer, parts):
    candidates, held_out = parts
    found, num_calls = estimated(by_reversal, answering_bart, tokenizer, candidates, held_out)
    own = np.array(candidates["task"][:]) == held_out["task"][0]
    utilities = found.utilities.mean(axis=1)
    assert utilities[own].mean() > utilities[~own].mean()
    assert (found.num_diverged, num_calls) == (0, 2)


def test_two_rounds_of_reversal_learn_from_two_halves(bart, tokenizer, parts):
    candidates, held_out = parts
    learned = []
    with GroupTrainer(bart, tokenizer, ARGS) as trainer:
        original = trainer.learned
        trainer.learned = lambda items: (learned.append([item["input_ids"] for item in items]), original(items))[1]
        items = trainer.tokenize(held_out)
        by_reversal(trainer, trainer.tokenize(candidates), items, ARGS, np.random.default_rng(0), lambda: None)
    first, second = learned
    everything = sorted(item["input_ids"] for item in items)
    assert sorted(first + second) == everything
    assert abs(len(first) - len(second)) <= 1


def test_what_diverges_is_not_finite_and_counted(bart, tokenizer, parts):
    args = copy.copy(ARGS)
    args.learning_rate = 1e30
    for estimator in (by_groups, by_reversal):
        found, _ = estimated(estimator, bart, tokenizer, *parts, args=args)
        assert np.isfinite(found.base_loss)
        assert not np.isfinite(found.utilities).any()
        assert found.num_diverged == (32 if estimator is by_groups else 2)


def test_supervision_is_mined_with_the_utility_estimator_that_is_passed(bart, tokenizer, index, tmp_path):
    args = copy.copy(ARGS)
    args.group_size = 4
    pairs = mine_supervision(
        bart, tokenizer, DenseRetriever(index), index.dataset, tmp_path, args, utility_estimator=by_reversal
    )
    sets = load_query_sets(tmp_path)
    for row in sets:
        for candidate in row["candidates"]:
            assert len(candidate["utilities"]) == 2
            assert candidate["utility"] == pytest.approx(np.mean(candidate["utilities"]))
    assert len(pairs) == 4 * 2 * 6
    with pytest.raises(ValueError, match="mined with another utility_estimator"):
        mine_supervision(bart, tokenizer, DenseRetriever(index), index.dataset, tmp_path, args)


def test_what_changes_alike_on_both_sides_is_no_utility(answering_bart, tokenizer, parts):
    """Forgetting: half of the fall plus half of the rise on the other side is left out of the plain fall of the loss."""
    candidates, held_out = parts
    found, _ = estimated(by_reversal, answering_bart, tokenizer, candidates, held_out)
    with GroupTrainer(answering_bart, tokenizer, ARGS) as trainer:
        batches, items = trainer.batches(trainer.tokenize(candidates)), trainer.tokenize(held_out)
        before = trainer.losses(batches)
        for turn, half in enumerate(reversed(np.array_split(np.random.default_rng(0).permutation(len(items)), 2))):
            with trainer.learned([items[row] for row in half]):
                fall = before - trainer.losses(batches)
                trainer.mirror()
                rise = trainer.losses(batches) - before
            np.testing.assert_allclose(found.utilities[:, turn], (fall + rise) / 2, atol=1e-6)


def test_the_former_name_of_the_argument_works_and_warns(bart, tokenizer, index, tmp_path):
    args = dataclasses.replace(ARGS, group_size=4, num_query_sets=1)
    retriever = DenseRetriever(index)
    with pytest.warns(DeprecationWarning, match="argument `judge` is now `utility_estimator`"):
        mine_supervision(bart, tokenizer, retriever, index.dataset, tmp_path, args, judge=by_reversal)
    assert read_json(tmp_path / "supervision.json")["judge"] == "by_reversal"  # the file keeps its names
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        mine_supervision(bart, tokenizer, retriever, index.dataset, tmp_path, args, utility_estimator=by_reversal)
