"""`--quiet` shows no bar, whichever command runs and whoever draws it; without it there is one wherever something takes long."""

import json

import pytest
import tiny
from example_scripts import recross, score_few

from recross_hf.cli.main import COMMANDS

SHORT = ["--max_steps", 1, "--use_cpu"]
ADAPTED = [*SHORT, "--num_retrieved", 4, "--max_target_length", 4]
TRAINED = [*SHORT, "--save_strategy", "no"]
MINED = ["--num_query_sets", 5, "--num_queries", 2, "--num_held_out", 4, "--num_candidates", 20, "--group_size", 10]
LINES = {
    "demo": [*ADAPTED, "--gate", "strict"],
    "adapt": ["tickets.txt", "--eval_file", "upstream.parquet", "--pipeline", "index", *ADAPTED],
    "prepare": ["--files", "upstream.parquet"],
    "train": ["--train_files", "upstream.parquet", "--eval_files", "upstream.parquet", "--model_name_or_path", "bart", *TRAINED],
    "index": ["--train_files", "upstream.parquet", "--model_name_or_path", "bart"],
    "mine": ["--pipeline", "index", *MINED, "--num_labelled", 2, "--max_target_length", 4],
    "train-reranker": ["--pairs", "mine/pairs.parquet", "--model_name_or_path", "cross", "--num_dev_tasks", 1, *TRAINED],
    "benchmark": ["--pipeline", "index", "--target_tasks", "targets.yaml", "--methods", "none", "dense", *ADAPTED],
}  # fmt: skip
"""A line of each command that shows bars; `publish` is in tests/hub/test_hub.py, and the bars of `web` are on its page."""
BARS = {
    "demo": ["Training", "Answering"],
    "adapt": ["Training", "Answering"],
    "prepare": ["upstream"],
    "train": ["Training", "Answering"],
    "index": ["Encoding", "Indexing"],
    "mine": ["Mining 5 of 5 query sets"],
    "train-reranker": ["Training"],
    "benchmark": ["Cells"],
}


@pytest.fixture(scope="module", autouse=True)
def few_scored():
    with pytest.MonkeyPatch.context() as patch:
        score_few(patch)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer, examples):
    folder = tmp_path_factory.mktemp("quiet")
    tiny.bart(tokenizer).save_pretrained(folder / "bart")
    tokenizer.save_pretrained(folder / "bart")
    of_pairs = tiny.pair_tokenizer()
    tiny.cross_encoder(of_pairs).save_pretrained(folder / "cross")
    of_pairs.save_pretrained(folder / "cross")
    examples.to_parquet(folder / "upstream.parquet")
    (folder / "tickets.txt").write_text("\n".join(tiny.queries()))
    (folder / "test.jsonl").write_text(json.dumps({"input": "Is it a?", "references": "yes"}) + "\n")
    (folder / "targets.yaml").write_text("targets: [{task: tickets, test: test.jsonl, queries: [tickets.txt]}]")
    return folder


@pytest.fixture(scope="module")
def loud(folder):
    """What each command says, one after the other: some read what others wrote."""
    told = {}
    for name in ("index", "mine", *(name for name in LINES if name not in ("index", "mine"))):
        code, _, told[name] = recross(folder, name, *LINES[name], "--output_dir", name)
        assert code == 0, told[name]
    return told


def test_every_command_that_shows_bars_is_here():
    assert {*LINES, "publish", "web"} == set(COMMANDS)


@pytest.mark.parametrize("name", LINES)
def test_quiet_shows_no_bar(name, folder, loud):
    assert all(f"{bar}:" in loud[name] for bar in BARS[name]), loud[name]
    code, _, told = recross(folder, name, *LINES[name], "--output_dir", f"{name}-quiet", "--quiet")
    assert (code, told) == (0, "")
