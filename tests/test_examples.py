"""The examples, run as a user runs them: each test is one command, two of them in processes of their own."""

import json
import logging
import os
import random
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import tiny
import torch
import transformers
from accelerate.state import AcceleratorState, PartialState
from datasets import Dataset
from example_scripts import EXAMPLES, as_of_a_new_process, ended, run
from huggingface_hub import DatasetCard
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BertModel

from recross_hf import (
    CrossEncoderReranker,
    EvaluationResults,
    ReCrossPipeline,
    load_examples,
    load_model,
    load_query_sets,
)
from recross_hf.supervision.pairs import PAIR_FEATURES

FAST = ["--use_cpu", "--disable_tqdm", "true", "--report_to", "none", "--save_strategy", "no"]


def started(folder: Path, *arguments: object) -> str:
    """What a Python of its own printed."""
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-1000:]}\n{done.stderr[-2500:]}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer, examples):
    """A user's folder: two pretrained models, upstream examples of four tasks, and inputs and answers of a fifth."""
    folder = tmp_path_factory.mktemp("user")
    tiny.bart(tokenizer).save_pretrained(folder / "bart")
    torch.manual_seed(0)
    BertModel(tiny.bert_config(tokenizer)).save_pretrained(folder / "bert")
    for name in ("bart", "bert"):
        tokenizer.save_pretrained(folder / name)
    for task in tiny.TASKS:
        (folder / "upstream" / task).mkdir(parents=True)
        rows = examples.filter(lambda row, task=task: row["task"] == task)
        rows.rename_column("references", "outputs").to_parquet(folder / "upstream" / task / "train.parquet")
    (folder / "tickets.txt").write_text("\n\n".join(tiny.queries()))
    labelled = [{"question": f"Is it {word}?", "answer": answer} for word in "abc" for answer in ("yes", "no")]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    return folder


@pytest.fixture(scope="module")
def upstream_run(folder):
    """The folder of an upstream model trained by a recipe, and what was printed."""
    recipe = {"model_name_or_path": "bart", "columns": ["references=outputs"], "max_steps": 3, "learning_rate": 1e-2}
    (folder / "recipe.yaml").write_text(json.dumps(recipe | {"token_budget": 400, "mixing_temperature": 2.0}))
    output = run(
        folder,
        "train_upstream.py",
        *("--config", "recipe.yaml", "--train_files", "upstream/*/train.parquet", "--eval_files", "upstream/sum"),
        *("upstream/colour", "--max_eval_examples_per_task", 5, "--output_dir", "bart0", "--max_steps", 20),
        *("--max_examples_per_task", 10, "--max_target_length", 8, *FAST[:-1], "steps", "--save_steps", 19),
    )
    return folder / "bart0", output


@pytest.fixture(scope="module")
def upstream_model(upstream_run):
    return upstream_run[0]


@pytest.fixture(scope="module")
def pipeline_folder(folder, upstream_model):
    output = run(
        folder,
        "build_index.py",
        *("--model_name_or_path", "bart0", "--train_files", "upstream", "--columns", "references=outputs"),
        *("--output_dir", "pipeline", "--factory", "SQ8", "--max_input_length", 60, "--learning_rate", 1e-3),
    )
    assert "48 examples indexed in pipeline." in output
    return folder / "pipeline"


def test_an_upstream_model_is_trained_from_a_pretrained_one_by_a_recipe(folder, upstream_run, tokenizer):
    upstream_model, output = upstream_run
    results = json.loads((upstream_model / "eval_results.json").read_text())
    assert set(results) == {"eval_loss", "eval_soft_em", "eval_exact_match", "decoding", "tasks"}
    assert list(results["tasks"]) == ["colour", "sum"]
    for found in results["tasks"].values():
        assert found["n"] == 5
        assert 0 <= found["exact_match"] <= found["soft_em"] <= 100
    losses = [found["loss"] for found in results["tasks"].values()]
    assert results["eval_loss"] == pytest.approx(sum(losses) / 2)
    assert results["eval_loss"] < 5.0  # 6.7 before
    assert [
        line.split()[0] for line in output.splitlines() if line.startswith(("task ", "colour ", "sum ", "mean "))
    ] == [
        "task",
        "colour",
        "sum",
        "mean",
    ]
    settings = json.loads((upstream_model / "training_args.json").read_text())
    assert (settings["max_steps"], settings["token_budget"], settings["learning_rate"]) == (20, 400, 1e-2)
    model = AutoModelForSeq2SeqLM.from_pretrained(upstream_model)
    assert len(AutoTokenizer.from_pretrained(upstream_model)) == len(tokenizer)
    before = AutoModelForSeq2SeqLM.from_pretrained(folder / "bart").state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_upstream_run_resumes_from_its_last_checkpoint(folder, upstream_model):
    shutil.copytree(upstream_model, folder / "again")
    shutil.rmtree(folder / "again" / "checkpoint-20", ignore_errors=True)
    (folder / "again" / "model.safetensors").unlink()
    line = ["--config", "recipe.yaml", "--train_files", "upstream/*/train.parquet", "--max_examples_per_task", 10]
    line += ["--max_target_length", 8, "--max_steps", 20, *FAST, "--resume_from_checkpoint", "true", "--output_dir"]
    run(folder, "train_upstream.py", *line, "again")
    resumed, unbroken = (
        AutoModelForSeq2SeqLM.from_pretrained(path).state_dict() for path in (folder / "again", upstream_model)
    )
    assert all(torch.equal(value, unbroken[name]) for name, value in resumed.items())
    code, _, errors = ended(folder, "train_upstream.py", *line, "elsewhere")
    assert (code, errors.count("\n")) == (2, 1)
    assert "No checkpoint to resume from in elsewhere: expected a checkpoint-* folder" in errors


def test_a_decoder_only_model_is_trained_indexed_and_adapted(folder):
    tokenizer = tiny.causal_tokenizer()
    tiny.gpt2(tokenizer).save_pretrained(folder / "gpt2")
    tokenizer.save_pretrained(folder / "gpt2")
    run(
        folder,
        "train_upstream.py",
        *("--train_files", "upstream", "--columns", "references=outputs", "--model_name_or_path", "gpt2"),
        *("--drop_long_targets", "--max_target_length", 8, "--output_dir", "gpt0", "--max_steps", 2, *FAST),
    )
    assert type(load_model(folder / "gpt0")).__name__ == "GPT2LMHeadModel"
    output = run(
        folder,
        "build_index.py",
        *("--model_name_or_path", "gpt0", "--train_files", "upstream", "--columns", "references=outputs"),
        *("--output_dir", "gpt-pipeline", "--vector_dtype", "float16"),
    )
    assert "48 examples indexed" in output
    run(
        folder,
        "adapt.py",
        *("--pipeline", "gpt-pipeline", "--query_file", "tickets.txt", "--eval_file", "test.jsonl"),
        *("--columns", "input=question", "references=answer", "--use_peft", "--num_retrieved", 12, "--max_steps", 2),
        *("--output_dir", "gpt-adapted", *FAST),
    )
    adapted = PeftModel.from_pretrained(load_model(folder / "gpt-pipeline" / "upstream_model"), folder / "gpt-adapted")
    assert adapted.peft_config["default"].task_type == "CAUSAL_LM"
    assert "AutoModelForCausalLM" in (folder / "gpt-adapted" / "README.md").read_text()


def test_an_upstream_model_is_grown_from_an_encoder(folder):
    run(
        folder,
        "train_upstream.py",
        *("--train_files", "upstream/sum", "upstream/colour", "--columns", "references=outputs"),
        *("--encoder_name_or_path", "bert", "--decoder_layers", 1, "--freeze_embeddings", "--drop_long_targets"),
        *("--truncation_side", "left", "--max_target_length", 6, "--output_dir", "bert0", "--max_steps", 2, *FAST),
    )
    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "bert0")
    assert model.config.decoder.num_hidden_layers == 1
    assert AutoTokenizer.from_pretrained(folder / "bert0").truncation_side == "left"
    bert = BertModel.from_pretrained(folder / "bert")
    words = model.encoder.get_input_embeddings().weight
    assert torch.equal(words, bert.get_input_embeddings().weight)
    first = model.encoder.encoder.layer[0].output.dense.weight
    assert not torch.equal(first, bert.encoder.layer[0].output.dense.weight)


def test_how_a_model_is_grown_is_not_said_of_one_that_is_there(folder):
    line = ["--train_files", "upstream", "--model_name_or_path", "bart", "--output_dir", "never", "--use_cpu"]
    line += ["--eval_strategy", "no", "--encoder_layers", 1, "--decoder_layers", 2, "--no_copying_start"]
    with pytest.raises(
        AssertionError,
        match=r"--encoder_layers, --decoder_layers, --copying_start: .* grown from --encoder_name_or_path",
    ):
        run(folder, "train_upstream.py", *line)
    assert not (folder / "never").exists()


def test_a_pipeline_is_built(pipeline_folder, examples):
    pipeline = ReCrossPipeline.from_pretrained(pipeline_folder)
    assert sorted(pipeline.index.dataset["id"]) == sorted(examples["id"])
    assert pipeline.index.config["factory"] == "SQ8"
    assert pipeline.adaptation == {"max_input_length": 60, "max_target_length": 64, "learning_rate": 1e-3}


def test_a_model_is_adapted_and_evaluated(folder, pipeline_folder):
    output = run(
        folder,
        "adapt.py",
        *("--pipeline", "pipeline", "--query_file", "tickets.txt", "--eval_file", "test.jsonl", "--task", "tickets"),
        *("--columns", "input=question", "references=answer", "--exclude_tasks", "sum", "--output_dir", "dense"),
        *("--num_retrieved", 10, "--max_steps", 3, "--max_target_length", 8, *FAST),
    )
    results = json.loads((folder / "dense" / "results.json").read_text())
    assert (results["task"], results["num_queries"], results["num_retrieved"]) == ("tickets", 4, 10)
    for name in ("base", "adapted"):
        assert results[name]["n"] == 6
        assert 0 <= results[name]["exact_match"] <= results[name]["soft_em"] <= 100
    assert sum(results["retrieved_tasks"].values()) == pytest.approx(1)
    assert results["retrieved_tasks"]
    assert "sum" not in results["retrieved_tasks"]
    stages = ["load", "evaluate base", "retrieve", "train", "gate", "evaluate adapted", "save"]
    assert list(results["seconds"]) == stages
    assert "tickets: 4 unlabelled inputs, 10 upstream examples (DenseRetriever)" in output
    assert "Written to dense/" in output
    check_folder(folder / "dense", 10)
    settings = json.loads((folder / "dense" / "training_args.json").read_text())
    assert (settings["learning_rate"], settings["max_input_length"]) == (1e-3, 60)  # as the pipeline says
    adapted = AutoModelForSeq2SeqLM.from_pretrained(folder / "dense").state_dict()
    upstream = AutoModelForSeq2SeqLM.from_pretrained(pipeline_folder / "upstream_model").state_dict()
    assert any(not torch.equal(value, upstream[name]) for name, value in adapted.items())


@pytest.mark.slow
def test_a_model_is_adapted_by_the_launcher(folder, pipeline_folder):
    output = started(
        folder,
        *(
            "-m",
            "accelerate.commands.launch",
            EXAMPLES / "adapt.py",
            "--pipeline",
            "pipeline",
            "--output_dir",
            "launched",
        ),
        *(
            "--query_file",
            "tickets.txt",
            "--eval_file",
            "test.jsonl",
            "--columns",
            "input=question",
            "references=answer",
        ),
        *("--num_retrieved", 10, "--max_steps", 1, "--max_target_length", 8, *FAST),
    )
    assert "tickets: 4 unlabelled inputs, 10 upstream examples (DenseRetriever)" in output
    assert "Written to launched/" in output
    results = json.loads((folder / "launched" / "results.json").read_text())
    assert (results["base"]["n"], results["adapted"]["n"]) == (6, 6)
    check_folder(folder / "launched", 10)
    AutoModelForSeq2SeqLM.from_pretrained(folder / "launched")


@pytest.mark.parametrize(
    "script", sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "starter_tasks.py")
)
def test_a_script_says_what_it_takes(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    monkeypatch.syspath_prepend(EXAMPLES)
    with as_of_a_new_process(), pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert end.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_what_a_script_sets_for_its_process_does_not_outlive_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")

    def state() -> list:
        levels = {name: logging.getLogger(name).level for name in (None, "transformers", "datasets", "recross_hf")}
        bars = [transformers.utils.logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled()]
        drawn = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
        group = [dict(kind._shared_state) for kind in (AcceleratorState, PartialState)]
        return [levels, bars, drawn, group, logging.root.handlers[:], dict(os.environ), os.getcwd(), sys.argv[:]]

    before = state()
    run(tmp_path, "benchmark.py", "--pipeline", "./nowhere", exit_code=2)
    assert state() == before


def test_lora_on_random_examples_without_an_evaluation(folder, pipeline_folder):
    output = run(
        folder,
        "adapt.py",
        *("--pipeline", "pipeline", "--query_file", "tickets.txt", "--num_queries", 2, "--retriever", "random"),
        *("--use_peft", "--lora_r", 2, "--preset", "as_run", "--max_steps", 2, "--num_retrieved", 6, "--seed", 5),
        *("--output_dir", "lora", *FAST),
    )
    results = json.loads((folder / "lora" / "results.json").read_text())
    assert (results["task"], results["num_queries"], results["num_retrieved"]) == ("tickets", 2, 6)
    assert results["base"] is results["adapted"] is None
    assert (results["retriever"], results["seed"]) == ("RandomRetriever", 5)
    assert "Not evaluated: no labelled examples were given." in output
    check_folder(folder / "lora", 6)
    settings = json.loads((folder / "lora" / "training_args.json").read_text())
    assert (settings["sum_token_loss"], settings["learning_rate"], settings["max_steps"]) == (True, 6e-6, 2)
    base = AutoModelForSeq2SeqLM.from_pretrained(pipeline_folder / "upstream_model")
    model = PeftModel.from_pretrained(base, folder / "lora")
    assert model.peft_config["default"].r == 2


MINING = [
    *("--pipeline", "pipeline", "--preset", "as_run", "--num_query_sets", 5, "--num_queries", 2, "--num_held_out", 6),
    *("--num_candidates", 40, "--group_size", 10, "--num_rounds", 2, "--num_labelled", 3, "--learning_rate", 1e-2),
    *("--max_target_length", 8, "--judge", "groups"),  # its former name
]


@pytest.fixture(scope="module")
def mined(folder, pipeline_folder):
    """The folder of mined supervision, and what was printed."""
    return folder / "supervision", run(folder, "mine_supervision.py", "--output_dir", "supervision", *MINING)


def test_a_mining_that_went_on_does_not_say_how_long_all_of_it_took(folder, mined):
    again = shutil.copytree(mined[0], folder / "gone-on")
    next(again.glob("query_sets/*4.parquet")).unlink()
    output = run(folder, "mine_supervision.py", "--output_dir", "gone-on", *MINING)
    summary, before = (json.loads((path / "summary.json").read_text()) for path in (again, mined[0]))
    assert summary["seconds"] is None
    assert summary["last_run"]["num_sets"] == 1
    assert summary["last_run"]["seconds"] > 0
    timed = {"seconds", "last_run"}
    assert {name: summary[name] for name in summary.keys() - timed} == {
        name: before[name] for name in before.keys() - timed
    }
    card = (again / "README.md").read_text()
    assert "| num pairs |" in card and "| seconds |" not in card and "None" not in output
    assert "| seconds |" in (mined[0] / "README.md").read_text()


def test_supervision_is_mined(mined):
    folder, output = mined
    assert "Written to supervision/: query_sets/, pairs.parquet" in output
    sets = load_query_sets(folder)
    assert len(sets) == 5
    settings = json.loads((folder / "supervision.json").read_text())
    preset = {"retrieve_own_task": True, "sum_token_loss": True}
    assert {name: settings[name] for name in preset} == preset
    pairs = Dataset.from_parquet(str(folder / "pairs.parquet"))
    assert pairs.features == PAIR_FEATURES
    assert set(pairs["label"]) == {0, 1}
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["num_sets"], summary["num_pairs"]) == (5, len(pairs))
    assert summary["seconds"] == summary["last_run"]["seconds"] > 0
    assert summary["last_run"]["num_sets"] == 5
    assert sum(pair["num_candidates"] for pair in summary["task_pairs"]) == summary["num_candidates"]
    assert f"{summary['num_mined']} query sets of" in output
    card = DatasetCard.load(folder / "README.md")
    assert card.data.to_dict()["configs"] == [{"config_name": "default", "data_files": "pairs.parquet"}]
    assert f"| num pairs | {len(pairs)} |" in card.text
    assert "| `retrieve_own_task` | True |" in card.text
    assert (folder / "task_utilities.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "task_utilities.png").stat().st_size > 5000


@pytest.fixture(scope="module")
def reranking_folder(folder, pipeline_folder, mined):
    """A copy of the pipeline with a reranker trained on what was mined."""
    tokenizer = tiny.pair_tokenizer()
    tiny.cross_encoder(tokenizer).save_pretrained(folder / "cross")
    tokenizer.save_pretrained(folder / "cross")
    shutil.copytree(pipeline_folder, folder / "reranking")
    output = run(
        folder,
        "train_reranker.py",
        *("--pairs", "supervision/pairs.parquet", "--output_dir", "reranker", "--model_name_or_path", "cross"),
        *("--num_dev_tasks", 1, "--max_steps", 4, "--learning_rate", 1e-3, "--max_length", 48),
        *(
            "--objective",  # its former name
            "pairwise",
            "--group_by_query",
            "--add_to_pipeline",
            "reranking",
            "--freeze_embeddings",
            *FAST,
        ),
    )
    assert "on held-out tasks" in output
    assert "Written to reranker/ and reranking/" in output
    return folder / "reranking"


def test_a_reranker_is_trained_and_added_to_the_pipeline(folder, reranking_folder):
    metrics = json.loads((folder / "reranker" / "dev_metrics.json").read_text())
    assert {"auc", "accuracy", "spearman", "dense_auc", "num_sets"} <= set(metrics)
    assert len(metrics["dev_tasks"]) == 1
    reranker = CrossEncoderReranker.from_pretrained(folder / "reranker")
    before = CrossEncoderReranker.from_pretrained(folder / "cross")
    assert reranker.identity() == ReCrossPipeline.from_pretrained(reranking_folder).reranker.identity()
    assert reranker.identity()["weights"] != before.identity()["weights"]
    embeddings = [model.model.get_input_embeddings().weight for model in (reranker, before)]
    assert torch.equal(*embeddings)
    assert reranker.max_length == 48


@pytest.mark.parametrize(
    ("options", "reranker", "selected"),
    [
        ([], "CrossEncoderReranker", "best of 2 x by CrossEncoderReranker"),
        (["--no_rerank"], None, None),
        (["--no_rerank", "--select_by", "task"], None, "main tasks of 2 x"),
    ],
    ids=["reranked", "dense", "dense by task"],
)
def test_a_model_is_adapted_with_the_pipelines_reranker_or_without(
    options, reranker, selected, folder, reranking_folder
):
    output = run(
        folder,
        "adapt.py",
        *("--pipeline", "reranking", "--query_file", "tickets.txt", "--output_dir", "reranked", *options),
        *("--num_retrieved", 8, "--max_steps", 1, "--max_target_length", 8, *FAST),
    )
    results = json.loads((folder / "reranked" / "results.json").read_text())
    assert results["reranker"] == reranker
    assert ("rerank" in results["seconds"]) == (reranker is not None)
    assert results["upsampling_ratio"] == (2.0 if selected else None)
    assert f"(DenseRetriever{', ' + selected if selected else ''})" in output
    retrieved = Dataset.from_parquet(str(folder / "reranked" / "retrieved.parquet"))
    assert ("score" in retrieved.column_names) == (reranker is not None)
    if reranker:
        assert results["seconds"]["rerank"] > 0
        assert list(results["seconds"]) == ["load", "retrieve", "rerank", "train", "gate", "save"]


def check_folder(folder: Path, num_retrieved: int) -> None:
    assert (folder / "retrieved_tasks.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "retrieved_tasks.png").stat().st_size > 5000
    retrieved = Dataset.from_parquet(str(folder / "retrieved.parquet"))
    assert len(retrieved) == num_retrieved
    assert {"rank", "query", "distance"} <= set(retrieved.column_names)
    assert len(load_examples(retrieved, columns={"id": "rank"})) == num_retrieved
    assert f"selected {num_retrieved} examples" in (folder / "README.md").read_text()
    assert not list(folder.glob("*.bin"))


def test_upstream_data_is_prepared(folder, tmp_path):
    (tmp_path / "tickets.csv").write_text(
        "text,desk\n" + "".join(f"Parcel {n} is lost,delivery\nBill {n} is wrong,billing\n" for n in range(30))
    )
    (tmp_path / "tasks.yaml").write_text(
        "upstream:\n"
        "  - {task: tickets, files: tickets.csv, templates: '{{text}}. Which desk? ||| {{desk}}'}\n"
        "  - {task: gone, files: gone.csv, templates: '{{text}} ||| {{desk}}'}\n"
        "targets:\n"
        "  - {task: calls, files: calls.jsonl, columns: {input: said, references: desk}}\n"
    )
    call = {"said": "Parcel 7 is lost. Which desk?", "desk": "delivery"}
    (tmp_path / "calls.jsonl").write_text(json.dumps(call) + "\n")
    output = run(
        tmp_path,
        "prepare_upstream.py",
        *("--tasks", "tasks.yaml", "--output_dir", "upstream", "--skip_failed_tasks", "--num_proc", 2),
    )
    assert "Left out: Task gone: No file at gone.csv" in output
    assert "54 training examples of 1 tasks in upstream, compared with 1 target texts" in output.replace(
        "53 tr", "54 tr"
    )
    examples = load_examples(tmp_path / "upstream" / "tickets" / "train-*.parquet")
    assert "Parcel 7 is lost. Which desk?" not in examples["input"][:]
    assert "Bill 7 is wrong. Which desk?" in [
        *examples["input"][:],
        *load_examples(tmp_path / "upstream" / "tickets" / "dev-*.parquet")["input"][:],
    ]

    output = run(
        folder,
        *("prepare_upstream.py", "--files", "upstream/*/train.parquet", "--columns", "references=outputs"),
        *("--output_dir", tmp_path / "plain", "--only", "sum", "colour", "--max_dev_examples_per_task", 2),
    )
    assert "of 2 tasks in" in output
    assert "not compared with any target task" in output


def test_methods_of_other_papers_are_compared(folder, pipeline_folder, tmp_path):
    listed = {"task": "tickets", "test": "test.jsonl", "queries": ["tickets.txt"]}
    columns = {"columns": {"input": "question", "references": "answer"}}
    (tmp_path / "targets.yaml").write_text(json.dumps({"targets": [listed | columns]}))
    names = ["none", "rds", "sift", "dense_replay", "in_context", "in_context_per_task"]
    run(
        folder,
        *("benchmark.py", "--pipeline", "pipeline", "--target_tasks", tmp_path / "targets.yaml", "--num_test", 2),
        *("--methods", *names, "--num_in_context", 2, "--max_input_length", 64, "--output_dir", tmp_path / "out"),
        *("--num_retrieved", 6, "--max_target_length", 4, "--use_cpu", "--use_peft"),
    )
    cells = {cell.method: cell for cell in EvaluationResults.load(tmp_path / "out").cells}
    assert [*cells][: len(names)] == names and not any(cell.error for cell in cells.values())
    assert cells["in_context"].details["in_context"]["num_examples"] == 2
    assert cells["in_context"].details["settings"]["generation"]["max_input_length"] == 64
    assert cells["rds"].details["settings"]["method"]["retriever"]["index"]["factory"] == "L2norm,Flat"
    assert (tmp_path / "out" / "rds").is_dir()


def test_methods_are_compared_on_target_tasks(folder, pipeline_folder, tmp_path):
    listed = {"task": "tickets", "test": "test.jsonl", "queries": ["tickets.txt"]}
    columns = {"columns": {"input": "question", "references": "answer"}}
    (tmp_path / "targets.yaml").write_text(json.dumps({"targets": [listed | columns]}))
    common = [
        *("benchmark.py", "--pipeline", "pipeline", "--target_tasks", tmp_path / "targets.yaml", "--num_queries", 3),
        *("--num_test", 4, "--num_retrieved", 6, "--max_target_length", 4, "--use_cpu", "--use_peft"),
    ]
    methods = ["--methods", "none", "random", "bm25", "dense_by_task", "--ablations", "dense_by_task"]
    command = [*common, *methods, "--output_dir", tmp_path / "out"]
    assert "11 cells: 11 methods, 1 tasks, 1 query sets" in run(folder, *command, "--dry_run")
    assert not (tmp_path / "out").exists()
    output = run(folder, *command)
    assert "Written to" in output
    results = EvaluationResults.load(tmp_path / "out")
    assert len(results.predictions) == 4 * (4 + 7 + 3)
    by_name = {cell.method: cell for cell in results.cells}
    assert [by_name[name].kind for name in ("none", "bm25", "echo")] == ["base", "method", "floor"]
    varied = {name: cell for name, cell in by_name.items() if cell.family == "dense_by_task"}
    assert [cell.num_queries for cell in varied.values()] == [3, 1, 4, 4, 3, 3, 3, 3]
    assert [varied[f"dense_by_task |R|={number}"].num_retrieved for number in (3, 12)] == [3, 12]  # of 6
    assert varied["dense_by_task mu=3"].upsampling_ratio == 3
    settings = by_name["bm25"].details["settings"]
    assert settings["adaptation"]["learning_rate"] == 1e-3  # the pipeline's
    assert settings["method"]["peft_config"]["r"] == 16
    # Again: nothing is computed, the same is printed. A cell that fails is told of.
    assert run(folder, *command) == output
    failing = [
        *common,
        "--methods",
        "none",
        "random",
        "--lora_target_modules",
        "x",
        "--output_dir",
        tmp_path / "other",
    ]
    assert "| none |" in run(folder, *failing, exit_code=1)
    assert "found 'x'. Name some of those" in EvaluationResults.load(tmp_path / "other").cells[1].error


def test_long_runs_are_planned_before_they_start(folder, upstream_model, pipeline_folder, mined, reranking_folder):
    before = sorted(folder.rglob("*"))
    plans = {
        "prepare_upstream.py": [
            *("--files", "upstream/*/train.parquet", "--columns", "references=outputs", "--output_dir", "planned"),
        ],
        "train_upstream.py": [
            *("--config", "recipe.yaml", "--train_files", "upstream/*/train.parquet", "--eval_files", "upstream/sum"),
            *("--output_dir", "planned", "--max_steps", 20, *FAST),
        ],
        "build_index.py": [
            *("--model_name_or_path", "bart0", "--train_files", "upstream/*/train.parquet"),
            *("--columns", "references=outputs", "--output_dir", "planned"),
        ],
        "mine_supervision.py": [
            *("--pipeline", "pipeline", "--output_dir", "planned", "--num_query_sets", 50, "--num_queries", 2),
            *("--num_held_out", 6, "--num_candidates", 8, "--group_size", 4, "--num_rounds", 1, "--num_labelled", 2),
        ],
        "train_reranker.py": [
            *("--pairs", "supervision", "--output_dir", "planned", "--model_name_or_path", "cross"),
            *("--num_dev_tasks", 1, "--max_steps", 4, "--max_length", 48, *FAST),
        ],
    }
    expected = {
        "prepare_upstream.py": "upstream examples of 4 tasks, made by 1 process.",
        "train_upstream.py": "Training on 48 examples, 20 steps",
        "build_index.py": "An index of 48 examples, 32 dimensions, Flat",
        "mine_supervision.py": "Mining 50 query sets",
        "train_reranker.py": "4 steps",
    }
    for script, command in plans.items():
        output = run(folder, script, *command, "--dry_run")
        assert expected[script] in output
        assert [line.split()[0] for line in output.splitlines() if line.startswith(("time ", "memory ", "disk "))] == [
            "time",
            "memory",
            "disk",
        ] + ["time"] * ("computed" in output)
    assert sorted(folder.rglob("*")) == before  # nothing was written


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("adapt.py", "--pipeline tiny-pipeline --query_file tickets.txt --output_dir tiny-pipeline"),
        ("adapt.py", "--pipeline tiny-pipeline --query_file tickets.txt --output_dir tiny-pipeline/index"),
        ("build_index.py", "--model_name_or_path bart --train_files upstream/*/train.parquet --output_dir bart"),
        ("build_index.py", "--model_name_or_path bart --train_files upstream/*/train.parquet --output_dir upstream"),
        ("train_upstream.py", "--model_name_or_path bart --train_files upstream --output_dir bart/new"),
        ("train_upstream.py", "--model_name_or_path bart --train_files upstream --output_dir upstream/sum"),
        ("train_reranker.py", "--pairs x.parquet --add_to_pipeline tiny-pipeline --output_dir tiny-pipeline/reranker"),
        ("train_reranker.py", "--pairs upstream/sum/train.parquet --output_dir upstream/sum"),
        ("mine_supervision.py", "--pipeline tiny-pipeline --output_dir tiny-pipeline"),
        ("benchmark.py", "--pipeline tiny-pipeline --output_dir tiny-pipeline"),
        ("prepare_upstream.py", "--files upstream/*/train.parquet --columns references=outputs --output_dir upstream"),
    ],
)
def test_no_script_writes_into_what_it_reads(script, arguments, folder, pipeline_folder):
    arguments = [word.replace("tiny-pipeline", str(pipeline_folder)) for word in arguments.split()]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, _, errors = ended(folder, script, *arguments)
    (line,) = errors.splitlines()
    assert code == 2
    assert "Expected an `output_dir` apart from" in line
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
