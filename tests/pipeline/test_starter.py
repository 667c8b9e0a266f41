"""The starter that ships with the package: the files are those that the recipe makes, and adapting it pays."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from recross_hf import ReCrossPipeline, load_starter_task, starter_tasks
from recross_hf.core.statistics import paired_interval
from recross_hf.data.starter import NUM_QUERY_SETS, STARTER_DIRECTORY
from recross_hf.soft_em import exact_match

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import build_starter
import starter_tasks as recipe

RECIPE = json.loads((STARTER_DIRECTORY / "recipe.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pipeline():
    return ReCrossPipeline.from_pretrained()


@pytest.fixture(scope="module")
def upstream():
    rows = list(recipe.generate_upstream(RECIPE["seed"], RECIPE["examples_per_task"]))
    return {row["id"]: row for row in rows}


def test_it_is_small_and_holds_no_pickle():
    files = [path for path in STARTER_DIRECTORY.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10e6
    assert {path.suffix for path in files} <= {".json", ".parquet", ".faiss", ".safetensors"}


def test_it_has_enough_tasks():
    assert len(recipe.upstream_tasks()) >= 12
    assert starter_tasks() == sorted(recipe.unseen_tasks())
    assert len(starter_tasks()) >= 4


def test_the_indexed_examples_are_those_of_the_recipe(pipeline, upstream):
    indexed = pipeline.index.dataset
    assert len(indexed) == RECIPE["indexed_per_task"] * len(recipe.upstream_tasks())
    assert [upstream[row["id"]] for row in indexed] == list(indexed)


def test_the_tokenizer_is_that_of_the_recipe(pipeline, upstream):
    rows = upstream.values()
    texts = [row["input"] for row in rows] + [row["references"][0] for row in rows]
    made = build_starter.train_tokenizer(texts, RECIPE["vocab_size"])
    assert made.get_vocab() == pipeline.processing_class.get_vocab()
    assert made(texts[:50])["input_ids"] == pipeline.processing_class(texts[:50])["input_ids"]


def test_the_vectors_are_those_of_the_model(pipeline):
    rows = np.linspace(0, len(pipeline.index) - 1, 64).astype(int)
    vectors = pipeline.index.encoder.encode([pipeline.index.dataset[int(row)]["input"] for row in rows])
    stored = np.stack([pipeline.index.faiss_index.reconstruct(int(row)) for row in rows])
    # One byte a dimension: off by at most half a step of 1/255 of the range of values.
    assert np.abs(vectors - stored).max() < 0.02 * np.ptp(stored)


@pytest.mark.parametrize("task", recipe.unseen_tasks())
def test_the_unseen_tasks_are_those_of_the_recipe(task):
    made = list(recipe.generate_unseen(task, RECIPE["seed"], "test", RECIPE["test_size"]))
    assert list(load_starter_task(task)[1]) == made
    assert len(made) >= 500
    query_rows = list(recipe.generate_unseen(task, RECIPE["seed"], "query", 16 * NUM_QUERY_SETS))
    for number in range(NUM_QUERY_SETS):
        queries = load_starter_task(task, number)[0]
        assert "references" not in queries.column_names
        assert queries["input"][:] == [row["input"] for row in query_rows[16 * number : 16 * (number + 1)]]
    assert not {row["input"] for row in query_rows} & {row["input"] for row in made}


def test_no_unseen_wording_is_upstream(upstream):
    patterns = {pattern for task in recipe.UPSTREAM.values() for pattern in task.templates.values()}
    assert not patterns & {pattern for task in recipe.UNSEEN.values() for pattern in task.templates.values()}
    inputs = {row["input"] for row in upstream.values()}
    assert not inputs & {text for task in starter_tasks() for text in load_starter_task(task)[1]["input"]}


def test_the_generator_does_not_depend_on_how_many_rows_are_asked_for():
    few = list(recipe.generate_unseen("lost_property", 3, "test", 5))
    assert list(recipe.generate_unseen("lost_property", 3, "test", 20))[:5] == few
    assert list(recipe.generate_unseen("lost_property", 4, "test", 5)) != few


@pytest.mark.parametrize("task, query_set", [("no_such_task", 0), ("lost_property", 5)])
def test_what_the_starter_lacks_is_named(task, query_set):
    with pytest.raises(ValueError, match=r"Expected a (task of the starter \(.*\)|query set from 0 to 4), found"):
        load_starter_task(task, query_set)


@pytest.mark.slow
def test_adapting_pays(pipeline):
    """One task and query set, as in the README; benchmarks/starter_gain.py measures all of them."""
    queries, test = load_starter_task("letter_stamp")
    adapted = pipeline.adapt(queries, disable_tqdm=True)
    right = [
        np.array([exact_match(*pair) for pair in zip(model(test["input"][:]), test["references"], strict=True)])
        for model in (pipeline, adapted)
    ]
    gain = paired_interval([(right[1].astype(float) - right[0])[None]])
    assert gain.low > 0, f"exact match changed by {gain}"
    assert adapted.retrieved.to_pandas().task.value_counts().index[0] == "country_of"


def test_its_reranker_has_the_shape_of_the_recipe_and_opens_as_a_cross_encoder(pipeline):
    reranker, made = pipeline.reranker, build_starter.untrained_reranker(pipeline.upstream_model)
    shapes = [{name: weight.shape for name, weight in model.state_dict().items()} for model in (reranker.model, made)]
    assert shapes[0] == shapes[1]
    assert not torch.equal(reranker.model.classifier.weight, made.classifier.weight)
    queries, texts = load_starter_task("bus_stop")[0]["input"][:3], pipeline.index.dataset["input"][:500:50]
    cross_encoder = CrossEncoder(
        str(STARTER_DIRECTORY / "reranker"), device="cpu", model_kwargs={"dtype": torch.float32}
    )
    scores = cross_encoder.predict([(query, text) for query in queries for text in texts], show_progress_bar=False)
    np.testing.assert_allclose(reranker.score(queries, texts).ravel(), scores, atol=1e-5)


def test_an_untrained_reranker_reads_as_the_upstream_encoder_does(pipeline):
    made = build_starter.untrained_reranker(pipeline.upstream_model).eval()
    made.bert.embeddings.token_type_embeddings.weight.data.zero_()
    ids = pipeline.processing_class(["The river is wide."], return_tensors="pt").input_ids
    with torch.no_grad():
        found = made.bert(input_ids=ids).last_hidden_state
        expected = pipeline.upstream_model.get_encoder()(input_ids=ids).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)  # their norms differ by an epsilon


def test_any_text_has_tokens(pipeline):
    assert isinstance(pipeline("Ünïcode — 漢字 🙂"), str)
    assert pipeline([]) == []


def test_a_wheel_carries_it(tmp_path):
    """What an editable install would hide."""
    root = Path(__file__).parents[2]
    build = [
        sys.executable,
        "setup.py",
        "-q",
        "egg_info",
        "-e",
        tmp_path,
        "build",
        "-b",
        tmp_path,
        "--build-lib",
        tmp_path,
    ]
    subprocess.run([str(part) for part in build], cwd=root, check=True, capture_output=True)
    built = {path.relative_to(tmp_path / "recross_hf") for path in (tmp_path / "recross_hf").rglob("*")}
    package = STARTER_DIRECTORY.parent
    expected = [
        *STARTER_DIRECTORY.rglob("*"),
        package / "py.typed",
        *package.glob("card_templates/*.md"),
        *package.rglob("*.html"),
    ]
    assert {path.relative_to(package) for path in expected if path.is_file()} <= built
