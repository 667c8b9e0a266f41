import copy
import dataclasses
import json
import os
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from chat_templates import CHATML, chat_tokenizer
from datasets import Dataset, concatenate_datasets
from forks import fork
from peft import LoraConfig, get_peft_model

from recross_hf import (
    CrossEncoderReranker,
    DenseRetriever,
    RandomRetriever,
    Reranker,
    SupervisionArguments,
    UpstreamIndex,
    label_pairs,
    load_examples,
    load_query_sets,
    mine_supervision,
    summarize_supervision,
)
from recross_hf.core.files import write_parquet
from recross_hf.data.schema import ExampleError
from recross_hf.models.chat import set_chat_format
from recross_hf.supervision.group_trainer import GroupTrainer
from recross_hf.supervision.miner import QuerySetMiner
from recross_hf.supervision.pairs import PAIR_FEATURES
from recross_hf.supervision.query_sets import SET_FEATURES

SETTINGS = {
    "num_query_sets": 4,
    "num_queries": 3,
    "num_held_out": 8,
    "num_candidates": 12,
    "group_size": 4,
    "num_rounds": 2,
    "num_labelled": 3,
    "learning_rate": 1e-2,
    "max_target_length": 8,
}


class LongestFirst(Reranker):
    def rank(self, queries, candidates):
        return np.array([len(candidate) for candidate in candidates])


class ShortestFirst(Reranker):
    def rank(self, queries, candidates):
        return np.array([-len(candidate) for candidate in candidates])


class InterruptedReranker(Reranker):
    """As no reranker; a user stops it before the set of a number."""

    def __init__(self, stops_at: int | None = None) -> None:
        self.stops_at, self.calls = stops_at, 0

    def rank(self, queries, candidates):
        if self.calls == self.stops_at:
            raise KeyboardInterrupt
        self.calls += 1
        return -np.arange(len(candidates))


@pytest.fixture(scope="module")
def many():
    return tiny.examples(30)


@pytest.fixture(scope="module")
def retriever(many, tmp_path_factory):
    """What is near does not depend on the task."""
    return DenseRetriever(UpstreamIndex.build(many, tiny.HashEncoder(), tmp_path_factory.mktemp("index")))


@pytest.fixture
def mine(bart, tokenizer, many, retriever, tmp_path):
    def call(folder="mined", *, model=bart, retriever=retriever, examples=many, args=None, **kwargs) -> Dataset:
        names = {field.name for field in dataclasses.fields(SupervisionArguments)}
        settings = {name: kwargs.pop(name) for name in list(kwargs) if name in names}
        args = args or SupervisionArguments(**SETTINGS | settings)
        return mine_supervision(model, tokenizer, retriever, examples, tmp_path / folder, args, **kwargs)

    return call


@pytest.fixture(scope="module")
def mined(bart, tokenizer, many, retriever, tmp_path_factory):
    """A folder with four query sets, one of each task, and its pairs; not to be changed."""
    folder = tmp_path_factory.mktemp("mined")
    pairs = mine_supervision(bart, tokenizer, retriever, many, folder, SupervisionArguments(**SETTINGS))
    return folder, pairs


def shards(folder) -> dict[int, int]:
    """When each query set was written."""
    return {int(path.stem): path.stat().st_mtime_ns for path in (folder / "query_sets").glob("[0-9]*.parquet")}


def distinct(retrieved: Dataset, number: int) -> list[str]:
    return list(dict.fromkeys(retrieved["id"]))[:number]


def candidate_ids(row: dict) -> list[str]:
    return [candidate["id"] for candidate in row["candidates"]]


# ---- what is mined ---------------------------------------------------------------------------------------------------


def test_pairs_are_the_queries_with_the_best_and_the_worst_candidates(mined, many):
    folder, pairs = mined
    assert pairs.features == PAIR_FEATURES
    assert len(pairs) == 4 * 3 * 6
    by_id = {row["id"]: row for row in many}
    for row in load_query_sets(folder):
        ordered = sorted(row["candidates"], key=lambda candidate: (-candidate["utility"], candidate["rank"]))
        labels = {candidate["id"]: 1 for candidate in ordered[:3]} | {candidate["id"]: 0 for candidate in ordered[-3:]}
        of_set = [pair for pair in pairs if pair["set"] == row["set"]]
        expected = {(query, candidate, label) for query in row["query_ids"] for candidate, label in labels.items()}
        assert {(pair["query_id"], pair["candidate_id"], pair["label"]) for pair in of_set} == expected
        assert len(of_set) == len(expected)
        utilities = {label: [pair["utility"] for pair in of_set if pair["label"] == label] for label in (0, 1)}
        assert min(utilities[1]) >= max(utilities[0])
    assert sum(pairs["label"]) == len(pairs) / 2
    rank_of = {
        (row["set"], candidate["id"]): candidate["rank"]
        for row in load_query_sets(folder)
        for candidate in row["candidates"]
    }
    for pair in pairs:
        query, candidate = by_id[pair["query_id"]], by_id[pair["candidate_id"]]
        assert (pair["query"], pair["query_task"]) == (query["input"], query["task"])
        assert (pair["candidate"], pair["candidate_task"]) == (candidate["input"], candidate["task"])
        assert pair["answer"] == candidate["references"][0]
        assert pair["rank"] == rank_of[pair["set"], pair["candidate_id"]]


def test_queries_and_held_out_examples_are_of_one_task_and_candidates_of_others(mined, many):
    by_id = {row["id"]: row for row in many}
    sets = load_query_sets(mined[0])
    assert sets.features == SET_FEATURES
    assert sets["set"][:] == [0, 1, 2, 3]
    assert sorted(sets["task"]) == sorted(tiny.TASKS)
    for row in sets:
        drawn = row["query_ids"] + row["held_out_ids"]
        assert (len(row["query_ids"]), len(set(drawn))) == (3, 11)
        assert {by_id[id_]["task"] for id_ in drawn} == {row["task"]}
        assert row["queries"] == [by_id[id_]["input"] for id_ in row["query_ids"]]
        assert row["task"] not in {candidate["task"] for candidate in row["candidates"]}
        assert len(set(candidate_ids(row))) == 12
        assert [candidate["rank"] for candidate in row["candidates"]] == list(range(12))
        assert row["skipped"] == ""


def test_candidates_are_what_the_retriever_finds_for_all_queries_in_turn(mined, retriever):
    for row in load_query_sets(mined[0]):
        others = retriever.excluding([row["task"]])
        assert candidate_ids(row) == distinct(others.retrieve(row["queries"], 36), 12)
        nearest = [others.retrieve([query], 1)["id"][0] for query in row["queries"]]
        assert set(nearest) <= set(candidate_ids(row)[:3])


def test_queries_that_are_near_to_the_same_examples_get_as_many_candidates(many, mine, tmp_path):
    class OnePlace(tiny.HashEncoder):
        """Examples of one task all lie in one place."""

        def encode(self, texts):
            return super().encode(["sum" if text.startswith("Add") else text for text in texts])

    index = UpstreamIndex.build(many, OnePlace(), tmp_path / "index")
    mine(retriever=DenseRetriever(index), num_rounds=1)
    sets = load_query_sets(tmp_path / "mined")
    assert [len(set(candidate_ids(row))) for row in sets] == [12] * 4
    (row,) = [row for row in sets if row["task"] == "sum"]
    alone = DenseRetriever(index).excluding(["sum"]).retrieve(row["queries"][:1], 12)
    assert candidate_ids(row) == alone["id"][:]


def test_a_utility_is_the_mean_over_rounds_of_what_its_groups_lowered_the_loss_by(
    mine, bart, tokenizer, many, tmp_path
):
    # With one step a group, the order within it does not matter.
    args = SupervisionArguments(**SETTINGS | {"per_device_train_batch_size": 4, "num_query_sets": 2})
    mine(args=args)
    row_of = {id_: row for row, id_ in enumerate(many["id"])}
    with GroupTrainer(bart, tokenizer, args) as trainer:
        for row in load_query_sets(tmp_path / "mined"):
            batches = trainer.batches(trainer.tokenize(many.select([row_of[id_] for id_ in row["held_out_ids"]])))
            assert row["base_loss"] == float(trainer.losses(batches).mean())
            losses = row["base_loss"] - np.array([candidate["utilities"] for candidate in row["candidates"]])
            utilities = [candidate["utility"] for candidate in row["candidates"]]
            np.testing.assert_allclose(utilities, row["base_loss"] - losses.mean(axis=1))
            assert losses.shape == (12, 2)
            for turn in range(2):
                groups = {loss: np.flatnonzero(losses[:, turn] == loss) for loss in losses[:, turn]}
                assert [len(members) for members in groups.values()] == [4, 4, 4]
                for loss, members in groups.items():
                    examples = many.select([row_of[row["candidates"][member]["id"]] for member in members])
                    assert trainer.loss_after(trainer.tokenize(examples), batches) == pytest.approx(loss, abs=1e-4)
            assert len({tuple(pair) for pair in losses.tolist()}) > 3  # the rounds differ


def test_tasks_take_turns(mine, tmp_path):
    mine(num_query_sets=9, num_rounds=1)
    tasks = load_query_sets(tmp_path / "mined")["task"][:]
    assert sorted(tasks[:4]) == sorted(tasks[4:8]) == sorted(tiny.TASKS)
    assert tasks[:4] != tasks[4:8]
    sets = [tuple(ids) for ids in load_query_sets(tmp_path / "mined")["query_ids"]]
    assert len(set(sets)) == 9


def test_excluded_tasks_are_neither_queried_nor_retrieved(mine, retriever, tmp_path):
    mine(exclude_tasks=["sum"], num_query_sets=6, num_rounds=1)
    sets = load_query_sets(tmp_path / "mined")
    assert Counter(sets["task"]) == dict.fromkeys(tiny.TASKS.keys() - {"sum"}, 2)
    assert "sum" not in {candidate["task"] for row in sets for candidate in row["candidates"]}
    assert "sum" in retriever.tasks  # the caller's retriever stays as it is
    with pytest.raises(ValueError, match=r"Expected to exclude tasks of the data, found summ, which are none\."):
        mine("other", exclude_tasks=["sum", "summ"])


def test_to_the_letter_the_queries_own_task_is_retrieved_and_dropped(mine, retriever, tmp_path):
    mine(args=SupervisionArguments.paper(**SETTINGS | {"num_labelled": 2}))
    sets = load_query_sets(tmp_path / "mined")
    for row in sets:
        found = retriever.retrieve(row["queries"], 36)
        task_of = dict(zip(found["id"], found["task"], strict=True))
        expected = [id_ for id_ in distinct(found, 12) if task_of[id_] != row["task"]]
        assert candidate_ids(row) == (expected if len(expected) > 4 else [])
    assert any(0 < len(row["candidates"]) < 12 for row in sets)


def test_a_reranker_of_an_earlier_iteration_chooses_the_candidates(mine, retriever, tmp_path):
    mine(reranker=LongestFirst(), upsampling_ratio=1.75, num_rounds=1)
    for row in load_query_sets(tmp_path / "mined"):
        found = retriever.excluding([row["task"]]).retrieve(row["queries"], 63)
        text_of = dict(zip(found["id"], found["input"], strict=True))
        ids = sorted(distinct(found, 21), key=lambda id_: -len(text_of[id_]))[:12]
        assert candidate_ids(row) == ids
        assert [candidate["rank"] for candidate in row["candidates"]] == list(range(12))


def test_the_seed_alone_decides(mine, mined, tmp_path):
    assert mine().to_list() == mined[1].to_list()
    other = mine("other", seed=1)
    for task in tiny.TASKS:
        drawn = [{pair["query_id"] for pair in pairs if pair["query_task"] == task} for pairs in (other, mined[1])]
        assert drawn[0] != drawn[1]


def test_queries_may_come_from_other_examples_than_are_retrieved(mine, many, retriever, tmp_path):
    own = many.filter(lambda row: row["task"] == "sum").map(lambda row: {"id": f"new {row['id']}", "task": "plus"})
    mine(examples=own, num_query_sets=2, num_rounds=1)
    sets = load_query_sets(tmp_path / "mined")
    assert set(sets["task"]) == {"plus"}
    assert all(id_.startswith("new ") for row in sets for id_ in row["query_ids"] + row["held_out_ids"])
    assert "sum" in {candidate["task"] for row in sets for candidate in row["candidates"]}


def test_an_adapter_can_be_fine_tuned_in_place_of_all_weights(mine, mined, tmp_path):
    config = LoraConfig(task_type="SEQ_2_SEQ_LM", r=2)
    pairs = mine(peft_config=config)
    utilities = [np.array(found["utility"]) for found in (pairs, mined[1])]
    assert pairs["query_id"][:] == mined[1]["query_id"][:]
    assert np.abs(utilities[0]).mean() < 0.5 * np.abs(utilities[1]).mean()
    assert mine(peft_config=config, num_query_sets=1).to_list() == pairs.to_list()[:18]
    with pytest.raises(ValueError, match="mined with another peft_config"):
        mine(peft_config=LoraConfig(task_type="SEQ_2_SEQ_LM", r=3))


# ---- going on --------------------------------------------------------------------------------------------------------


def test_an_upstream_adapter_is_merged_in_a_copy(mine, many, tokenizer, tmp_path):
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(tiny.llama(tokenizer, dropout=0.0), config)
    before = copy.deepcopy(model.state_dict())
    pairs = mine("adapter", model=model, num_query_sets=2)
    merged = copy.deepcopy(model).merge_and_unload().requires_grad_(True)
    assert pairs[:] == mine("merged", model=merged, num_query_sets=2)[:]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_another_template_or_other_turns_need_another_folder(many, tmp_path):
    turns = [[{"role": "system", "content": "Answer."}, {"role": "user", "content": text}] for text in many["input"]]
    columns = {name: many[name][:] for name in ("id", "task", "references")}
    tokenizer = chat_tokenizer(CHATML)
    model = tiny.llama(tokenizer, dropout=0.0)

    def mined(examples):
        args, retriever = SupervisionArguments(**SETTINGS | {"num_query_sets": 1}), RandomRetriever(examples)
        return mine_supervision(model, tokenizer, retriever, examples, tmp_path / "mined", args)

    spoken = load_examples(columns | {"prompt": turns, "completion": [one[0] for one in columns["references"]]})
    pairs = mined(spoken)
    assert mined(spoken)[:] == pairs[:]
    # The same texts, of one turn each.
    with pytest.raises(ValueError, match=r"mined with another examples, upstream\. Mine with the same"):
        mined(load_examples(columns | {"input": spoken["input"][:]}))
    set_chat_format(tokenizer, system_prompt="Be short.")
    with pytest.raises(ValueError, match=r"mined with another chat\. Mine with the same"):
        mined(spoken)


def test_what_is_missing_or_damaged_alone_is_mined_again(mine, mined, tmp_path, caplog):
    assert mine().to_list() == mined[1].to_list()
    folder = tmp_path / "mined" / "query_sets"
    before = shards(tmp_path / "mined")
    (folder / "000001.parquet").unlink()
    half_written = folder / "000002.parquet"
    half_written.write_bytes(half_written.read_bytes()[:700])
    (folder / ".000001.parquet.77.partial").write_bytes(b"PAR1")
    pq.write_table(pq.read_table(folder / "000003.parquet").drop_columns("skipped"), folder / "000003.parquet")
    assert mine().to_list() == mined[1].to_list()
    after = shards(tmp_path / "mined")
    assert sorted(after) == [0, 1, 2, 3]
    assert {number for number in after if after[number] != before[number]} == {1, 2, 3}
    assert "000002.parquet is damaged: this query set is mined again" in caplog.text
    mine()
    assert shards(tmp_path / "mined") == after


def test_processes_that_do_not_talk_share_the_sets_and_each_gets_all(mine, mined, tmp_path, monkeypatch):
    original, log = QuerySetMiner.mine, tmp_path / "log"

    def logged(self, number, *rest):
        with log.open("a") as opened:
            opened.write(f"{number} {os.getpid()}\n")
        return original(self, number, *rest)

    monkeypatch.setattr(QuerySetMiner, "mine", logged)

    def work(rank):
        assert mine().to_list() == mined[1].to_list()

    fork(work, number=2)
    numbers, processes = zip(*map(str.split, log.read_text().splitlines()), strict=True)
    assert sorted(numbers) == ["0", "1", "2", "3"]
    assert len(set(processes)) == 2


def test_a_killed_run_loses_nothing_that_was_mined(mine, mined, tmp_path, bart):
    weights = {name: value.clone() for name, value in bart.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        mine(reranker=InterruptedReranker(stops_at=2), upsampling_ratio=1.0)
    killed = shards(tmp_path / "mined")
    assert sorted(killed) == [0, 1]
    assert all(value.equal(weights[name]) for name, value in bart.state_dict().items())
    reranker = InterruptedReranker()
    pairs = mine(reranker=reranker, upsampling_ratio=1.0)
    assert reranker.calls == 2
    assert {number: shards(tmp_path / "mined")[number] for number in killed} == killed
    assert pairs.to_list() == mined[1].to_list()


def test_more_query_sets_keep_the_old_ones_and_fewer_are_the_first(mine, tmp_path):
    pairs = mine(num_query_sets=2)
    before = shards(tmp_path / "mined")
    more = mine(num_query_sets=3)
    assert {number: shards(tmp_path / "mined")[number] for number in before} == before
    assert more.to_list()[: len(pairs)] == pairs.to_list()
    assert set(more["set"]) == {0, 1, 2}
    assert mine(num_query_sets=1).to_list() == pairs.to_list()[: len(pairs) // 2]
    assert sorted(shards(tmp_path / "mined")) == [0, 1, 2]


def test_other_labels_need_no_other_mining(mine, mined, tmp_path):
    mine()
    before = shards(tmp_path / "mined")
    for number in (1, 6):
        pairs = mine(num_labelled=number)
        assert len(pairs) == 4 * 3 * 2 * number
        assert pairs.to_list() == label_pairs(load_query_sets(mined[0]), number).to_list()
    by_task = label_pairs(load_query_sets(mined[0]), 3, by="task")
    assert mine(label_by="task").to_list() == by_task.to_list() != mine().to_list()
    assert shards(tmp_path / "mined") == before


def test_a_set_with_few_candidates_can_be_labelled_with_fewer(mine, many, tmp_path):
    few = RandomRetriever(many.select(range(115, 120)).map(lambda row: {"task": "few"}))
    with pytest.raises(ValueError, match=r"at least 2 x 3 candidates, found none among 4: all have fewer"):
        mine(retriever=few)
    assert len(mine(retriever=few, num_labelled=2)) == 4 * 3 * 4


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        ({"learning_rate": 2e-2, "num_rounds": 3}, "learning_rate, num_rounds"),
        ({"reranker": ShortestFirst()}, "reranker"),
        ({"exclude_tasks": ["sum"]}, "exclude_tasks, retriever"),
        ({"peft_config": LoraConfig(task_type="SEQ_2_SEQ_LM")}, "peft_config"),
        ({"model": "other"}, "model"),
        ({"examples": "other"}, "examples"),
        ({"retriever": "random"}, "retriever"),
        ({"retriever": "other"}, "retriever, upstream"),
    ],
)
def test_another_run_needs_another_folder(change, differing, mine, mined, many, tokenizer, tmp_path):
    (tmp_path / "mined").mkdir()
    (tmp_path / "mined" / "supervision.json").write_bytes((mined[0] / "supervision.json").read_bytes())
    things = {
        ("model", "other"): lambda: tiny.bart(tokenizer, seed=1),
        ("examples", "other"): lambda: many.select([0, *range(2, 120)]),
        ("retriever", "random"): lambda: RandomRetriever(many),
        ("retriever", "other"): lambda: RandomRetriever(many.select(range(100))),
    }
    change = {name: things[name, value]() if isinstance(value, str) else value for name, value in change.items()}
    with pytest.raises(
        ValueError,
        match=rf"mined holds query sets that were mined with another {differing}\. Mine with the same, or choose another",
    ):
        mine(**change)
    assert not (tmp_path / "mined" / "query_sets").exists()


@pytest.mark.parametrize("kind", ["class", "cross-encoder"])
def test_a_reranker_is_named_as_in_folders_of_earlier_versions(kind, mine, pair_tokenizer, cross_encoder, tmp_path):
    reranker = LongestFirst() if kind == "class" else CrossEncoderReranker(cross_encoder, pair_tokenizer)
    mine(reranker=reranker, num_query_sets=1, num_rounds=1)
    expected = "LongestFirst" if kind == "class" else reranker.identity()
    assert json.loads((tmp_path / "mined" / "supervision.json").read_text())["reranker"] == expected


def test_the_folder_names_no_place_of_this_machine_and_may_have_any_name(mine, mined, tmp_path):
    assert mine("task=sum").to_list() == mined[1].to_list()
    settings = (tmp_path / "task=sum" / "supervision.json").read_text()
    assert str(tmp_path) not in settings
    assert json.loads(settings)["learning_rate"] == 1e-2
    assert mine("task=sum").to_list() == mined[1].to_list()


# ---- what cannot be mined --------------------------------------------------------------------------------------------


def test_tasks_without_enough_examples_are_left_out(mine, many, tmp_path, caplog):
    few = concatenate_datasets([many.select(range(60)), many.select(range(60, 70)), many.select(range(90, 94))])
    mine(examples=few, num_rounds=1)
    assert (
        "2 of 4 tasks have fewer than 11 examples (num_queries + num_held_out) and are not mined: opposite (4), sum (10)."
        in caplog.text
    )
    sets = load_query_sets(tmp_path / "mined")
    assert set(sets["task"]) == {"colour", "sentiment"}
    assert "sum" in {candidate["task"] for row in sets for candidate in row["candidates"]}


def test_some_task_must_have_enough_examples(mine, many, tmp_path):
    with pytest.raises(
        ExampleError,
        match=r"at least 3 \+ 100 = 103 examples \(num_queries \+ num_held_out\), found colour \(30\), .*\. Lower `num_held_",
    ):
        mine(num_held_out=100)
    with pytest.raises(ExampleError, match=r"num_held_out\), found no task\."):
        mine(examples=many.select(range(30)), exclude_tasks=["sentiment"])
    with pytest.raises(ExampleError, match=r"Expected the columns id, task, input and references, found id, task, "):
        mine(examples=many.remove_columns("references"))
    assert not (tmp_path / "mined").exists()


def test_a_set_without_candidates_is_skipped_and_counted(mine, many, tmp_path, caplog):
    own = RandomRetriever(many, exclude_tasks=tiny.TASKS.keys() - {"sum"})
    pairs = mine(retriever=own)
    assert set(pairs["query_task"]) == tiny.TASKS.keys() - {"sum"}
    summary = summarize_supervision(load_query_sets(tmp_path / "mined"))
    assert (summary["num_sets"], summary["num_mined"]) == (4, 3)
    assert summary["skipped"] == {"no candidates of other tasks": 1}
    assert "(sum) is skipped: no candidates of other tasks." in caplog.text
    assert "1 of 4 query sets have fewer than 2 x 3 candidates and are left out" in caplog.text


def test_groups_that_diverge_are_counted(mine, tmp_path):
    with pytest.raises(
        ValueError,
        match=r"at least 2 x 3 candidates, found none among 2: every group diverged \(2\)\. Mine with more candidates",
    ):
        mine(learning_rate=1e38, num_query_sets=2)
    summary = summarize_supervision(load_query_sets(tmp_path / "mined"))
    assert (summary["num_mined"], summary["skipped"], summary["diverged_groups"]) == (
        0,
        {"every group diverged": 2},
        12,
    )
    assert summary["utility_mean"] is summary["reliability"] is summary["base_loss"] is None
    assert json.loads(json.dumps(summary)) == summary


def test_candidates_of_a_group_that_diverges_have_the_utilities_of_the_other_rounds(mine, tokenizer, tmp_path):
    model, steps = tiny.bart(tokenizer), []

    def spoil(module, inputs, logits):
        if logits.requires_grad:
            steps.append(1)
            return logits * np.nan if len(steps) == 1 else None

    model.lm_head.register_forward_hook(spoil)
    mine(model=model, num_query_sets=1)
    (row,) = load_query_sets(tmp_path / "mined")
    losses = row["base_loss"] - np.array([candidate["utilities"] for candidate in row["candidates"]])
    assert (row["diverged_groups"], row["skipped"], len(losses)) == (1, "", 12)
    assert np.isnan(losses).sum() == 4
    utilities = [candidate["utility"] for candidate in row["candidates"]]
    np.testing.assert_allclose(utilities, row["base_loss"] - np.nanmean(losses, axis=1))
    assert summarize_supervision(load_query_sets(tmp_path / "mined"))["reliability"] is not None


def test_a_folder_without_query_sets_is_none(tmp_path):
    (tmp_path / "query_sets").mkdir()
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(
            FileNotFoundError, match=r"Expected mined query sets in .*query_sets, found none\. Mine some"
        ):
            load_query_sets(folder)


# ---- figures ---------------------------------------------------------------------------------------------------------


def query_set(number: int, task: str, losses: np.ndarray, tasks: list[str], base_loss: float = 2.0) -> dict:
    candidates = [
        {"id": f"{other}/{rank}", "task": other, "input": "x", "answer": "y", "rank": rank}
        | {"utility": base_loss - float(np.nanmean(of_rounds)), "utilities": (base_loss - of_rounds).tolist()}
        for rank, (other, of_rounds) in enumerate(zip(tasks, losses, strict=True))
    ]
    return {
        "set": number,
        "task": task,
        "queries": ["q"],
        "query_ids": [f"{task}/q"],
        "held_out_ids": [],
        "base_loss": base_loss,
        "candidates": candidates,
        "diverged_groups": 0,
        "skipped": "",
    }


def sets_of(*rows: dict) -> Dataset:
    return Dataset.from_list(list(rows), features=SET_FEATURES)


def test_a_summary_says_who_helps_whom(tmp_path):
    skipped = query_set(2, "c", np.empty((0, 2)), []) | {"base_loss": None, "skipped": "too few", "diverged_groups": 3}
    rows = [
        query_set(0, "a", np.array([[1.0, 2.0], [2.0, 2.0], [3.0, 4.0]]), ["b", "b", "c"]),
        query_set(1, "b", np.array([[1.0, 1.0], [3.0, 3.0]]), ["a", "c"], base_loss=3.0),
        skipped,
    ]
    summary = summarize_supervision(sets_of(*rows))
    assert summary["task_pairs"] == [
        {"query_task": "b", "candidate_task": "a", "num_candidates": 1, "utility": 2.0},
        {"query_task": "a", "candidate_task": "b", "num_candidates": 2, "utility": 0.25},
        {"query_task": "b", "candidate_task": "c", "num_candidates": 1, "utility": 0.0},
        {"query_task": "a", "candidate_task": "c", "num_candidates": 1, "utility": -1.5},
    ]
    utilities = [0.5, 0.0, -1.5, 2.0, 0.0]
    assert summary["utility_mean"] == pytest.approx(np.mean(utilities))
    assert summary["utility_std"] == pytest.approx(np.std(utilities))
    assert (summary["share_helpful"], summary["base_loss"]) == (0.4, 2.5)
    assert (summary["num_sets"], summary["num_mined"], summary["num_query_tasks"]) == (3, 2, 2)
    assert (summary["num_candidates"], summary["diverged_groups"], summary["skipped"]) == (5, 3, {"too few": 1})
    for number, row in enumerate(rows):
        write_parquet(sets_of(row), tmp_path / "query_sets" / f"{number:06d}.parquet")
    assert summarize_supervision(load_query_sets(tmp_path)) == summary


def test_reliability_is_one_where_rounds_agree_and_zero_for_noise():
    rng = np.random.default_rng(0)
    quality = rng.normal(size=(60, 1))
    noise = rng.normal(size=(2, 60, 3))

    def reliability(*losses: np.ndarray) -> float | None:
        rows = [query_set(number, "a", found, ["b"] * len(found)) for number, found in enumerate(losses)]
        return summarize_supervision(sets_of(*rows))["reliability"]

    agreed = quality + np.array([0.0, 1.0, 2.0])
    assert reliability(agreed) == pytest.approx(1)
    assert abs(reliability(*noise)) < 0.15
    assert reliability(agreed, noise[0]) == pytest.approx((1 + reliability(noise[0])) / 2)
    assert reliability(quality + noise[0]) == pytest.approx(0.5, abs=0.15)  # as much noise as there is to see
    with_nan = agreed.copy()
    with_nan[::7, 1] = np.nan
    assert reliability(with_nan) == pytest.approx(1)
    assert reliability(quality) is None  # one round
    assert reliability(agreed[:2]) is None
    assert reliability(np.ones((5, 2))) is None


def test_labels_follow_the_utility_and_among_equals_the_retrievers_order():
    losses = np.array([[1.0], [3.0], [1.0], [2.0], [3.0], [1.0]])
    pairs = label_pairs(sets_of(query_set(0, "a", losses, ["b"] * 6)), 2)
    assert list(zip(pairs["candidate_id"], pairs["label"], strict=True)) == [
        ("b/0", 1),
        ("b/2", 1),
        ("b/1", 0),
        ("b/4", 0),
    ]
    everything = label_pairs(sets_of(query_set(0, "a", losses, ["b"] * 6)), 3)
    assert everything["candidate_id"][:] == ["b/0", "b/2", "b/5", "b/3", "b/1", "b/4"]


def test_labels_can_follow_the_utility_of_whole_tasks():
    # Utilities: 0.9 of d, the mean -0.1 of b, 0.5 of c; halved for d, which has one candidate, and less so for the others.
    losses = np.array([[1.1], [1.1], [3.1], [1.4], [1.6], [2.0]])
    sets = sets_of(query_set(0, "a", losses, ["d", "b", "b", "c", "c", "c"]))
    pairs = label_pairs(sets, 3, by="task")
    assert pairs["candidate_task"][:] == ["d", "c", "c", "c", "b", "b"]
    assert pairs["label"][:] == [1, 1, 1, 0, 0, 0]
    assert pairs["utility"][:] == pytest.approx([0.45, 0.25, 0.25, 0.25, -0.2 / 3, -0.2 / 3])
    assert label_pairs(sets, 3)["candidate_task"][:] == ["d", "b", "c", "c", "c", "b"]
    with pytest.raises(ValueError, match="`by` to be 'example' or 'task', found 'tasks'"):
        label_pairs(sets, 3, by="tasks")
