"""A Lance index on a Hub, which is searched there and not downloaded, alone and as a published pipeline's."""

import pytest
from lance_cases import TextEncoder, rows

pytest.importorskip("lance", reason="pylance is absent: pip install 'recross_hf[cluster]'")

from recross_hf import LanceIndex, LanceRetriever, MeanPooledEncoder, ReCrossPipeline
from recross_hf.retrieval.lance.vector_index import IndexSettings

INDEXED = IndexSettings(fewest_indexed=1, num_partitions=8, code_size=1)


def test_an_index_on_the_hub_is_searched_there(hub, run_client, tmp_path):
    index = LanceIndex.build(rows(2000), TextEncoder(), tmp_path / "folder" / "index.lance", settings=INDEXED)
    client, repo_id = run_client(token=hub.token), hub.name("lance")
    client("lance_cases:upload", repo_id=repo_id, folder=str(tmp_path / "folder"))
    inputs = ["row 7", "another"]
    found = client(
        "lance_cases:retrieved", uri=f"hf://datasets/{repo_id}/index.lance", inputs=inputs, exclude_tasks=["task 2"]
    )
    assert found == LanceRetriever(index, exclude_tasks=["task 2"]).retrieve(inputs, 20)["id"][:]
    assert not any((tmp_path / "home").rglob("*.lance"))


def test_a_published_pipeline_opens_its_index_on_the_hub(
    hub, run_client, answering_bart, tokenizer, examples, queries, tmp_path
):
    encoder = MeanPooledEncoder(answering_bart, tokenizer)
    index = LanceIndex.build(examples, encoder, tmp_path / "folder" / "index.lance")
    ReCrossPipeline.build(answering_bart, tokenizer, index, tmp_path / "pipeline")
    client, (big, small) = run_client(token=hub.token), (hub.name("lance"), hub.name("pipeline"))
    client("lance_cases:upload", repo_id=big, folder=str(tmp_path / "folder"))
    hub.named.append(f"{small}-upstream-model")
    uri = f"hf://datasets/{big}/index.lance"
    client("lance_cases:publish_naming", folder=str(tmp_path / "pipeline"), uri=uri, repo_id=small)
    reader = run_client(token=hub.token, home=tmp_path / "other")
    ids, fetched = reader("lance_cases:found_by_pipeline", repo_id=small, inputs=queries)
    assert ids == LanceRetriever(index).retrieve(queries, 12)["id"][:]
    assert fetched == ["upstream_model"]
