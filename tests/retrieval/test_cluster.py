import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cluster_encoders
import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny

from recross_hf import LanceIndex, MeanPooledEncoder, ReCrossPipeline, UpstreamIndex, load_examples
from recross_hf.cli import index as command
from recross_hf.data.schema import ExampleError
from recross_hf.retrieval.vector_shards import IndexMismatchError

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'recross_hf[cluster]'")
lance = pytest.importorskip("lance", reason="Lance is not installed: pip install 'recross_hf[cluster]'")

from recross_hf.retrieval.cluster import indexing  # noqa: E402
from recross_hf.retrieval.cluster.build import build_cluster_index  # noqa: E402
from recross_hf.retrieval.cluster.engine import WorkersLostError  # noqa: E402
from recross_hf.retrieval.lance.location import Location  # noqa: E402
from recross_hf.retrieval.lance.vector_index import IndexSettings  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:lance is not fork-safe")]

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """A Ray cluster of one node with three logical CPUs, as many as two workers need; its address."""
    paths = [str(TESTS), str(TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        patch.setenv("HF_HUB_OFFLINE", "1")
        context = ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield context.address_info["gcs_address"]
        ray.shutdown()


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    """The 48 tiny examples in two files."""
    folder = tmp_path_factory.mktemp("upstream")
    table = tiny.examples().with_format("arrow")[:]
    pq.write_table(table.slice(0, 20), folder / "a.parquet", row_group_size=6)
    pq.write_table(table.slice(20), folder / "b.parquet")
    return str(folder)


def build(upstream, make_encoder, storage, *, num_workers=1, chunk_size=7, **settings):
    return build_cluster_index(
        upstream, make_encoder, storage, num_workers=num_workers, chunk_size=chunk_size, **settings
    )


def rows_of(storage):
    """The rows of the version that readers see."""
    return lance.dataset(str(storage), version="recross_hf").to_table()


def vectors_of(rows):
    return np.stack(rows["vector"].to_numpy()).astype(np.float32)


def assert_is_whole(storage, examples):
    """The examples in their order beside the vectors of the plain encoder, and nothing of the journal."""
    rows = rows_of(storage)
    assert rows.drop_columns("vector").to_pylist() == examples.to_list()
    assert np.array_equal(vectors_of(rows), tiny.HashEncoder().encode(examples["input"][:]))
    assert not (Path(storage) / "_recross_hf").exists()


def assert_nothing_is_visible(storage):
    with pytest.raises(ValueError, match=r"not found|does not exist"):
        rows_of(storage)


def chunks_written(storage):
    return len(list((Path(storage) / "_recross_hf" / "chunks").glob("*.json")))


def wait_until(is_so, seconds=120):
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


def started(upstream, storage, cluster):
    command = [sys.executable, str(TESTS / "cluster_script.py"), upstream, str(storage), cluster]
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_give_the_vectors_of_one_machine(num_workers, upstream, examples, bart, tokenizer, index, tmp_path):
    bart.save_pretrained(tmp_path / "bart")
    tokenizer.save_pretrained(tmp_path / "bart")
    make_encoder = functools.partial(MeanPooledEncoder.from_pretrained, str(tmp_path / "bart"), device="cpu")
    build(upstream, make_encoder, tmp_path / "index", num_workers=num_workers)
    rows = rows_of(tmp_path / "index")
    assert rows.drop_columns("vector").to_pylist() == load_examples(upstream).to_list() == examples.to_list()
    expected = index.faiss_index.reconstruct_n(0, len(examples))
    assert np.abs(vectors_of(rows) - expected).max() <= 1e-5


def test_a_worker_that_is_killed_is_started_again_and_the_result_is_the_same(upstream, examples, tmp_path):
    marker = tmp_path / "died"
    make_encoder = functools.partial(cluster_encoders.DyingEncoder, "Add", str(marker))
    build(upstream, make_encoder, tmp_path / "index")  # there is no other one that could go on in its place
    assert marker.exists()
    assert_is_whole(tmp_path / "index", examples)


def test_workers_that_die_again_and_again_end_the_build_and_a_healthy_one_completes_it(upstream, examples, tmp_path):
    storage = tmp_path / "index"
    with pytest.raises(WorkersLostError, match=r"each one died 4 times.* [23] chunks are left"):
        build(upstream, functools.partial(cluster_encoders.DyingEncoder, "opposite"), storage)
    assert_nothing_is_visible(storage)
    assert chunks_written(storage) in (
        4,
        5,
    )  # of seven: the one before may be on its way to the disk when the worker dies
    build(upstream, cluster_encoders.Encoder, storage)
    assert_is_whole(storage, examples)


def test_a_driver_that_is_killed_goes_on_where_it_was(upstream, examples, cluster, tmp_path):
    storage = tmp_path / "index"
    driver = started(upstream, storage, cluster)
    wait_until(lambda: chunks_written(storage) >= 3)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    assert_nothing_is_visible(storage)
    kept = {path.name: json.loads(path.read_text()) for path in (storage / "_recross_hf" / "chunks").glob("*.json")}
    assert 3 <= len(kept) < 12
    lost = min(kept)  # what a disk, or somebody who cleans up, took away meanwhile
    (storage / "data" / json.loads(kept.pop(lost)["fragment"])["files"][0]["path"]).unlink()
    build(upstream, cluster_encoders.Encoder, storage, chunk_size=4)
    assert_is_whole(storage, examples)
    fragments = lance.dataset(str(storage), version="recross_hf").get_fragments()
    names = [[file.path for file in fragment.data_files()] for fragment in fragments]
    for name, content in kept.items():
        file = json.loads(content["fragment"])["files"][0]["path"]
        assert names[int(name.removesuffix(".json"))] == [file]


def test_a_build_that_was_finished_is_not_made_again(upstream, examples, bart, tokenizer, tmp_path, monkeypatch):
    bart.save_pretrained(tmp_path / "bart")
    tokenizer.save_pretrained(tmp_path / "bart")
    words = ["--model_name_or_path", str(tmp_path / "bart"), "--train_files", upstream, "--engine", "ray"]
    words += ["--num_workers", "1", "--storage", str(tmp_path / "index"), "-o", str(tmp_path / "pipeline")]
    with monkeypatch.context() as patch:
        patch.setattr(command.index_on_cluster.__globals__["ReCrossPipeline"], "build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            command.main(words)
    before = sorted((tmp_path / "index").rglob("*.lance"))
    command.main(words)
    assert sorted((tmp_path / "index").rglob("*.lance")) == before
    assert not (tmp_path / "index" / "_recross_hf").exists()
    assert ReCrossPipeline.from_pretrained(tmp_path / "pipeline").index.version == 2


def test_another_build_than_the_finished_one_is_made(upstream, examples, tmp_path):
    storage, make_encoder = tmp_path / "index", cluster_encoders.Encoder
    first = build(upstream, make_encoder, storage)
    assert build(upstream, make_encoder, storage) == first
    second = build(upstream, make_encoder, storage, settings=IndexSettings(metric="inner_product"))
    third = build(upstream, functools.partial(make_encoder, seed=1), storage)
    assert first < second < third
    assert build(upstream, make_encoder, storage) > third
    assert_is_whole(storage, examples)


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_of_two_builds_in_one_place_the_earlier_one_ends(upstream, examples, cluster, tmp_path):
    storage = tmp_path / "index"
    earlier = started(upstream, storage, cluster)
    wait_until(lambda: chunks_written(storage) >= 1)
    build(upstream, cluster_encoders.Encoder, storage, chunk_size=4)
    _, errors = earlier.communicate(timeout=120)
    assert earlier.returncode == 1
    assert "IndexMismatchError: Expected this process alone to build the index" in errors
    assert_is_whole(storage, examples)


def test_a_full_disk_is_told_and_the_build_goes_on_when_there_is_room(upstream, examples, tmp_path):
    (tmp_path / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path / "small")]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root on Linux can make a disk that is small")
    storage = tmp_path / "small" / "index"
    make_encoder = functools.partial(cluster_encoders.Encoder, dimension=8192)
    try:
        with pytest.raises(OSError, match=r"Expected to write 7 examples to .*small/index.*No space left.*room"):
            build(upstream, make_encoder, storage)
        assert_nothing_is_visible(storage)
        noted = [json.loads(path.read_text()) for path in (storage / "_recross_hf" / "chunks").glob("*.json")]
        kept = {json.loads(content["fragment"])["files"][0]["path"] for content in noted}
        subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path / "small")], check=True)
        build(upstream, make_encoder, storage)
        assert rows_of(storage)["id"].to_pylist() == examples["id"][:]
        fragments = lance.dataset(str(storage), version="recross_hf").get_fragments()
        assert kept and kept <= {file.path for fragment in fragments for file in fragment.data_files()}
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)


def test_a_row_that_cannot_be_encoded_is_told_with_its_file_row_and_id(upstream, examples, tmp_path):
    text = examples["input"][30]
    with pytest.raises(
        ValueError, match=r"NaN or infinity for the example 'sum/6 \(row 10 of /.*/b\.parquet\)'"
    ) as caught:
        build(upstream, functools.partial(cluster_encoders.NaNEncoder, text), tmp_path / "index")
    assert "Traceback" not in str(caught.value)
    assert_nothing_is_visible(tmp_path / "index")
    build(upstream, cluster_encoders.Encoder, tmp_path / "index")
    assert_is_whole(tmp_path / "index", examples)


def test_rows_that_are_no_examples_end_the_build(examples, tmp_path):
    rows = examples.to_list()
    rows[40]["references"] = []
    (tmp_path / "upstream").mkdir()
    load = functools.partial(build, str(tmp_path / "upstream"), cluster_encoders.Encoder, tmp_path / "index")
    pq.write_table(examples.from_list(rows).with_format("arrow")[:], tmp_path / "upstream" / "a.parquet")
    with pytest.raises(
        ExampleError, match=r"a\.parquet, where row 0 is row 35 of .*1 of 7 rows have no references \(row 5\)"
    ):
        load()
    rows[40]["references"] = ["hot"]
    rows[45]["id"] = rows[2]["id"]
    pq.write_table(examples.from_list(rows).with_format("arrow")[:], tmp_path / "upstream" / "a.parquet")
    with pytest.raises(IndexMismatchError, match=r"other data or settings \(files\)"):
        load()
    load.args[2].rename(tmp_path / "other")
    with pytest.raises(ExampleError, match="Expected unique ids, found 1 that repeat, such as 'sentiment/2'"):
        load()
    assert_nothing_is_visible(tmp_path / "index")


def test_another_encoder_is_refused_whether_of_another_run_or_of_another_worker(upstream, tmp_path):
    with pytest.raises(ValueError, match="NaN or infinity"):
        build(upstream, functools.partial(cluster_encoders.NaNEncoder, "No. 11"), tmp_path / "index")
    with pytest.raises(IndexMismatchError, match=r"unfinished build with other data or settings \(encoder\)"):
        build(upstream, functools.partial(cluster_encoders.Encoder, seed=1), tmp_path / "index")
    make_encoder = functools.partial(cluster_encoders.another_on_each_node, str(tmp_path))
    with pytest.raises(
        IndexMismatchError, match=r"the same encoder on every worker, found another on one of them \(seed\)"
    ):
        build(upstream, make_encoder, tmp_path / "other", num_workers=2, chunk_size=1)


def test_the_old_version_is_read_while_the_new_one_is_written(upstream, examples, tmp_path):
    storage = tmp_path / "index"
    build(upstream, cluster_encoders.Encoder, storage)
    opened, encoder = functools.partial(LanceIndex.from_pretrained, storage, verify=False), tiny.HashEncoder()
    old, seen, is_done = opened(encoder=encoder), [], threading.Event()

    def read():
        while not is_done.is_set():
            is_going_on, index = chunks_written(storage) > 0, opened(encoder=encoder)
            seen.append((is_going_on, len(index.rows(np.arange(len(index))))))

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        try:
            build(
                f"{upstream}/b.parquet",
                functools.partial(cluster_encoders.Encoder, seed=1, seconds=0.2),
                storage,
                num_workers=2,
            )
        finally:
            is_done.set()
        reading.result()
    counts = [count for _, count in seen]
    assert (True, 48) in seen  # while chunks of the new one were there
    assert counts == [48] * counts.count(48) + [28] * counts.count(28)
    assert len(rows_of(storage)) == 28
    assert old.rows(np.arange(48)).to_list() == examples.to_list()
    assert np.array_equal(old.vectors(np.arange(48)), encoder.encode(examples["input"][:]))
    expected = tiny.HashEncoder(seed=1).encode(examples["input"][20:])
    assert np.array_equal(vectors_of(rows_of(storage)), expected)


def test_half_precision_is_that_of_one_machine(upstream, examples, tmp_path):
    build(upstream, cluster_encoders.Encoder, tmp_path / "index", vector_dtype="float16")
    half = UpstreamIndex.build(examples, tiny.HashEncoder(), tmp_path / "one", vector_dtype=np.float16)
    assert np.array_equal(vectors_of(rows_of(tmp_path / "index")), half.faiss_index.reconstruct_n(0, 48))


def test_an_index_is_built_with_all_cores_though_its_task_has_one_thread(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        indexing, "create_indexes", lambda *_: (1, {"threads": seen.append(faiss.omp_get_max_threads())})
    )
    monkeypatch.setattr(indexing, "check_recall", lambda *_, **__: {})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        indexing._indexed(Location(str(tmp_path)), 1, IndexSettings(), 0, 0.9)
    finally:
        faiss.omp_set_num_threads(before)
    assert seen == [3]


def test_what_a_worker_lacks_is_told_as_it_is(upstream, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^No model at bart0\. Expected a folder with config\.json\.$"):
        build(upstream, cluster_encoders.missing, tmp_path / "index")


def test_a_storage_that_nodes_do_not_share_is_told(upstream, tmp_path):
    make_encoder = functools.partial(cluster_encoders.LosingEncoder, str(tmp_path / "index"))
    with pytest.raises(
        FileNotFoundError, match=r"the files of 7 chunks in .*index, found those of \d: some workers wrote"
    ):
        build(upstream, make_encoder, tmp_path / "index")
    assert_nothing_is_visible(tmp_path / "index")


def test_a_cluster_that_is_too_small_or_taken_is_told_and_not_waited_for(upstream, tmp_path):
    with pytest.raises(ValueError, match="from 1 to 2 workers on a cluster with 3 CPUs and 0 GPUs, found 3"):
        build(upstream, cluster_encoders.Encoder, tmp_path / "index", num_workers=3)

    class Other:
        def is_up(self):
            return True

    other = ray.remote(Other).options(num_cpus=3).remote()
    assert ray.get(other.is_up.remote())
    try:
        with pytest.raises(
            WorkersLostError, match=r"within 2 s, found none\. The cluster has 3 CPUs and 0 GPUs, of which 0"
        ):
            build(upstream, cluster_encoders.Encoder, tmp_path / "index", start_timeout=2)
    finally:
        ray.kill(other)


def test_the_command_builds_a_pipeline_that_names_the_index(upstream, examples, bart, tokenizer, capsys, tmp_path):
    bart.save_pretrained(tmp_path / "bart")
    tokenizer.save_pretrained(tmp_path / "bart")
    words = ["--model_name_or_path", str(tmp_path / "bart"), "--train_files", upstream, "--engine", "ray"]
    words += ["-o", str(tmp_path / "pipeline")]
    command.main([*words, "--dry_run", "--price_per_hour", "2.5"])
    told = capsys.readouterr().out
    assert "An index of 48 examples, 32 dimensions, on a cluster" in told
    lines = [line.split() for line in told.splitlines()]
    assert [line[0] for line in lines if line and line[0].isdigit()] == ["1", "8", "64"]
    assert "cost" in told
    assert not (tmp_path / "pipeline").exists()
    command.main([*words, "--num_workers", "1"])
    told = " ".join(capsys.readouterr().out.split())
    storage = tmp_path / "pipeline" / "index.lance"
    assert f"48 examples indexed in {storage}, version 2" in told
    pipeline = ReCrossPipeline.from_pretrained(tmp_path / "pipeline")
    assert len(pipeline.index) == 48
    hits = pipeline.index.search(pipeline.index.encoder.encode(examples["input"][:2]), k=1)
    assert hits.positions.ravel().tolist() == [0, 1]


def test_inputs_are_found_by_relative_names_from_any_folder_of_a_worker(
    upstream, bart, tokenizer, tmp_path, monkeypatch
):
    bart.save_pretrained(tmp_path / "bart")
    tokenizer.save_pretrained(tmp_path / "bart")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(upstream, "upstream")
    command.main(
        [
            "--model_name_or_path",
            "bart",
            "--train_files",
            "upstream",
            "--engine",
            "ray",
            "--num_workers",
            "1",
            "-o",
            "out",
        ]
    )
    assert len(rows_of("out/index.lance")) == 48
