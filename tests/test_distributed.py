"""Two processes on one CPU give what one gives. (`accelerate launch --cpu --num_processes 2` would run one process.)"""

import json
import os
import subprocess
import sys
from pathlib import Path

import distributed_fsdp_script
import distributed_script
import distributed_training_script
import lost_process_script
import numpy as np
import pytest
import tiny
import torch
from forks import fork_group
from torch.multiprocessing import ProcessExitedException

from recross_hf import MeanPooledEncoder, ReCrossPipeline, UpstreamIndex, load_model
from recross_hf.models.architectures import architecture_of
from recross_hf.models.generation import generate_texts
from recross_hf.models.tokenization import TokenizedExamples

LAUNCH = [
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
]


def launch(script: str | Path, *arguments: object) -> str:
    """What two processes of `accelerate launch` printed."""
    command = [sys.executable, *LAUNCH, str(script), *map(str, arguments)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **piped) as launcher:
        try:
            printed = launcher.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            launcher.terminate()  # it ends its processes, which would outlive one that is killed
            try:
                printed = launcher.communicate(timeout=60)
            finally:
                launcher.kill()
            pytest.fail("The processes did not end.\n" + "".join(text[-4000:] for text in printed))
    assert launcher.returncode == 0, printed[0][-1000:] + printed[1][-4000:]
    return printed[0]


def read(folder: Path) -> tuple[dict, dict[str, np.ndarray]]:
    with np.load(folder / "vectors.npz") as vectors:
        return json.loads((folder / "results.json").read_text()), dict(vectors)


@pytest.fixture(scope="module")
def one_and_two(answering_bart, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    answering_bart.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for name in ("one", "two"):
        (folder / name).mkdir()
    fork_group(distributed_script.main, str(folder / "model"), str(folder / "two"), 2)
    distributed_script.main(str(folder / "model"), str(folder / "one"), 1)
    return read(folder / "one"), read(folder / "two")


def test_the_index_has_the_same_vectors(one_and_two, answering_bart, tokenizer, examples):
    (one, vectors_of_one), (two, vectors_of_two) = one_and_two
    expected = MeanPooledEncoder(answering_bart, tokenizer).encode(examples["input"][:])
    for vectors in (vectors_of_one, vectors_of_two):
        for name in ("index", "everywhere"):
            np.testing.assert_allclose(vectors[name], expected, atol=1e-5)
    assert one["files"] == two["files"] == ["examples.parquet", "index.faiss", "index.json"]


def test_the_same_examples_are_retrieved(one_and_two):
    (one, _), (two, _) = one_and_two
    assert [row["id"] for row in two["retrieved"]] == [row["id"] for row in one["retrieved"]]
    assert len(two["retrieved"]) == 10
    assert "sum" not in {row["task"] for row in two["retrieved"]}
    distances = [[row["distance"] for row in results["retrieved"]] for results in (one, two)]
    np.testing.assert_allclose(*distances, atol=1e-4)


def test_the_same_examples_are_reranked(one_and_two):
    (one, _), (two, _) = one_and_two
    for reranked_by_one, reranked_by_two, number in zip(
        one["reranked"], two["reranked"], distributed_script.NUM_RERANKED, strict=True
    ):
        for column in ("id", "rank", "query"):
            assert [row[column] for row in reranked_by_two] == [row[column] for row in reranked_by_one]
        scores = [[row["score"] for row in rows] for rows in (reranked_by_one, reranked_by_two)]
        np.testing.assert_allclose(*scores, atol=1e-5)
        assert scores[0] == sorted(scores[0], reverse=True)
        assert len(scores[0]) == number


def test_all_processes_agree_on_what_the_safety_gate_says(one_and_two):
    (one, _), (two, _) = one_and_two
    assert not one["gate"]["kept"]
    assert not two["gate"]["kept"]
    assert two["gate"]["num_held_out"] == one["gate"]["num_held_out"]
    assert two["gate"]["base"]["answers"] == one["gate"]["base"]["answers"]
    assert two["gate"]["base"]["loss"] == pytest.approx(one["gate"]["base"]["loss"], abs=1e-5)


def test_the_same_pairs_are_mined(one_and_two):
    (one, _), (two, _) = one_and_two
    assert [row[:2] for row in two["sets"]] == [row[:2] for row in one["sets"]]
    assert [row[0] for row in two["sets"]] == [0, 1, 2]
    assert len(two["pairs"]) == 3 * 2 * 8
    for pairs in (one["pairs"], two["pairs"]):
        pairs.sort(key=lambda pair: (pair["set"], pair["query_id"], pair["candidate_id"]))
    utilities = [[pair.pop("utility") for pair in pairs] for pairs in (one["pairs"], two["pairs"])]
    np.testing.assert_allclose(*utilities, atol=1e-5)
    assert two["pairs"] == one["pairs"]


def test_the_scores_are_over_the_examples_and_not_over_padding(one_and_two):
    (one, _), (two, _) = one_and_two
    assert len(two["predictions"]) == distributed_script.NUM_EVALUATED
    assert two["predictions"] == one["predictions"]
    assert two["scores"] == one["scores"]
    assert two["scores"]["base"]["n"] == 13
    assert 0 < one["base"]["soft_em"] < 100
    assert {name: two["base"][name] for name in ("soft_em", "exact_match")} == {
        name: one["base"][name] for name in ("soft_em", "exact_match")
    }


def test_a_task_of_few_examples_scores_as_in_one_process(one_and_two):
    (one, _), (two, _) = one_and_two
    assert set(two["by_task"]) == set(one["by_task"])
    assert len(two["by_task"]) == 3 * (4 + 1)
    # Not the losses: they are of batches, which two processes fill up with repetitions.
    scores = {name: value for name, value in one["by_task"].items() if not name.endswith("_loss")}
    assert {name: two["by_task"][name] for name in scores} == scores
    assert len(set(scores.values())) > 2


def test_the_loss_is_not_multiplied_by_the_number_of_processes(one_and_two):
    (one, _), (two, _) = one_and_two
    # Not the same: a process takes the mean over its own half of a batch, whose answers differ in length.
    assert two["losses"] == pytest.approx(one["losses"], rel=0.4)
    assert len(one["losses"]) == 1


@pytest.mark.slow
def test_two_processes_build_one_index_with_the_example(answering_bart, tokenizer, examples, tmp_path):
    answering_bart.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    examples.to_parquet(tmp_path / "upstream.parquet")
    output = launch(
        Path(__file__).resolve().parents[1] / "examples" / "build_index.py",
        *("--model_name_or_path", tmp_path / "model", "--train_files", tmp_path / "upstream.parquet"),
        *("--output_dir", tmp_path / "pipeline"),
    )
    assert output.count("48 examples indexed") == 1
    index = ReCrossPipeline.from_pretrained(tmp_path / "pipeline").index
    expected = MeanPooledEncoder(answering_bart, tokenizer).encode(examples["input"][:])
    np.testing.assert_allclose(index.faiss_index.reconstruct_n(0, 48), expected, atol=1e-5)


def test_two_processes_share_an_epoch_and_resume_within_the_second(tmp_path):
    fork_group(distributed_training_script.main, str(tmp_path))
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == {"random", "budget", "half"}
    for name, found in results.items():
        assert len(set(found["batches"])) == 1, name
        assert found["steps"] == 2 * -(-found["batches"][0] // 2), name
        assert found["steps"] >= 6, name
        assert found["same"] == [True, True], name
        assert found["precision"] == (["bf16", "torch.bfloat16"] if name == "half" else ["no", "torch.float32"]), name
    assert sum(results["budget"]["rows"]) == 48
    assert results["random"]["rows"] == [25, 25]  # even: two rows come twice


def test_the_batches_of_a_step_weigh_by_their_tokens_accumulated_or_in_several_processes(tmp_path):
    fork_group(distributed_training_script.accumulate, str(tmp_path))
    tokenizer = tiny.tokenizer()
    before, trained = tiny.bart(tokenizer, dropout=0.0), load_model(tmp_path)
    collate = architecture_of(before).collator(tokenizer, before)
    examples = TokenizedExamples(distributed_training_script.accumulated(), tokenizer, 40, 40)
    rows = [collate([example]) for example in examples]
    tokens = torch.tensor([int((row["labels"] != -100).sum()) for row in rows])
    assert len(set(tokens.tolist())) == 4
    losses = torch.stack([before.train()(**row).loss for row in rows])
    # Batches are dealt out by turns: one process has rows 0 and 2, the other 1 and 3.
    of_process = [losses[rank::2] @ (tokens[rank::2] / tokens[rank::2].sum()) for rank in (0, 1)]

    def update(loss: torch.Tensor) -> torch.Tensor:
        gradients = torch.autograd.grad(loss, list(before.parameters()), retain_graph=True)
        return -torch.cat([gradient.flatten() for gradient in gradients])

    pairs = zip(trained.parameters(), before.parameters(), strict=True)
    found = torch.cat([(one - other).detach().flatten() for one, other in pairs])
    expected = update(losses @ (tokens / tokens.sum()))
    assert (found - expected).norm() < 1e-3 * expected.norm()
    for otherwise in (losses.mean(), (of_process[0] + of_process[1]) / 2):  # batches alike; processes alike
        assert (update(otherwise) - expected).norm() > 1e-2 * expected.norm()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    launch(distributed_fsdp_script.__file__, folder)
    return folder, json.loads((folder / "results.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", distributed_fsdp_script.MODELS)
def test_a_model_spread_over_two_processes_trains_as_a_whole_one(name, sharded, examples, tmp_path):
    folder, results = sharded
    found = results[name]
    whole = distributed_fsdp_script.trainer_of(name, tmp_path, gradient_accumulation_steps=2)
    whole.train()
    losses = [entry["loss"] for entry in whole.state.log_history if "loss" in entry]
    assert found["losses"] == pytest.approx(losses, rel=1e-5)
    saved = load_model(folder / name / "trained")
    expected = whole.model.state_dict()
    for weight, values in saved.state_dict().items():
        # What a key adds for all alike has no gradient but rounding, whose sign Adam follows.
        assert torch.allclose(values, expected[weight], atol=1e-4) or "k_proj.bias" in weight, weight
    some = examples.shuffle(seed=0).select(range(distributed_fsdp_script.NUM_PREDICTED))
    texts = generate_texts(saved, whole.processing_class, some["input"][:], max_new_tokens=8)
    assert found["texts"] == texts
    assert len(set(texts)) > 1 or name == "encoder_decoder"  # which says one thing to all so early
    assert {"eval_sentiment_soft_em", "eval_colour_soft_em", "eval_soft_em"} <= set(found["metrics"])
    assert "Expected a model that this trainer has trained" in found["refused"]
    if name in distributed_fsdp_script.RESUMED:
        resumed = load_model(folder / name / "resumed").state_dict()
        assert all(torch.equal(resumed[weight], values) for weight, values in saved.state_dict().items())


def test_a_process_that_is_lost_ends_the_run_and_the_next_one_goes_on(examples, tmp_path):
    before, after = tmp_path / "before.txt", tmp_path / "after.txt"
    with pytest.raises(ProcessExitedException) as lost:
        fork_group(lost_process_script.main, str(tmp_path / "index"), str(before), 2)
    assert (lost.value.error_index, lost.value.signal_name) == (1, "SIGKILL")
    assert not (tmp_path / "index" / "index.json").exists()
    fork_group(lost_process_script.main, str(tmp_path / "index"), str(after), -1)
    kept = set(before.read_text().splitlines())
    again = set(after.read_text().splitlines())
    # Two shards of six were finished by the lost process; what the other had finished is not encoded again, either, but for the one
    # that it may have been ended in.
    assert len(kept & again) <= 6
    assert kept | again == set(examples["input"][:])
    encoder = lost_process_script.LoggingEncoder(str(tmp_path / "opened.txt"), -1)
    index = UpstreamIndex.from_pretrained(tmp_path / "index", encoder=encoder)
    assert index.dataset["id"][:] == examples["id"][:]
    unbroken = UpstreamIndex.build(examples, tiny.HashEncoder(), tmp_path / "unbroken")
    assert np.array_equal(*(found.faiss_index.reconstruct_n(0, len(examples)) for found in (index, unbroken)))
