"""Upstream examples on a Hub, of which a worker of a cluster reads the rows that it encodes, and downloads no file."""

import pyarrow.parquet as pq
import pytest

from recross_hf import load_examples


@pytest.mark.parametrize("pattern", ["", "/data", "/**/train-*.parquet", "/data/train-0?.parquet"])
def test_rows_of_the_hub_are_read_where_they_are(pattern, hub, run_client, examples, tmp_path):
    folder = tmp_path / "upstream"
    (folder / "data").mkdir(parents=True)
    table = examples.with_format("arrow")[:]
    for number in range(3):
        pq.write_table(table.slice(16 * number, 16), folder / "data" / f"train-0{number}.parquet", row_group_size=5)
    (folder / "README.md").write_text("Examples.\n")
    client, repo_id = run_client(token=hub.token), hub.name("upstream")
    client("cluster_hub:upload", repo_id=repo_id, folder=str(folder))
    found = client("cluster_hub:read", pattern=f"hf://datasets/{repo_id}{pattern}", chunk_size=7)
    names = [f"hf://datasets/{repo_id}/data/train-0{number}.parquet" for number in range(3)]
    assert found["addresses"] == names
    assert found["rows"] == load_examples(folder / "data").to_list()
    assert not any((tmp_path / "home").rglob("*.parquet"))
