"""A pipeline whose index is a Lance data set: it is named by its version, and nothing of it is copied."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from lance_cases import give_up

pytest.importorskip("lance", reason="pylance is absent: pip install 'recross_hf[cluster]'")

from recross_hf import LanceIndex, LanceRetriever, MeanPooledEncoder, ReCrossPipeline, UpstreamIndex
from recross_hf.cli.main import main
from recross_hf.hub.errors import ArtifactError
from recross_hf.hub.repository import Repository
from recross_hf.pipeline.lance_part import LanceReference
from recross_hf.pipeline.manifest import Manifest
from recross_hf.retrieval.lance.location import Location
from recross_hf.retrieval.vector_shards import IndexMismatchError

DIGEST = "0a" * 32
QUICK = {"num_retrieved": 8, "max_steps": 1, "use_cpu": True}


@pytest.fixture
def encoder(answering_bart, tokenizer):
    return MeanPooledEncoder(answering_bart, tokenizer)


@pytest.fixture
def index(examples, encoder, tmp_path):
    return LanceIndex.build(examples, encoder, tmp_path / "elsewhere" / "index.lance")


@pytest.fixture
def pipeline(answering_bart, tokenizer, index, tmp_path):
    return ReCrossPipeline.build(answering_bart, tokenizer, index, tmp_path / "pipeline")


def index_of(folder):
    return json.loads((Path(folder) / "recross.json").read_text())["parts"]["index"]


def files_of(folder):
    return {path for path in Path(folder).rglob("*") if path.is_file()}


def test_the_folder_names_the_version_and_has_no_copy(pipeline, index, tmp_path):
    named = {"storage": index.location.uri, "version": index.version, "content_sha256": index.content_hash}
    assert index_of(tmp_path / "pipeline") == named
    assert {path.name for path in (tmp_path / "pipeline").iterdir()} == {"recross.json", "upstream_model"}
    opened = ReCrossPipeline.from_pretrained(tmp_path / "pipeline")
    assert isinstance(opened.index, LanceIndex) and opened.index.version == index.version
    assert json.loads((tmp_path / "pipeline" / "recross.json").read_text())["format_version"] == 4


def test_it_adapts_as_with_an_upstream_index(
    pipeline, answering_bart, tokenizer, examples, encoder, queries, tmp_path
):
    flat = ReCrossPipeline(answering_bart, tokenizer, UpstreamIndex.build(examples, encoder, tmp_path / "flat"))
    opened = ReCrossPipeline.from_pretrained(tmp_path / "pipeline")
    ours, theirs = opened.adapt(queries, **QUICK), flat.adapt(queries, **QUICK)
    assert ours.retrieved.remove_columns("distance").to_list() == theirs.retrieved.remove_columns("distance").to_list()
    assert ours(queries[:2]) == theirs(queries[:2])
    retriever = LanceRetriever(opened.index, exclude_tasks=["sentiment"])
    assert "sentiment" not in opened.adapt(queries, retriever=retriever, **QUICK).retrieved["task"][:]


def test_a_data_set_in_the_folder_moves_with_it_and_stays_when_the_pipeline_is_saved_onto_itself(
    answering_bart, tokenizer, examples, encoder, queries, tmp_path
):
    folder = tmp_path / "pipeline"
    index = LanceIndex.build(examples, encoder, folder / "index")
    ReCrossPipeline.build(answering_bart, tokenizer, index, folder)
    assert index_of(folder)["storage"] == "index"
    before = {path.relative_to(folder) for path in files_of(folder / "index")}
    adapted = ReCrossPipeline.from_pretrained(folder).adapt(queries, **QUICK)
    adapted.save_pretrained(folder)
    assert {path.relative_to(folder) for path in files_of(folder / "index")} == before
    shutil.move(folder, tmp_path / "moved")
    moved = ReCrossPipeline.from_pretrained(tmp_path / "moved")
    assert len(moved.index) == 48 and moved(queries) == adapted(queries)


def test_a_pipeline_that_is_saved_elsewhere_names_the_same_version(pipeline, index, queries, tmp_path):
    opened = ReCrossPipeline.from_pretrained(tmp_path / "pipeline")
    before = files_of(index.location.folder)
    for saved in (opened, opened.adapt(queries, **QUICK)):
        saved.save_pretrained(tmp_path / "saved")
        assert index_of(tmp_path / "saved") == index_of(tmp_path / "pipeline")
        assert not (tmp_path / "saved" / "index").exists()
    assert files_of(index.location.folder) == before


def test_an_index_is_replaced_by_one_of_another_kind(pipeline, examples, encoder, index, tmp_path):
    opened = ReCrossPipeline.from_pretrained(tmp_path / "pipeline")
    opened.index = UpstreamIndex.build(examples, encoder, tmp_path / "flat")
    opened.save_pretrained(tmp_path / "saved")
    assert "sha256" in index_of(tmp_path / "saved") and isinstance(
        ReCrossPipeline.from_pretrained(tmp_path / "saved").index, UpstreamIndex
    )
    opened.index = index
    opened.save_pretrained(tmp_path / "saved")
    assert isinstance(ReCrossPipeline.from_pretrained(tmp_path / "saved").index, LanceIndex)


def test_a_data_set_stays_where_it_is_in_the_folder_that_is_saved_onto(
    answering_bart, tokenizer, examples, encoder, index, tmp_path
):
    folder = tmp_path / "pipeline"
    pipeline = ReCrossPipeline.build(answering_bart, tokenizer, examples, folder)
    # The name is that of a part, which the pipeline had as files until now.
    pipeline.index = LanceIndex.build(examples, encoder, folder / "index")
    pipeline.save_pretrained(folder)
    assert index_of(folder)["storage"] == "index"
    assert len(ReCrossPipeline.from_pretrained(folder).index) == 48


def test_it_opens_its_version_whatever_is_built_later(pipeline, examples, encoder, index, tmp_path):
    LanceIndex.build(examples.select(range(10)), encoder, index.location)
    assert len(ReCrossPipeline.from_pretrained(tmp_path / "pipeline").index) == 48


def test_a_version_that_is_gone_is_an_error(pipeline, examples, encoder, index, tmp_path):
    LanceIndex.build(examples, encoder, index.location)
    give_up(index.location.uri, index.version)
    opened = ReCrossPipeline.from_pretrained(tmp_path / "pipeline")
    with pytest.raises(FileNotFoundError, match=rf"Expected version {index.version} of .* it was cleaned up"):
        opened.index  # noqa: B018
    shutil.rmtree(index.location.folder)
    with pytest.raises(FileNotFoundError, match=r"Expected a Lance data set at .* found none"):
        opened.index  # noqa: B018


def test_a_data_set_that_was_built_anew_is_noticed(pipeline, examples, encoder, index, tmp_path):
    shutil.rmtree(index.location.folder)
    again = LanceIndex.build(examples, encoder, index.location)
    assert again.version == index.version
    with pytest.raises(IndexMismatchError, match="Expected the index that the pipeline was saved with in version"):
        ReCrossPipeline.from_pretrained(tmp_path / "pipeline").index  # noqa: B018


def test_an_index_of_another_model_is_refused(bart, tokenizer, index, tmp_path):
    with pytest.raises(IndexMismatchError, match="Expected an index of this upstream model's vectors"):
        ReCrossPipeline.build(bart, tokenizer, index, tmp_path / "other")
    with pytest.raises(
        TypeError, match="Expected a LanceIndex alone, which has its encoder and settings, found factory"
    ):
        ReCrossPipeline.build(bart, tokenizer, index, tmp_path / "other", factory="Flat")
    with pytest.raises(TypeError, match="found encoder too"):
        ReCrossPipeline.build(bart, tokenizer, index, tmp_path / "other", encoder=MeanPooledEncoder(bart, tokenizer))


def test_publishing_wants_an_index_on_the_hub(pipeline, tmp_path):
    with pytest.raises(
        ValueError, match=r"Expected an index on the Hub in a pipeline that is published, found .*Upload it"
    ):
        pipeline.publication("org/name", tmp_path / "scratch")


def test_a_published_pipeline_names_an_index_on_the_hub(pipeline, index, tmp_path):
    index.location = Location.of("hf://datasets/org/big@main/index.lance")
    planned = pipeline.publication("org/name", tmp_path / "scratch")
    (own,) = [publication for publication in planned.publications() if publication.repo_id == "org/name"]
    described = json.loads(own.files["recross.json"])["parts"]["index"]
    assert described == {
        "storage": "hf://datasets/org/big@main/index.lance",
        "version": index.version,
        "content_sha256": index.content_hash,
    }
    assert "org/big" in own.files["README.md"].decode()
    assert [publication.repo_id for publication in planned.publications()] == ["org/name-upstream-model", "org/name"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"storage": ""}, "Expected the address of a Lance data set"),
        ({"storage": "../other"}, "with no `..` in its path"),
        ({"version": "3"}, "Expected the version of a Lance data set, found '3'"),
        ({"version": True}, "Expected the version of a Lance data set, found True"),
        ({"content_sha256": "x"}, "Expected a SHA-256 checksum of a Lance data set"),
        ({"more": 1}, "Expected storage, version and checksum of an index"),
    ],
)
def test_a_manifest_with_something_else_is_refused(tmp_path, change, message):
    model = {"path": "upstream_model", "sha256": {"model.safetensors": DIGEST}}
    lance = {"storage": "index.lance", "version": 3, "content_sha256": DIGEST}
    content = {"format_version": 4, "encoder": {"max_length": 8, "autocast_dtype": None}, "adaptation": {}}
    path = tmp_path / "recross.json"
    path.write_text(json.dumps(content | {"parts": {"upstream_model": model, "index": lance}}))
    assert Manifest.read(path, "it").parts["index"].lance == LanceReference("index.lance", 3, DIGEST)
    path.write_text(json.dumps(content | {"parts": {"upstream_model": model, "index": lance | change}}))
    with pytest.raises(ArtifactError, match=message):
        Manifest.read(path, "it")


def test_only_an_index_is_in_a_lance_data_set(tmp_path):
    lance = {"storage": "index.lance", "version": 3, "content_sha256": DIGEST}
    content = {"format_version": 4, "encoder": {"max_length": 8, "autocast_dtype": None}, "adaptation": {}}
    path = tmp_path / "recross.json"
    path.write_text(json.dumps(content | {"parts": {"upstream_model": lance, "index": lance}}))
    with pytest.raises(ArtifactError, match="Expected the index alone in a Lance data set, found 'upstream_model'"):
        Manifest.read(path, "it")


def test_a_pipeline_of_the_hub_opens_no_other_address(tmp_path):
    home = Repository("org/name", "model", "0f" * 20)
    for storage in ("/etc/index.lance", "index.lance", "s3://bucket/index.lance"):
        with pytest.raises(ArtifactError, match=r"Expected a pipeline of the Hub to name an index on the Hub"):
            LanceReference(storage, 1, DIGEST).location(home)
        assert LanceReference(storage, 1, DIGEST).location(tmp_path).uri
    there = LanceReference("hf://datasets/org/big/index.lance", 1, DIGEST)
    assert there.location(home, "secret").options == {"hf_token": "secret"}
    assert there.repository == Repository("org/big", "dataset", None)


def test_recross_adapt_learns_from_it(pipeline, index, queries, tmp_path):
    (tmp_path / "inputs.txt").write_text("\n".join(queries))
    arguments = ["--pipeline", str(tmp_path / "pipeline"), "--query_file", str(tmp_path / "inputs.txt")]
    arguments += ["--output_dir", str(tmp_path / "adapted"), "--num_retrieved", "8", "--max_steps", "1", "--use_cpu"]
    main(["adapt", *arguments, "--exclude_tasks", "sum", "--disable_tqdm", "true"])
    assert index_of(tmp_path / "adapted") == index_of(tmp_path / "pipeline")
    adapted = ReCrossPipeline.from_pretrained(tmp_path / "adapted")
    assert len(adapted.retrieved) == 8 and "sum" not in adapted.retrieved["task"][:]
    assert np.array_equal(adapted.index.rows(np.arange(48))["id"][:], index.rows(np.arange(48))["id"][:])
