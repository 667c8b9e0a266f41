import copy
import json
from collections import Counter

import numpy as np
import pytest
import tiny
import torch
from contents import same, weights
from datasets import concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainingArguments

from recross_hf import CrossEncoderReranker, RerankerTrainingArguments, split_by_task, train_reranker
from recross_hf.reranking.evaluation import evaluate_reranker
from recross_hf.reranking.losses import binary, pairwise, regression
from recross_hf.reranking.pair_tokenizer import PairTokenizer
from recross_hf.reranking.trainer import RerankerTrainer

PAIRS = tiny.pairs(num_sets=12)
LOSSES = [binary, regression, pairwise]


@pytest.fixture
def make_args(tmp_path):
    def make(folder="out", **settings) -> RerankerTrainingArguments:
        settings = {
            "max_steps": 2,
            "per_device_train_batch_size": 12,
            "warmup_steps": 0,
            "learning_rate": 3e-3,
        } | settings
        settings = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "logging_steps": 1} | settings
        return RerankerTrainingArguments(output_dir=str(tmp_path / folder), **settings)

    return make


@pytest.fixture
def make_trainer(make_args, pair_tokenizer, cross_encoder):
    def make(model=None, *, train=PAIRS, dev=None, loss=binary, **settings) -> RerankerTrainer:
        return RerankerTrainer(
            model or copy.deepcopy(cross_encoder),
            make_args(**settings),
            train_dataset=train,
            eval_dataset=dev,
            processing_class=copy.deepcopy(pair_tokenizer),
            loss=loss,
        )

    return make


def logged(trainer: RerankerTrainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


class ByUtility(CrossEncoderReranker):
    """Knows the utilities of [`tiny.pairs`]; each query adds some noise of its own that cancels out in the mean."""

    def __init__(self, sign=1.0):
        self.sign, self.asked, self.include_answers = sign, [], False
        self.aggregation = lambda scores: scores.mean(axis=0)
        self.utility_of = dict(zip(PAIRS["candidate"][:], PAIRS["utility"][:], strict=True))

    def score(self, queries, candidates):
        self.asked.append((list(queries), list(candidates)))
        noise = np.linspace(-100, 100, len(queries))[:, None]
        return self.sign * np.array([[self.utility_of[text] for text in candidates]]) + noise


# ---- held-out tasks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [{"num_dev_tasks": 1}, {"num_dev_tasks": 2, "seed": 3}, {"dev_tasks": {"colour"}}])
def test_no_text_of_a_held_out_task_is_trained_on(choice):
    train, dev = split_by_task(PAIRS, **choice)
    held_out = set(dev["query_task"])
    assert len(held_out) == choice.get("num_dev_tasks", 1)
    assert held_out >= choice.get("dev_tasks", set())
    assert not held_out & {*train["query_task"], *train["candidate_task"]}
    assert {*train["query_task"], *held_out} == set(tiny.TASKS)
    of_dev = PAIRS.filter(lambda row: row["query_task"] in held_out)
    assert dev.to_dict() == of_dev.to_dict()
    assert len(set(dev["candidate_task"])) > 1
    kept = PAIRS.filter(lambda row: not held_out & {row["query_task"], row["candidate_task"]})
    assert train.to_dict() == kept.to_dict()


def test_the_seed_draws_the_tasks():
    drawn = [tuple(split_by_task(PAIRS, num_dev_tasks=1, seed=seed)[1]["query_task"][:1]) for seed in range(20)]
    again = [tuple(split_by_task(PAIRS, num_dev_tasks=1, seed=seed)[1]["query_task"][:1]) for seed in range(20)]
    assert drawn == again
    assert len(set(drawn)) == 4


@pytest.mark.parametrize(
    "choice, match",
    [
        ({"dev_tasks": ["colour", "red"]}, "found red, which are none. Query tasks: colour, opposite, sentiment, sum"),
        ({"num_dev_tasks": 0}, "between 1 and 3, for there are 4 query tasks, found 0"),
        ({"num_dev_tasks": 4}, "between 1 and 3, for there are 4 query tasks, found 4"),
        ({"num_dev_tasks": 3}, "pairs in both splits, found 0 to train on and 108 held out"),
        ({"dev_tasks": []}, "pairs in both splits, found 144 to train on and 0 held out"),
    ],
)
def test_impossible_splits_are_refused(choice, match):
    with pytest.raises(ValueError, match=match):
        split_by_task(PAIRS, **choice)


@pytest.mark.parametrize("choice", [{}, {"dev_tasks": ["sum"], "num_dev_tasks": 1}])
def test_tasks_are_named_or_drawn(choice):
    with pytest.raises(TypeError, match="`dev_tasks` or `num_dev_tasks`, one of them"):
        split_by_task(PAIRS, **choice)


# ---- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_what_helps_is_learned_and_found_in_an_unseen_task(loss, make_args):
    tokenizer = tiny.pair_tokenizer("bert")
    train, dev = split_by_task(PAIRS, dev_tasks=["sum"])
    model = tiny.cross_encoder(tokenizer, "bert")
    untrained = evaluate_reranker(CrossEncoderReranker(copy.deepcopy(model), tokenizer), dev)
    args = make_args(max_steps=60, group_by_query=loss is pairwise)
    reranker = train_reranker(model, tokenizer, train, args, loss=loss)
    found = evaluate_reranker(reranker, dev)
    assert reranker.model is model
    assert untrained["auc"] < 0.8
    assert found["auc"] > 0.9
    assert found["spearman"] > 0.5
    assert found["num_sets"] == 3


@pytest.mark.parametrize("loss", LOSSES)
def test_accumulated_gradients_are_those_of_a_larger_batch(loss, make_trainer):
    runs = []
    for size, steps in ((12, 1), (6, 2)):
        trainer = make_trainer(
            train=PAIRS.select(range(12)),
            loss=loss,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            group_by_query=True,
            max_steps=1,
            optim="sgd",
            learning_rate=0.1,
        )
        before = weights(trainer.model)
        trainer.train()
        runs.append((logged(trainer, "grad_norm")[0], logged(trainer, "loss")[0], weights(trainer.model)))
        assert not same(weights(trainer.model), before)
    (norm, loss, updated), (other_norm, other_loss, other_updated) = runs
    assert other_norm == pytest.approx(norm, rel=1e-3)
    assert other_loss == pytest.approx(loss, rel=1e-3)
    assert same(updated, other_updated, atol=1e-5)


def test_the_logged_loss_is_the_mean_of_the_function(make_trainer, pair_tokenizer, cross_encoder):
    some = PAIRS.select(range(12))
    trainer = make_trainer(train=some, max_steps=1)
    trainer.train()
    reranker = CrossEncoderReranker(cross_encoder, pair_tokenizer)
    scores = [reranker.score([row["query"]], [row["candidate"]]).item() for row in some]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(scores), torch.tensor(some["label"][:], dtype=torch.float32)
    )
    assert logged(trainer, "loss")[0] == pytest.approx(expected.item(), rel=1e-4)


def test_the_seed_alone_decides_the_run(make_trainer):
    def run(seed: int, **settings) -> dict[str, torch.Tensor]:
        trainer = make_trainer(seed=seed, **settings)
        trainer.train()
        return weights(trainer.model)

    first = run(1)
    assert same(run(1, dev=PAIRS.select(range(24)), eval_strategy="steps", eval_steps=1), first)
    assert not same(run(2), first)


def test_the_seed_decides_the_order_of_queries(make_trainer):
    def order(**settings) -> list[int]:
        loader = make_trainer(group_by_query=True, **settings).get_train_dataloader()
        return [query for batch in loader for query in batch["query"].tolist()]

    assert order(seed=1) == order(seed=1) == order(seed=2, data_seed=1)
    assert order(seed=1) != order(seed=2)
    assert order(seed=1, data_seed=0) == order(seed=0)


def test_the_model_learns_from_answers_if_asked_to(make_trainer, monkeypatch):
    texts = []
    tokenize = PairTokenizer.tokenize
    monkeypatch.setattr(PairTokenizer, "tokenize", lambda self, new: texts.extend(new) or tokenize(self, new))
    trainer = make_trainer(train=PAIRS.select([0]), include_answers=True)
    assert texts == [PAIRS[0]["query"], f"{PAIRS[0]['candidate']} {PAIRS[0]['answer']}"]
    assert trainer.reranker().include_answers
    assert not make_trainer(train=PAIRS.select([0])).reranker().include_answers


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_each_distinct_text_is_tokenised_once(make_trainer, monkeypatch):
    texts = Counter()
    tokenize = PairTokenizer.tokenize
    monkeypatch.setattr(PairTokenizer, "tokenize", lambda self, new: texts.update(new) or tokenize(self, new))
    trainer = make_trainer()
    assert texts == Counter({*PAIRS["query"], *PAIRS["candidate"]})
    batch = next(iter(trainer.get_train_dataloader()))
    assert set(texts.values()) == {1}
    assert {name: len(values) for name, values in batch.items() if name != "attention_mask"} == dict.fromkeys(
        ("input_ids", "label", "utility", "query"), 12
    )


def test_a_batch_is_made_of_the_pairs_of_the_data(make_trainer, pair_tokenizer):
    rows = [0, 7, 100, 13]
    trainer = make_trainer(max_length=20)
    batch = trainer.data_collator([trainer.train_dataset[row] for row in rows])
    some = PAIRS.select(rows)
    expected = pair_tokenizer(
        some["query"][:], some["candidate"][:], truncation=True, max_length=20, padding=True, return_tensors="pt"
    )
    assert batch["input_ids"].tolist() == expected["input_ids"].tolist()
    assert batch["label"].tolist() == some["label"][:]
    assert batch["label"].dtype == batch["utility"].dtype == torch.float32


def test_batches_by_query_hold_whole_queries_and_change_with_the_epoch(make_trainer):
    loader = make_trainer(group_by_query=True, per_device_train_batch_size=12).get_train_dataloader()
    epochs = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        batches = [Counter(batch["query"].tolist()) for batch in loader]
        assert all(list(batch.values()) == [6, 6] for batch in batches)
        assert sum(batches, Counter()) == Counter(dict.fromkeys(range(24), 6))
        epochs.append([tuple(batch) for batch in batches])
    assert epochs[0] != epochs[1]


def test_the_best_checkpoint_on_held_out_tasks_can_be_kept(make_trainer, tmp_path):
    train, dev = split_by_task(PAIRS, num_dev_tasks=1)
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_auc", "greater_is_better": True}
    trainer = make_trainer(
        train=train,
        dev=dev,
        max_steps=6,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        **best,
    )
    trainer.train()
    history = {entry["step"]: entry["eval_auc"] for entry in trainer.state.log_history if "eval_auc" in entry}
    assert trainer.state.best_metric == max(history.values())
    assert evaluate_reranker(trainer.reranker(), dev)["auc"] == pytest.approx(max(history.values()))


def test_sets_of_two_runs_with_the_same_number_stay_apart(make_trainer):
    other = PAIRS.map(lambda row: {"query_task": "other", "utility": -5 * row["utility"]}, features=PAIRS.features)
    both = concatenate_datasets([PAIRS, other])
    alone, joined = make_trainer(train=PAIRS).train_dataset, make_trainer(train=both).train_dataset
    np.testing.assert_allclose(joined.utilities[: len(PAIRS)], alone.utilities)
    np.testing.assert_allclose(joined.utilities[len(PAIRS) :], -alone.utilities)
    perfect = evaluate_reranker(ByUtility(), PAIRS)
    assert evaluate_reranker(ByUtility(), both)["num_sets"] == 2 * perfect["num_sets"]


@pytest.mark.parametrize(
    "settings, kwargs, match",
    [
        ({"label_smoothing_factor": 0.1}, {}, "`label_smoothing_factor` is not used"),
        ({}, {"compute_metrics": len}, "There is no `compute_metrics` to pass"),
    ],
)
def test_what_would_be_ignored_is_refused(settings, kwargs, match, tmp_path):
    tokenizer = tiny.pair_tokenizer()
    args = RerankerTrainingArguments(tmp_path, use_cpu=True, report_to="none", **settings)
    with pytest.raises((ValueError, TypeError), match=match):
        RerankerTrainer(tiny.cross_encoder(tokenizer), args, train_dataset=PAIRS, processing_class=tokenizer, **kwargs)


def test_a_model_in_half_precision_is_refused(tmp_path):
    tokenizer = tiny.pair_tokenizer()
    args = RerankerTrainingArguments(tmp_path, use_cpu=True, report_to="none")
    with pytest.raises(ValueError, match=r"Expected weights in float32, found torch\.float16"):
        RerankerTrainer(tiny.cross_encoder(tokenizer).half(), args, train_dataset=PAIRS, processing_class=tokenizer)


def test_queries_of_two_sets_are_not_compared(make_trainer):
    columns = PAIRS.to_dict() | {"query": ["the same"] * len(PAIRS)}
    dataset = make_trainer(train=PAIRS.from_dict(columns, features=PAIRS.features)).train_dataset
    assert dataset.query_of == PAIRS["set"][:]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.1, 0.3, -7.7, 1e3])), min_size=1, max_size=20))
@settings(max_examples=25)
def test_utilities_are_standardised_within_their_set(tmp_path_factory, rows):
    tokenizer = tiny.pair_tokenizer()
    numbers, utilities = map(np.array, zip(*rows, strict=True))
    names = ("query", "candidate", "answer")
    pairs = PAIRS.select(range(len(rows))).to_dict() | {name: ["x"] * len(rows) for name in (*names, "query_task")}
    pairs = PAIRS.from_dict(pairs | {"set": numbers, "utility": utilities}, features=PAIRS.features)
    trainer = RerankerTrainer(
        tiny.cross_encoder(tokenizer),
        RerankerTrainingArguments(tmp_path_factory.getbasetemp(), use_cpu=True, report_to="none"),
        train_dataset=pairs,
        processing_class=tokenizer,
    )
    found = np.array([trainer.train_dataset[row]["utility"] for row in range(len(rows))])
    for number in set(numbers):
        of_set, before = found[numbers == number], utilities[numbers == number]
        if len(set(before)) == 1:
            assert (of_set == 0).all()
        else:
            assert of_set.mean() == pytest.approx(0, abs=1e-9)
            assert of_set.std() == pytest.approx(1)
            assert np.corrcoef(of_set, before)[0, 1] == pytest.approx(1)


# ---- evaluation ------------------------------------------------------------------------------------------------------


def test_a_perfect_scorer_is_found_perfect():
    found = evaluate_reranker(ByUtility(), PAIRS)
    assert (found["auc"], found["num_sets"]) == (1, 12)
    assert found["spearman"] == pytest.approx(1)
    found = evaluate_reranker(ByUtility(-1), PAIRS)
    assert found["auc"] == 0
    assert found["spearman"] == pytest.approx(-1)


def test_a_set_is_scored_whole_and_each_candidate_once():
    scorer = ByUtility()
    evaluate_reranker(scorer, PAIRS)
    for number, (queries, candidates) in enumerate(scorer.asked):
        rows = PAIRS.select(range(12 * number, 12 * number + 12))
        assert queries == list(dict.fromkeys(rows["query"]))
        assert sorted(candidates) == sorted(set(rows["candidate"]))
    assert len(scorer.asked) == 12


def test_figures_of_both_rankings_are_those_counted_by_hand():
    # One query, four candidates: by rank, the labels are 1 0 1 0 and the utilities 4 1 3 2.
    columns = PAIRS.select(range(4)).to_dict()
    columns |= {"query": ["q"] * 4, "candidate_id": list("abcd"), "label": [1, 1, 0, 0], "set": [5] * 4}
    columns |= {"utility": [4.0, 3.0, 1.0, 2.0], "rank": [0, 20, 10, 30]}
    scorer = ByUtility()
    scorer.utility_of = dict(zip(columns["candidate"], [3.0, -1.0, 2.0, -5.0], strict=True))
    scorer.score = lambda queries, texts: np.array([[scorer.utility_of[text] for text in texts]])
    found = evaluate_reranker(scorer, PAIRS.from_dict(columns, features=PAIRS.features))
    # The retriever wins 3 of 4 comparisons, and ranks 4 1 3 2 (1 - 6 * 6 / 60 ... of differences 0 2 1 1).
    assert found["dense_auc"] == pytest.approx(3 / 4)
    assert found["dense_spearman"] == pytest.approx(1 - 6 * (0 + 1 + 4 + 1) / (4 * 15))
    assert found["dense_accuracy"] == pytest.approx(2 / 4)
    # The scores order a c b d: the same.
    assert (found["auc"], found["accuracy"]) == (3 / 4, 2 / 4)
    assert found["spearman"] == pytest.approx(found["dense_spearman"])


def test_figures_are_means_over_sets():
    alone = [
        evaluate_reranker(ByUtility(), PAIRS.select(range(12 * number, 12 * number + 12))) for number in range(12)
    ]
    together = evaluate_reranker(ByUtility(), PAIRS)
    assert together.pop("num_sets") == 12
    for name, value in together.items():
        assert value == pytest.approx(np.mean([figures[name] for figures in alone]))
    assert len({figures["dense_auc"] for figures in alone}) > 3


def test_no_pairs_cannot_be_evaluated(make_trainer):
    with pytest.raises(ValueError, match="Expected at least one pair, found none"):
        evaluate_reranker(ByUtility(), PAIRS.select([]))
    with pytest.raises(ValueError, match="Expected pairs to evaluate on, found none"):
        make_trainer().evaluate()


def test_figures_are_logged_while_training(make_trainer):
    train, dev = split_by_task(PAIRS, dev_tasks=["sum"])
    trainer = make_trainer(train=train, dev=dev, max_steps=-1, num_train_epochs=2, eval_strategy="epoch")
    trainer.train()
    assert len(logged(trainer, "eval_auc")) == 2
    found = evaluate_reranker(trainer.reranker(), dev)
    assert {name: logged(trainer, f"eval_{name}")[-1] for name in found} == pytest.approx(found)
    few = trainer.evaluate(dev.select(range(12)), metric_key_prefix="few")
    assert few["few_num_sets"] == 1


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_a_reranker_and_training_goes_on_from_it(make_trainer, tmp_path):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "max_length": 40, "group_by_query": True}
    whole = make_trainer(folder="whole", **settings)
    whole.train()
    folder = tmp_path / "whole" / "checkpoint-3"
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "training_args.json"} <= names
    assert "training_args.bin" not in names
    assert json.loads((folder / "training_args.json").read_text())["max_length"] == 40
    assert CrossEncoderReranker.from_pretrained(folder).max_length == 40
    resumed = make_trainer(folder="resumed", **settings)
    resumed.train(resume_from_checkpoint=str(folder))
    assert resumed.state.global_step == 6
    assert same(weights(resumed.model), weights(whole.model), atol=1e-6)
    assert not same(weights(CrossEncoderReranker.from_pretrained(folder).model), weights(whole.model), atol=1e-4)
    ended = make_trainer(folder="ended", **settings)
    ended.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"))
    assert ended.state.global_step == 6
    assert same(weights(ended.model), weights(whole.model))


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"per_device_train_batch_size": 6}, "`per_device_train_batch_size` 6 in place of 12"),
        ({"gradient_accumulation_steps": 2}, "`gradient_accumulation_steps` 2 in place of 1"),
        ({"seed": 3}, "`data_seed` 3 in place of 42"),
        ({"max_length": 30}, "`max_length` 30 in place of 512"),
        ({"group_by_query": True}, "`group_by_query` True in place of False"),
        ({"include_answers": True}, "`include_answers` True in place of False, `train_data` .* in place of .*"),
        ({"train": PAIRS.shuffle(seed=0)}, "`train_data` .* in place of .*"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_is_not_resumed_with_other_batches(changed, match, make_trainer):
    settings = {"save_strategy": "steps", "save_steps": 1}
    make_trainer(**settings).train()
    with pytest.raises(ValueError, match=f"that made the batches of .*checkpoint-2, found {match}. Resume with"):
        make_trainer(**settings | changed).train(resume_from_checkpoint=True)


def test_the_best_checkpoint_can_be_loaded_at_the_end(make_trainer, tmp_path):
    train, dev = split_by_task(PAIRS, dev_tasks=["sum"])
    trainer = make_trainer(
        train=train,
        dev=dev,
        max_steps=4,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="spearman",
    )
    trainer.train()
    found = logged(trainer, "eval_spearman")
    best = CrossEncoderReranker.from_pretrained(tmp_path / "out" / f"checkpoint-{1 + int(np.argmax(found))}")
    assert same(weights(trainer.model), weights(best.model))


def test_a_trained_reranker_is_saved_with_its_settings(make_trainer, tmp_path):
    trainer = make_trainer(max_length=24, include_answers=True)
    trainer.train()
    trainer.save_model()
    assert {path.suffix for path in (tmp_path / "out").iterdir() if path.is_file()} == {".json", ".safetensors"}
    loaded = CrossEncoderReranker.from_pretrained(tmp_path / "out")
    assert (loaded.max_length, loaded.include_answers) == (24, True)
    assert loaded.identity() == trainer.reranker().identity()


# ---- arguments -------------------------------------------------------------------------------------------------------


def test_a_model_is_refused_before_it_is_trained_in_vain(
    make_trainer, make_args, cross_encoder, tokenizer, pair_tokenizer
):
    with pytest.raises(ValueError, match="Expected a model with one label, found 2"):
        make_trainer(tiny.cross_encoder(pair_tokenizer, num_labels=2))
    with pytest.raises(ValueError, match="puts a separator between the two texts of a pair"):
        RerankerTrainer(cross_encoder, make_args(), train_dataset=PAIRS, processing_class=tokenizer)


def test_arguments_are_those_of_a_reranker(cross_encoder, pair_tokenizer, tmp_path):
    plain = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(TypeError, match="to be a RerankerTrainingArguments, found TrainingArguments"):
        RerankerTrainer(cross_encoder, plain, processing_class=pair_tokenizer)
    with pytest.raises(ValueError, match="room for two texts, at least 8 tokens, found 7"):
        RerankerTrainingArguments(max_length=7)


def test_the_defaults_are_those_of_the_authors_code():
    args = RerankerTrainingArguments()
    assert (args.learning_rate, args.num_train_epochs, args.per_device_train_batch_size) == (1e-5, 5, 64)
    assert (args.warmup_steps, args.max_length, args.save_strategy) == (100, 512, "no")
    assert (args.include_answers, args.group_by_query) == (False, False)


def test_a_pair_is_no_longer_than_the_model_takes(make_trainer):
    assert make_trainer(max_length=512).reranker().max_length == 64


def test_comparisons_need_batches_by_query(make_trainer):
    with pytest.raises(ValueError, match="Expected `group_by_query=True` with the pairwise loss"):
        make_trainer(loss=pairwise)


def test_the_former_name_of_the_loss_works_and_warns(make_args, pair_tokenizer, cross_encoder):
    def trained(**kwargs) -> CrossEncoderReranker:
        return train_reranker(copy.deepcopy(cross_encoder), pair_tokenizer, PAIRS, make_args(), **kwargs)

    with pytest.warns(DeprecationWarning, match="argument `objective` is now `loss`"):
        former = trained(objective=regression)
    assert same(weights(former.model), weights(trained(loss=regression).model))
    assert not same(weights(former.model), weights(trained().model))
    with pytest.warns(DeprecationWarning, match="argument `objective` is now `loss`"):
        trainer = RerankerTrainer(cross_encoder, make_args(), processing_class=pair_tokenizer, objective=regression)
    assert trainer.loss is regression


def test_weights_that_are_no_numbers_are_not_trained_from(cross_encoder, make_trainer):
    model = copy.deepcopy(cross_encoder)
    with torch.no_grad():
        model.classifier.out_proj.bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"found NaN or infinity in classifier\.out_proj\.bias"):
        make_trainer(model).train()
