"""Artifacts that version 0.1.0 wrote open in this version, and give what they gave then."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from recross_hf import (
    DenseRetriever,
    MixtureArguments,
    ReCrossPipeline,
    SupervisionArguments,
    TaskSource,
    UpstreamIndex,
    label_pairs,
    load_examples,
    load_query_sets,
    mine_supervision,
    prepare_mixture,
)

WRITTEN = Path(__file__).parent / "fixtures" / "0.1.0"


@pytest.fixture(scope="module")
def then():
    """What version 0.1.0 answered and retrieved."""
    return json.loads((WRITTEN / "found.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pipeline():
    return ReCrossPipeline.from_pretrained(WRITTEN / "pipeline", device="cpu")


def test_a_pipeline_answers_and_is_adapted_as_then(pipeline, then):
    assert pipeline(then["queries"]) == then["pipeline"]
    adapted = pipeline.adapt(then["queries"], use_cpu=True, disable_tqdm=True)
    assert adapted.retrieved["id"][:] == then["retrieved"]


def test_an_adapted_pipeline_answers_as_then(then):
    adapted = ReCrossPipeline.from_pretrained(WRITTEN / "adapted", device="cpu")
    assert adapted(then["queries"]) == then["adapted"]
    assert adapted.retrieved["id"][:] == then["retrieved"]
    assert adapted.reranker is not None


@pytest.mark.parametrize("kind", ["flat", "sq8", "ivf"])
def test_an_index_finds_what_it_found(kind, pipeline, then):
    encoder = pipeline.index.encoder
    index = UpstreamIndex.from_pretrained(WRITTEN / f"index-{kind}", encoder=encoder)
    hits = index.search(encoder.encode(then["queries"]), k=5)
    assert np.array_equal(hits.positions, then[f"index-{kind}"]["positions"])


def test_a_prepared_mixture_is_finished(then, tmp_path):
    shutil.copytree(WRITTEN / "mixture", tmp_path / "mixture")
    source = TaskSource(
        "desk", files=str(WRITTEN / "rows.jsonl"), templates="{{text}} ({{n}}) Which desk? ||| {{desk}}"
    )
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    prepare_mixture([source], tmp_path / "mixture", MixtureArguments(max_dev_examples_per_task=4))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == before
    assert load_examples(str(tmp_path / "mixture/*/train-*.parquet"))["input"][:] == then["mixture"]["train"]


def test_mined_query_sets_are_labelled_as_then(pipeline, then, tmp_path):
    shutil.copytree(WRITTEN / "supervision", tmp_path / "mined")
    columns = ["query_id", "candidate_id", "label", "utility"]
    pairs = label_pairs(load_query_sets(tmp_path / "mined"), 2)
    assert pairs.to_pandas()[columns].values.tolist() == then["supervision"]["pairs"]
    # The settings are recognised: nothing is mined again, and nothing refused.
    sizes = {"num_query_sets": 2, "num_queries": 2, "num_held_out": 4, "num_candidates": 8, "group_size": 4}
    again = mine_supervision(
        pipeline.upstream_model,
        pipeline.processing_class,
        DenseRetriever(pipeline.index),
        pipeline.index.dataset,
        tmp_path / "mined",
        SupervisionArguments(**sizes, num_rounds=2, num_labelled=2),
    )
    assert again.to_pandas()[columns].values.tolist() == then["supervision"]["pairs"]
