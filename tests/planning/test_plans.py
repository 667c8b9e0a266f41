import copy
from dataclasses import replace

import faiss
import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model

from recross_hf import (
    DenseRetriever,
    ExampleTrainer,
    ExampleTrainingArguments,
    MeanPooledEncoder,
    MixtureArguments,
    ReCrossPipeline,
    SupervisionArguments,
    TaskSource,
    mine_supervision,
    prepare_mixture,
)
from recross_hf.core.files import write_parquet
from recross_hf.mixture.sources import SourceError
from recross_hf.mixture.trial import try_out
from recross_hf.planning import index as index_plan
from recross_hf.planning import probe, training
from recross_hf.planning.index import index_bytes, plan_index
from recross_hf.planning.mining import plan_mining
from recross_hf.planning.mixture import plan_mixture
from recross_hf.planning.resources import Resources
from recross_hf.planning.training import checkpoint_bytes, plan_training, tokenizer_bytes, training_bytes
from recross_hf.supervision.utility import by_groups


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    for module in (probe, index_plan):
        monkeypatch.setattr(module, "PROBE_SECONDS", 0.2)


@pytest.mark.parametrize(
    "factory",
    [
        "Flat",
        "SQ8",
        "SQfp16",
        "IVF16,Flat",
        "IVF16,SQ8",
        "IVF16,PQ4np",
        "IVF16,PQ4np,Refine(SQfp16)",
        "HNSW16",
        "HNSW16,SQ8",
        "PCA8,IVF16,Flat",
    ],
)
def test_bytes_of_an_index_are_known_beforehand(factory):
    vectors = np.random.default_rng(0).standard_normal((2000, 16), dtype=np.float32)
    index = faiss.index_factory(16, factory)
    index.train(vectors)
    index.add(vectors)
    assert index_bytes(16, 2000, factory) == pytest.approx(len(faiss.serialize_index(index)), rel=0.12)


def test_the_disk_that_an_index_takes_is_that_of_the_plan(bart, tokenizer, examples, tmp_path):
    encoder = MeanPooledEncoder(bart, tokenizer)
    plan = plan_index(examples, encoder, tmp_path / "out", factory="SQ8", model=bart)
    assert not list(tmp_path.iterdir())
    ReCrossPipeline.build(bart, tokenizer, examples, tmp_path / "out", encoder=encoder, factory="SQ8")
    files = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".safetensors", ".faiss", ".parquet")]
    assert plan.kept == pytest.approx(sum(path.stat().st_size for path in files), rel=0.2)
    assert plan.disk == plan.kept + 4 * encoder.dimension * len(examples)
    assert plan.seconds.expected > 0
    assert 0 < plan.shared <= 1
    assert plan.warnings == []
    assert plan.work == f"An index of {len(examples)} examples, 32 dimensions, SQ8"


def arguments(folder, **settings) -> ExampleTrainingArguments:
    return ExampleTrainingArguments(
        folder, **{"use_cpu": True, "max_target_length": 12, "token_budget": 200} | settings
    )


@pytest.fixture
def make_trainer(tokenizer):
    made = []

    def make(data, args):
        made.append(ExampleTrainer(tiny.bart(tokenizer), args, train_dataset=data, processing_class=tokenizer))
        return made[-1]

    make.made = made
    return make


@pytest.mark.parametrize(
    "settings", [{}, {"gradient_accumulation_steps": 2}, {"token_budget": None, "per_device_train_batch_size": 4}]
)
def test_a_training_has_the_steps_and_the_disk_of_its_plan(settings, make_trainer, examples, tmp_path):
    args = arguments(tmp_path / "out", num_train_epochs=2, save_steps=4, save_total_limit=2, **settings)
    plan = plan_training(make_trainer, examples, args, eval_sample=examples.select(range(4)), num_eval_examples=8)
    assert not (tmp_path / "out").exists()
    assert 0 < plan.shared < 1
    trainer = make_trainer(examples, args)
    trainer.train()
    trainer.save_model()
    assert f", {trainer.state.max_steps} steps" in plan.work
    names = ("*.safetensors", "optimizer.pt", "tokenizer*.json")
    written = [path for name in names for path in (tmp_path / "out").rglob(name)]
    assert plan.kept == pytest.approx(sum(path.stat().st_size for path in written), rel=0.1)
    assert plan.disk > plan.kept


@pytest.mark.parametrize(("seconds", "evaluated"), [(15.0, 20), (0.0, 8)])
def test_a_plan_evaluates_a_few_examples_where_all_of_the_sample_would_take_long(
    seconds, evaluated, make_trainer, examples, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "PROBE_SECONDS", seconds)
    sample = examples.select(range(20))
    args = arguments(tmp_path, max_steps=7)
    plan = plan_training(make_trainer, examples, args, eval_sample=sample, num_eval_examples=8)
    assert plan.probe.endswith(f", {evaluated} examples evaluated")


def test_a_probe_begins_with_the_largest_batches(make_trainer, examples, tmp_path):
    plan_training(make_trainer, examples, arguments(tmp_path, max_steps=5))
    (trainer,) = make_trainer.made
    loader = trainer.get_train_dataloader()
    tokens = [batch["input_ids"].numel() for batch in loader]
    assert tokens[0] == max(tokens)


def test_a_training_of_so_many_steps_takes_as_long_on_more_processes(make_trainer, examples, tmp_path):
    plan = plan_training(make_trainer, examples, arguments(tmp_path, max_steps=7))
    assert "7 steps" in plan.work
    assert plan.seconds_on(8) == plan.seconds.expected


def test_what_is_too_large_by_itself_is_not_tried_out(make_trainer, examples, tmp_path, monkeypatch):
    monkeypatch.setattr(Resources, "of", classmethod(lambda cls, *_: Resources(10_000, None, 10**12)))
    plan = plan_training(make_trainer, examples, arguments(tmp_path, max_steps=7))
    assert plan.seconds is None
    assert make_trainer.made[0].state.global_step == 0
    assert "memory of" in plan.warnings[0]
    assert "Lower --token_budget or --per_device_train_batch_size" in plan.warnings[0]


def test_what_training_holds_at_least():
    model = torch.nn.Linear(3, 2)
    assert training_bytes(model) == 8 * 4 * 4
    model.bias.requires_grad_(False)
    assert training_bytes(model) == 6 * 4 * 4 + 2 * 4


@pytest.mark.parametrize(
    ("settings", "most", "stay"),
    [
        ({"save_strategy": "no"}, 0, 0),
        ({"save_steps": 10, "save_total_limit": 3}, 4, 3),
        ({"save_steps": 50, "save_total_limit": 3}, 2, 2),
        ({"save_steps": 10}, 10, 10),
        ({"save_strategy": "epoch", "num_train_epochs": 5}, 5, 5),
    ],
)
def test_checkpoints_are_counted(settings, most, stay, bart, tokenizer, tmp_path):
    args = arguments(tmp_path, **settings)
    weights = 4 * sum(parameter.numel() for parameter in bart.parameters())
    assert checkpoint_bytes(bart, args, 100) == (max(3 * most, 3 * stay + 1) * weights, (3 * stay + 1) * weights)
    args.save_only_model = True
    assert checkpoint_bytes(bart, args, 100) == (max(most, stay + 1) * weights, (stay + 1) * weights)
    of_each = weights + tokenizer_bytes(tokenizer)
    found = checkpoint_bytes(bart, args, 100, of_tokenizer=tokenizer_bytes(tokenizer))
    assert found == (max(most, stay + 1) * of_each, (stay + 1) * of_each)


def test_a_plan_of_an_adapter_counts_the_tokenizer_beside_it(tokenizer, examples, tmp_path):
    def make(data, args):
        lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=1, target_modules=["q_proj"])
        model = get_peft_model(tiny.bart(tokenizer), lora)
        return ExampleTrainer(model, args, train_dataset=data, processing_class=tokenizer)

    args = arguments(tmp_path / "out", max_steps=4, save_steps=2, save_only_model=True)
    plan = plan_training(make, examples, args)
    trainer = make(examples, args)
    trainer.train()
    trainer.save_model()
    written = [path for name in ("*.safetensors", "tokenizer*.json") for path in (tmp_path / "out").rglob(name)]
    assert plan.kept == pytest.approx(sum(path.stat().st_size for path in written), rel=0.2)


def test_mining_is_planned_from_a_few_sets(bart, tokenizer, index, examples, tmp_path):
    args = SupervisionArguments(
        num_query_sets=40, num_queries=2, num_held_out=4, num_candidates=6, group_size=3, num_rounds=1, num_labelled=2
    )
    before = copy.deepcopy(args)
    plan = plan_mining(
        tiny.bart(tokenizer), tokenizer, DenseRetriever(index), examples, tmp_path / "out", args, num_probed=3
    )
    assert args == before
    assert not list(tmp_path.iterdir())
    assert plan.work == "Mining 40 query sets"
    assert plan.probe == "3 of them"
    assert plan.seconds.expected > 0
    assert plan.shared == 1.0


def test_a_plan_of_mining_counts_the_sets_and_the_pairs_on_disk(tokenizer, index, examples, tmp_path):
    args = SupervisionArguments(
        num_query_sets=3, num_queries=2, num_held_out=4, num_candidates=6, group_size=3, num_rounds=1, num_labelled=2
    )
    what = (tiny.bart(tokenizer), tokenizer, DenseRetriever(index), examples, tmp_path / "mined")
    plan = plan_mining(*what, args, num_probed=3)
    write_parquet(mine_supervision(*what, args), tmp_path / "pairs.parquet")
    written = sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    assert written * 0.95 < plan.disk < written * 1.05
    ten_times = plan_mining(*what, replace(args, num_query_sets=30), num_probed=3)
    assert ten_times.disk == pytest.approx(10 * plan.disk, rel=0.01)
    with pytest.warns(DeprecationWarning, match="argument `judge` is now `utility_estimator`"):
        assert plan_mining(*what, args, num_probed=3, judge=by_groups).disk == plan.disk


def test_a_plan_of_mining_needs_two_sets(bart, tokenizer, index, examples, tmp_path):
    args = SupervisionArguments(
        num_query_sets=1, num_queries=2, num_held_out=4, num_candidates=6, group_size=3, num_rounds=1, num_labelled=2
    )
    with pytest.raises(ValueError, match="Expected at least two query sets with estimated utilities, found 1 of 1"):
        plan_mining(tiny.bart(tokenizer), tokenizer, DenseRetriever(index), examples, tmp_path, args)


@pytest.fixture
def task_of_files(tmp_path):
    rows = [{"said": f"Number {n} is {'even' if n % 2 == 0 else 'odd'}.", "answer": str(n % 2)} for n in range(3000)]
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    return TaskSource("parity", files=str(tmp_path / "rows.parquet"), templates="{{said}} Odd? ||| {{answer}}")


def test_a_plan_of_upstream_data_is_what_comes_out(task_of_files, tmp_path):
    args = MixtureArguments(max_examples_per_task=2000, max_dev_examples_per_task=100)
    plan = plan_mixture([task_of_files], tmp_path / "planned", args)
    assert not (tmp_path / "planned").exists()
    report = prepare_mixture([task_of_files], tmp_path / "made", args)["parity"]
    assert f"{report['train'] + report['dev']:,} upstream examples of 1 tasks" in str(plan)
    written = sum(path.stat().st_size for path in (tmp_path / "made" / "parity").glob("*.parquet"))
    assert written / 3 < plan.disk < 3 * written
    assert plan.seconds.low <= plan.seconds.expected <= plan.seconds.high
    assert not plan.warnings
    two = plan_mixture([task_of_files], tmp_path / "planned", args, num_proc=2)
    assert two.memory > plan.memory
    assert "made by 2 processes" in str(two)


def test_what_is_tried_out_is_not_cut_by_the_cap_nor_lost_where_rows_give_nothing(task_of_files, tmp_path):
    few = try_out(task_of_files, MixtureArguments(max_examples_per_task=10))
    assert few.num_tried > 100
    assert few.num_examples < 400
    rows = [{"said": f"Number {n}.", "answer": "" if n < 2500 else "1"} for n in range(5000)]
    Dataset.from_list(rows).to_parquet(tmp_path / "late.parquet")
    late = TaskSource("late", files=str(tmp_path / "late.parquet"), templates=task_of_files.templates)
    assert try_out(late, MixtureArguments()).num_tried > 0


@pytest.mark.parametrize(("copies", "num_proc", "match"), [(2, 1, "each task once"), (1, 0, "at least 1, found 0")])
def test_a_plan_refuses_what_the_work_would(copies, num_proc, match, task_of_files, tmp_path):
    with pytest.raises(ValueError, match=match):
        plan_mixture([task_of_files] * copies, tmp_path, num_proc=num_proc)


def test_a_plan_refuses_a_folder_of_other_settings(task_of_files, tmp_path):
    args = MixtureArguments(max_examples_per_task=20)
    prepare_mixture([task_of_files], tmp_path / "made", args)
    plan_mixture([task_of_files], tmp_path / "made", args)
    other = TaskSource("other", files=task_of_files.files, templates=task_of_files.templates)
    message = r"parity in .*made was prepared with other settings or data \(max_examples_per_task\)"
    for call in (plan_mixture, prepare_mixture):
        with pytest.raises(ValueError, match=message):
            call([other], tmp_path / "made", MixtureArguments(max_examples_per_task=30))


def test_a_plan_of_upstream_data_says_what_cannot_be_had(task_of_files, tmp_path, caplog):
    gone = TaskSource("gone", files=str(tmp_path / "gone.parquet"), templates="{{said}} ||| {{answer}}")
    with pytest.raises(SourceError, match="gone"):
        plan_mixture([task_of_files, gone], tmp_path / "out")
    assert "of 1 tasks" in str(plan_mixture([task_of_files, gone], tmp_path / "out", skip_failed_tasks=True))
    assert "Left out: Task gone" in caplog.text
    with pytest.raises(SourceError, match="Expected a task that can be had, found none"):
        plan_mixture([gone], tmp_path / "out", skip_failed_tasks=True)
