import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from accelerate.state import AcceleratorState
from contents import content_of
from datasets import Dataset, Features, Image
from peft import LoraConfig
from transformers import TrainerCallback

from recross_hf import (
    AdaptationArguments,
    CrossEncoderReranker,
    DenseRetriever,
    MeanPooledEncoder,
    RandomRetriever,
    ReCrossPipeline,
    Reranker,
    UpstreamIndex,
)
from recross_hf.core import files
from recross_hf.core._compat import has_process_state
from recross_hf.hub.errors import ArtifactError
from recross_hf.models.generation import generate_texts
from recross_hf.pipeline import saving, stored_parts
from recross_hf.pipeline.manifest import write_manifest
from recross_hf.pipeline.parts import PARTS
from recross_hf.retrieval import index
from recross_hf.retrieval.vector_shards import IndexMismatchError

ADAPTATION = {"max_input_length": 64, "max_target_length": 8, "learning_rate": 1e-2}
FAST = {"num_retrieved": 12, "max_steps": 4, "use_cpu": True, "disable_tqdm": True}
PEFT = {"full": None, "lora": LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, lora_alpha=64)}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path_factory, monkeypatch):
    """The Trainer makes its output folder in the working directory where none is given."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(scope="session")
def built_folder(answering_bart, tokenizer, examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    ReCrossPipeline.build(answering_bart, tokenizer, examples, folder, adaptation=ADAPTATION, shard_size=16)
    return folder


@pytest.fixture(scope="session")
def pipeline(built_folder):
    return ReCrossPipeline.from_pretrained(built_folder)


@pytest.fixture
def folder(built_folder, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(built_folder, tmp_path / "pipeline")


@pytest.fixture(scope="module", params=PEFT)
def adapted(request, pipeline, queries, tmp_path_factory):
    output_dir = str(tmp_path_factory.mktemp("adapted"))
    return pipeline.adapt(queries, peft_config=PEFT[request.param], output_dir=output_dir, **FAST)


def files_of(manifest) -> set[str]:
    return {f"{part['path']}/{name}" for part in manifest["parts"].values() for name in part["sha256"]}


def edit_manifest(folder, **changes) -> None:
    path = folder / "recross.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ---- building and predicting -----------------------------------------------------------------------------------------


def test_a_built_folder_is_a_pipeline_with_the_model_and_its_index(built_folder, pipeline, answering_bart, examples):
    assert {path.name for path in built_folder.iterdir()} == {"recross.json", "upstream_model", "index"}
    assert pipeline.index.dataset.to_list() == examples.to_list()
    assert pipeline.adaptation == ADAPTATION
    assert pipeline.adapted_model is pipeline.retrieved is None
    weights, expected = pipeline.model.state_dict(), answering_bart.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_it_answers_one_input_or_many_in_their_order(pipeline, answering_bart, tokenizer, examples):
    inputs = examples.shuffle(seed=2)["input"][:10]
    answers = pipeline(inputs)
    assert answers == generate_texts(answering_bart, tokenizer, inputs, max_input_length=64, max_new_tokens=8)
    assert len(set(answers)) > 2
    assert pipeline(inputs[3]) == answers[3]
    assert pipeline(tuple(inputs)) == answers
    assert pipeline(inputs, max_new_tokens=1) != answers
    assert pipeline([]) == []


def test_inputs_are_taken_from_whatever_holds_strings(pipeline, examples):
    inputs = examples["input"][:3]
    answers = pipeline(inputs)
    for given in (
        examples.select(range(3)),
        examples.select(range(3))["input"],
        np.array(inputs),
        {"input": inputs},
        {"input": np.array(inputs)},
        (text for text in inputs),
    ):
        assert pipeline(given) == answers
    assert pipeline({"input": inputs[0]}) == pipeline(examples[0]) == answers[0]
    assert isinstance(pipeline(""), str)
    for given in ({"question": inputs}, set(inputs), b"x", None, [["x"]], examples.remove_columns("input")):
        with pytest.raises(ValueError, match=r"Expected .*found .*Pass"):
            pipeline(given)


def test_inputs_that_are_no_strings_are_refused(pipeline):
    with pytest.raises(TypeError, match="strings, found int"):
        pipeline(["x", 3])


def test_a_pipeline_of_a_model_that_ships_sampling_answers_the_same_each_time(pipeline, queries, examples):
    inputs = [*queries, *examples["input"][::8]]
    expected = pipeline(inputs)
    sampler = copy.copy(pipeline)
    sampler.upstream_model = copy.deepcopy(pipeline.upstream_model)
    sampler.upstream_model.generation_config.update(do_sample=True, temperature=5.0)
    assert sampler(inputs) == expected == sampler(inputs)
    assert sampler(inputs, do_sample=True) != expected


def test_a_tokenizer_with_other_tokens_makes_no_pipeline(pipeline, examples, tmp_path):
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<new>"])
    for make in (
        lambda: ReCrossPipeline(pipeline.upstream_model, tokenizer, pipeline.index),
        lambda: ReCrossPipeline.build(pipeline.upstream_model, tokenizer, examples, tmp_path / "built"),
        lambda: MeanPooledEncoder(pipeline.upstream_model, tokenizer),
    ):
        with pytest.raises(ValueError, match="each of the 301 tokens of the tokenizer, found 300"):
            make()
    assert not (tmp_path / "built").exists()


def test_a_killed_build_goes_on_and_no_half_built_folder_is_a_pipeline(
    answering_bart, tokenizer, examples, tmp_path, monkeypatch
):
    encode, calls = MeanPooledEncoder.encode, []

    def stopping(self, texts):
        calls.append(len(texts))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(self, texts)

    monkeypatch.setattr(MeanPooledEncoder, "encode", stopping)
    build = {"adaptation": ADAPTATION, "shard_size": 10}
    with pytest.raises(KeyboardInterrupt):
        ReCrossPipeline.build(answering_bart, tokenizer, examples, tmp_path, **build)
    with pytest.raises(ArtifactError, match=r"pipeline folder with recross\.json, found none"):
        ReCrossPipeline.from_pretrained(tmp_path)
    calls[:] = [0] * 10
    pipeline = ReCrossPipeline.build(answering_bart, tokenizer, examples, tmp_path, **build)
    assert sum(calls[10:]) == 48 - 20 + 2 * 3  # two shards were there; probes: now and when opened
    assert len(pipeline.index) == 48


# ---- adapting --------------------------------------------------------------------------------------------------------


def test_adapting_gives_a_new_pipeline_and_leaves_this_one(adapted, pipeline, answering_bart, queries):
    assert adapted is not pipeline
    assert adapted.upstream_model is pipeline.upstream_model
    expected = answering_bart.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in pipeline.model.state_dict().items())
    assert pipeline.adapted_model is None
    assert len(adapted.retrieved) == 12
    assert not adapted.model.training
    assert adapted.model is adapted.adapted_model
    logits = {}
    for one in (pipeline, adapted):
        batch = one.processing_class(queries[:1], return_tensors="pt")
        with torch.no_grad():
            logits[one] = one.model(**batch, decoder_input_ids=torch.tensor([[2, 0]])).logits
    assert (logits[adapted] - logits[pipeline]).abs().max() > 1e-2


def test_an_adapted_pipeline_is_the_same_after_saving_and_loading(adapted, queries, examples, tmp_path):
    adapted.save_pretrained(tmp_path / "saved")
    loaded = ReCrossPipeline.from_pretrained(tmp_path / "saved")
    inputs = [*queries, *examples["input"][::3]]
    answers = adapted(inputs)
    assert loaded(inputs) == answers
    assert loaded(inputs, num_beams=2) == adapted(inputs, num_beams=2)
    assert any(answers)
    assert loaded.retrieved.to_list() == adapted.retrieved.to_list()
    assert loaded.adaptation == adapted.adaptation
    weights = adapted.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.model.state_dict().items())
    upstream = adapted.upstream_model.state_dict()
    assert all(torch.equal(value, upstream[name]) for name, value in loaded.upstream_model.state_dict().items())
    assert loaded.adapt(queries, output_dir=str(tmp_path / "again"), **FAST).retrieved.num_rows == 12


def test_settings_come_from_the_call_else_the_pipeline_else_the_paper(pipeline, queries, tmp_path):
    args = pipeline.adapter(queries).args
    assert (args.learning_rate, args.max_target_length, args.num_retrieved) == (1e-2, 8, 512)
    adapted = pipeline.adapt(
        queries, output_dir=str(tmp_path), **FAST, max_target_length=5, generation_num_beams=2, seed=9
    )
    expected = {"max_target_length": 5, "max_input_length": 64, "generation_num_beams": 2, "learning_rate": 1e-2}
    assert adapted.adaptation == expected
    assert pipeline.adaptation == ADAPTATION
    whole = AdaptationArguments(output_dir=str(tmp_path), num_retrieved=7, max_steps=1, use_cpu=True)
    assert len(pipeline.adapt(queries, whole).retrieved) == 7
    with pytest.raises(TypeError, match=r"`args` or single settings, found both \(seed\)\. Set them in `args`"):
        pipeline.adapt(queries, whole, seed=1)


@pytest.mark.parametrize(("stored", "gate"), [(True, "strict"), (False, "off")])
def test_a_stored_gate_of_the_old_name_is_the_default_and_can_be_changed(stored, gate, pipeline, tmp_path, recwarn):
    old = copy.copy(pipeline)
    old.adaptation = pipeline.adaptation | {"safety_gate": stored}
    old.save_pretrained(tmp_path / "old")
    loaded = ReCrossPipeline.from_pretrained(tmp_path / "old")
    assert loaded.adaptation["safety_gate"] is stored
    assert loaded.arguments().gate == gate
    assert loaded.arguments(gate="form").gate == "form"
    assert not [warning for warning in recwarn if issubclass(warning.category, DeprecationWarning)]
    loaded.adaptation = pipeline.adaptation | {"gate": "form"}
    with pytest.warns(DeprecationWarning):
        assert loaded.arguments(safety_gate=stored).gate == gate


def test_another_retriever_can_be_used(pipeline, examples, queries, tmp_path):
    retriever = RandomRetriever(examples, seed=4)
    adapted = pipeline.adapt(queries, retriever=retriever, output_dir=str(tmp_path), **FAST)
    assert adapted.retrieved["id"][:] == retriever.retrieve(queries, 12)["id"][:]


def test_what_the_adapter_evaluates_is_what_the_pipeline_answers(pipeline, examples, queries, tmp_path):
    test = examples.select(range(0, 48, 4))
    args = AdaptationArguments(output_dir=str(tmp_path), **ADAPTATION, **FAST)
    adapter = pipeline.adapter(queries, args, eval_dataset=test)
    adapter.train()
    predicted = adapter.decode(adapter.predict(test).predictions)
    assert pipeline.adapted(adapter)(test["input"][:]) == predicted


# ---- reranking -------------------------------------------------------------------------------------------------------


class LongestFirst(Reranker):
    def rank(self, queries, candidates):
        return np.array([len(candidate) for candidate in candidates])


@pytest.fixture(scope="module")
def reranking(pipeline):
    """The pipeline with a random cross-encoder."""
    tokenizer = tiny.pair_tokenizer()
    reranker = CrossEncoderReranker(tiny.cross_encoder(tokenizer), tokenizer, max_length=50, include_answers=True)
    return ReCrossPipeline(
        pipeline.upstream_model,
        pipeline.processing_class,
        pipeline.index,
        reranker=reranker,
        adaptation=pipeline.adaptation,
    )


def test_a_pipeline_is_the_same_after_saving_and_loading_with_its_reranker(reranking, examples, queries, tmp_path):
    reranking.save_pretrained(tmp_path / "saved")
    loaded = ReCrossPipeline.from_pretrained(tmp_path / "saved")
    scores = [one.reranker.rank(queries, examples["input"][:]) for one in (loaded, reranking)]
    np.testing.assert_allclose(*scores, atol=1e-6)
    assert scores[0].std() > 0.01
    assert loaded.reranker.identity() == reranking.reranker.identity()
    assert (loaded.reranker.max_length, loaded.reranker.include_answers) == (50, True)
    adapted = loaded.adapt(queries, output_dir=str(tmp_path / "out"), **FAST)
    adapted.save_pretrained(tmp_path / "adapted")
    again = ReCrossPipeline.from_pretrained(tmp_path / "adapted")
    assert again.reranker.identity() == reranking.reranker.identity()
    assert again.retrieved.to_list() == adapted.retrieved.to_list()
    assert "score" in again.retrieved.column_names
    loaded.reranker = None
    loaded.save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"recross.json", "upstream_model", "index"}
    assert ReCrossPipeline.from_pretrained(tmp_path / "saved").reranker is None


def test_the_reranker_chooses_unless_it_is_left_out_or_replaced(reranking, queries, tmp_path):
    def retrieved(**kwargs):
        found = reranking.adapt(queries, output_dir=str(tmp_path), **FAST | {"max_steps": 1}, **kwargs)
        assert found.reranker is reranking.reranker
        return found.retrieved.to_list()

    dense = DenseRetriever(reranking.index)
    found = dense.retrieve(queries, 24)
    assert retrieved() == reranking.reranker.rerank(queries, found, 12).to_list()
    assert retrieved(rerank=False) == dense.retrieve(queries, 12).to_list()
    reranking.adaptation["rerank"] = False
    assert retrieved() == dense.retrieve(queries, 12).to_list()
    assert retrieved(rerank=True) == reranking.reranker.rerank(queries, found, 12).to_list()
    assert retrieved(reranker=LongestFirst()) == LongestFirst().rerank(queries, found, 12).to_list()
    del reranking.adaptation["rerank"]
    more = dense.retrieve(queries, 36)
    assert retrieved(upsampling_ratio=3.0) == reranking.reranker.rerank(queries, more, 12).to_list()
    for call in (reranking.adapt, reranking.adapter):
        with pytest.raises(TypeError, match="Expected a `reranker` or `rerank=False`, found both"):
            call(queries, reranker=LongestFirst(), rerank=False)


@pytest.mark.parametrize("is_dense", [True, False])
def test_a_retriever_of_ones_own_says_whether_the_pipelines_reranker_suits_its_hits(
    is_dense, reranking, examples, queries, tmp_path
):
    own = type("Own", (RandomRetriever,), {"is_dense": is_dense})(examples)
    args = AdaptationArguments(output_dir=str(tmp_path), num_retrieved=7, use_cpu=True)
    adapter = reranking.adapter(queries, args, retriever=own)
    assert adapter.reranker is (reranking.reranker if is_dense else None)


def test_a_pipeline_without_a_reranker_takes_one_for_an_adaptation(pipeline, queries, tmp_path):
    adapter = pipeline.adapter(
        queries, AdaptationArguments(output_dir=str(tmp_path), num_retrieved=7, use_cpu=True), reranker=LongestFirst()
    )
    lengths = [len(text) for text in adapter.retrieve()["input"]]
    assert lengths == sorted(lengths, reverse=True)
    assert pipeline.reranker is None


def test_a_reranker_that_is_no_cross_encoder_cannot_be_saved(pipeline, folder):
    before = content_of(folder)
    loaded = ReCrossPipeline.from_pretrained(folder)
    loaded.reranker = LongestFirst()
    with pytest.raises(
        TypeError,
        match=r"Expected a CrossEncoderReranker, found LongestFirst: .*Set `pipeline\.reranker = None` and save",
    ):
        loaded.save_pretrained(folder)
    assert content_of(folder) == before


def test_a_reranker_that_says_it_can_be_saved_is(pipeline, reranking, tmp_path):
    class Wrapped(Reranker):
        can_be_saved = True

        def rank(self, queries, candidates):
            return reranking.reranker.rank(queries, candidates)

        def save_pretrained(self, folder):
            reranking.reranker.save_pretrained(folder)

    wrapping = copy.copy(pipeline)
    wrapping.reranker = Wrapped()
    wrapping.save_pretrained(tmp_path)
    assert isinstance(ReCrossPipeline.from_pretrained(tmp_path).reranker, CrossEncoderReranker)


def test_a_changed_byte_of_the_reranker_is_noticed(reranking, tmp_path):
    reranking.save_pretrained(tmp_path)
    manifest = json.loads((tmp_path / "recross.json").read_text())
    assert manifest["parts"]["reranker"]["path"] == "reranker"
    assert files_of(manifest) == set(content_of(tmp_path)) - {"recross.json"}
    path = tmp_path / "reranker" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"reranker/model\.safetensors is not the file that was saved"):
        ReCrossPipeline.from_pretrained(tmp_path).reranker  # noqa: B018


# ---- saving ----------------------------------------------------------------------------------------------------------


def test_saving_over_an_older_pipeline_replaces_it_whole(adapted, pipeline, tmp_path):
    target = tmp_path / "saved"
    target.mkdir()
    adapted.save_pretrained(target)
    assert (target / "adapted_model").is_dir()
    pipeline.save_pretrained(target)
    assert {path.name for path in target.iterdir()} == {"recross.json", "upstream_model", "index"}
    assert len(ReCrossPipeline.from_pretrained(target).index) == 48


def test_a_loaded_pipeline_can_be_saved_over_its_own_folder(folder):
    loaded = ReCrossPipeline.from_pretrained(folder)
    loaded.save_pretrained(folder)
    again = ReCrossPipeline.from_pretrained(folder)
    vector = again.index.encoder.encode(["Is it good?"])
    assert again.index.search(vector, 5).positions.tolist() == loaded.index.search(vector, 5).positions.tolist()


def test_parts_that_are_stored_are_copied_without_being_opened(reranking, queries, tmp_path):
    reranking.save_pretrained(tmp_path / "base")
    ReCrossPipeline.from_pretrained(tmp_path / "base").adapt(queries, **FAST).save_pretrained(tmp_path / "adapted")
    for name in ("base", "adapted"):
        loaded, before = ReCrossPipeline.from_pretrained(tmp_path / name), content_of(tmp_path / name)
        for target in (tmp_path / "copy", tmp_path / name):
            loaded.save_pretrained(target)
            assert content_of(target) == before
        assert not any(map(loaded.parts.stored.is_opened, PARTS))
    manifest = json.loads((tmp_path / "adapted" / "recross.json").read_text())
    assert set(manifest["parts"]) == set(PARTS) - {"base_model", "encoder"}  # the upstream model is whole, and encodes


def test_a_file_that_was_written_into_since_it_was_loaded_is_not_saved(folder, tmp_path):
    loaded = ReCrossPipeline.from_pretrained(folder)
    assert len(loaded.index) == 48
    path = folder / "index" / "examples.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    before = content_of(folder)
    for target in (folder, tmp_path / "copy"):
        with pytest.raises(ArtifactError, match=r"examples\.parquet is not the file that was saved"):
            loaded.save_pretrained(target)
    assert content_of(folder) == before
    assert not (tmp_path / "copy").exists()


def change_generation(pipeline):
    pipeline.upstream_model.generation_config.update(num_beams=3)


def change_tokenizer(pipeline):
    pipeline.processing_class.chat_template = "{{ messages }}"


def change_index(pipeline):
    pipeline.index.faiss_index.nprobe = 3


def change_reranker(pipeline):
    pipeline.reranker.include_answers = False


CHANGES = {
    change_generation: ("upstream_model", lambda pipeline: pipeline.upstream_model.generation_config.num_beams),
    change_tokenizer: ("upstream_model", lambda pipeline: pipeline.processing_class.chat_template),
    change_index: ("index", lambda pipeline: pipeline.index.faiss_index.nprobe),
    change_reranker: ("reranker", lambda pipeline: pipeline.reranker.include_answers),
}


@pytest.mark.parametrize("change", CHANGES)
def test_settings_that_are_changed_in_place_are_saved_and_published(change, reranking, tokenizer, examples, tmp_path):
    name, changed = CHANGES[change]
    ReCrossPipeline.build(reranking.upstream_model, tokenizer, examples, tmp_path / "ivf", factory="IVF4,Flat")
    loaded = ReCrossPipeline.from_pretrained(tmp_path / "ivf")
    loaded.reranker = reranking.reranker
    loaded.save_pretrained(tmp_path / "ivf")
    loaded = ReCrossPipeline.from_pretrained(tmp_path / "ivf")
    before = changed(loaded)
    assert loaded.parts.unmodified() == {"upstream_model", "index", "reranker"}
    change(loaded)
    assert changed(loaded) != before
    assert loaded.parts.unmodified() == {"upstream_model", "index", "reranker"} - {name}
    (tmp_path / "scratch").mkdir()
    files = loaded.publication("org/name", tmp_path / "scratch").new_parts[name].files
    written = [path for path in files.values() if isinstance(path, Path)]
    assert written and all(path.is_relative_to(tmp_path / "scratch") for path in written)
    loaded.save_pretrained(tmp_path / "saved")
    assert changed(ReCrossPipeline.from_pretrained(tmp_path / "saved")) == changed(loaded)


def test_using_a_pipeline_modifies_no_part(reranking, adapted, queries, tmp_path):
    for name, pipeline in (("base", reranking), ("adapted", adapted)):
        pipeline.save_pretrained(tmp_path / name)
        loaded = ReCrossPipeline.from_pretrained(tmp_path / name)
        parts = {part for part in PARTS if loaded.parts.has(part)}
        loaded(queries, num_beams=2)
        loaded.adapt(queries, **FAST)(queries[0])
        assert loaded.adapted_model is None or loaded.adapted_model is loaded.model
        assert loaded.parts.unmodified() == parts
        assert not any(map(loaded.parts.is_modified, parts))


@pytest.mark.slow
def test_a_save_that_is_killed_at_any_point_leaves_a_whole_pipeline(reranking, tmp_path):
    """The killed processes are copies of one that has loaded the pipeline; `save_script` tells what it found after each."""
    reranking.save_pretrained(tmp_path / "saved")
    script = Path(__file__).parents[1].joinpath("save_script.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, str(script), str(tmp_path / "saved"), str(tmp_path / "found.json")],
        check=True,
        env=environment,
        timeout=240,
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["old"] > 10 and found["new"] > 0
    assert set(found) <= {"old", "new", "named"}
    assert found["named"] == 1  # between two renames, where the error says which folder to rename
    assert {path.name for path in tmp_path.iterdir()} == {"saved", "found.json"}


def test_a_folder_that_holds_something_else_is_not_overwritten(pipeline, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"holds something that is no pipeline. Save to another folder"):
        pipeline.save_pretrained(tmp_path)
    assert content_of(tmp_path) == {"thesis.txt": b"years of work"}


@pytest.mark.parametrize("part", ["index", "upstream_model", "processing_class"])
def test_an_interrupted_save_leaves_the_old_folder_and_nothing_beside_it(part, pipeline, folder, monkeypatch):
    before = content_of(folder)
    pipeline = ReCrossPipeline(pipeline.upstream_model, pipeline.processing_class, pipeline.index)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(getattr(pipeline, part), "save_pretrained", interrupt)
    for target in (folder, folder.with_name("new")):
        with pytest.raises(KeyboardInterrupt):
            pipeline.save_pretrained(target)
    assert content_of(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_process_of_the_same_number_on_another_machine_takes_nothing_from_a_save(pipeline, tmp_path, monkeypatch):
    target, encoder_settings = tmp_path / "shared", saving.encoder_settings

    def while_another_saves(*args):
        monkeypatch.setattr(saving, "encoder_settings", encoder_settings)
        pipeline.save_pretrained(target)
        return encoder_settings(*args)

    monkeypatch.setattr(saving, "encoder_settings", while_another_saves)
    pipeline.save_pretrained(target)
    assert len(ReCrossPipeline.from_pretrained(target).index) == len(pipeline.index)
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]


# ---- loading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["upstream_model/model.safetensors", "index/index.faiss", "index/examples.parquet"])
def test_a_changed_byte_and_a_missing_file_are_noticed(name, folder):
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    pipeline = ReCrossPipeline.from_pretrained(folder)
    with pytest.raises(ArtifactError, match=rf"{name} is not the file that was saved: its checksum differs"):
        pipeline.index  # noqa: B018
    path.unlink()
    for verify_checksums in (True, False):
        with pytest.raises(ArtifactError, match=rf"Expected the file {name} in .*, found none"):
            ReCrossPipeline.from_pretrained(folder, verify_checksums=verify_checksums)


def test_checksums_can_be_passed_over_but_another_model_cannot(folder, tokenizer):
    config = folder / "upstream_model" / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(ArtifactError, match=r"pass `verify_checksums=False`"):
        ReCrossPipeline.from_pretrained(folder).upstream_model  # noqa: B018
    assert len(ReCrossPipeline.from_pretrained(folder, verify_checksums=False).index) == 48
    tiny.bart(tokenizer, seed=8).save_pretrained(folder / "upstream_model")
    loaded = ReCrossPipeline.from_pretrained(folder, verify_checksums=False)
    with pytest.raises(IndexMismatchError, match="was built with another encoder"):
        loaded.index  # noqa: B018


def test_what_is_no_pipeline_is_refused(folder, built_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected the folder of a pipeline, found none at"):
        ReCrossPipeline.from_pretrained(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match="a model alone is no pipeline"):
        ReCrossPipeline.from_pretrained(built_folder / "upstream_model")
    edit_manifest(folder, format_version=3)
    with pytest.raises(ArtifactError, match=r"pipeline of format 2, found 3 .*pip install -U recross_hf"):
        ReCrossPipeline.from_pretrained(folder)
    (folder / "recross.json").write_text("{")
    with pytest.raises(ValueError, match=r"Expected JSON in .*recross\.json"):
        ReCrossPipeline.from_pretrained(folder)


def test_the_manifest_names_no_place_of_this_machine(built_folder):
    for name in ("recross.json", "index/index.json"):
        assert str(built_folder) not in (built_folder / name).read_text()
    manifest = json.loads((built_folder / "recross.json").read_text())
    assert files_of(manifest) == set(content_of(built_folder)) - {"recross.json"}


def test_a_model_in_bfloat16_keeps_its_type(tokenizer, examples, tmp_path):
    half = tiny.bart(tokenizer).to(torch.bfloat16)
    built = ReCrossPipeline.build(half, tokenizer, examples, tmp_path / "built")
    assert built.model.dtype == torch.bfloat16
    opened = ReCrossPipeline.from_pretrained(tmp_path / "built")
    assert opened.upstream_model.dtype == torch.bfloat16
    assert isinstance(opened.index, UpstreamIndex)
    with pytest.raises(IndexMismatchError, match=r"dtype: bfloat16 != float32.*dtype=torch\.bfloat16`, as it was"):
        ReCrossPipeline.from_pretrained(tmp_path / "built", dtype=torch.float32).index  # noqa: B018
    # A pipeline of an earlier version does not say it.
    edit_manifest(tmp_path / "built", dtype=None)
    with pytest.raises(IndexMismatchError, match=r"dtype: bfloat16 != float32.*dtype=torch\.bfloat16`, as it was"):
        ReCrossPipeline.from_pretrained(tmp_path / "built").index  # noqa: B018
    half = ReCrossPipeline.from_pretrained(tmp_path / "built", dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "unused")  # nobody knows whether its index opens with that type
    assert "dtype" not in json.loads((tmp_path / "unused" / "recross.json").read_text())
    assert isinstance(half.index, UpstreamIndex)
    half.save_pretrained(tmp_path / "used")
    assert isinstance(ReCrossPipeline.from_pretrained(tmp_path / "used").index, UpstreamIndex)


def test_a_saved_pipeline_keeps_the_settings_of_its_encoder(bart, tokenizer, examples, tmp_path):
    encoder = MeanPooledEncoder(bart, tokenizer, max_length=9, autocast_dtype=torch.bfloat16)
    ReCrossPipeline.build(bart, tokenizer, examples, tmp_path / "built", encoder=encoder)
    loaded = ReCrossPipeline.from_pretrained(tmp_path / "built")
    assert loaded.index.encoder.identity() == encoder.identity()


def test_a_pipeline_with_a_foreign_encoder_is_not_saved(bart, tokenizer, examples, tmp_path):
    index = UpstreamIndex.build(examples, tiny.HashEncoder(), tmp_path / "index")
    with pytest.raises(TypeError, match="upstream model's own encoder or a SentenceEncoder, found one of HashEncoder"):
        ReCrossPipeline(bart, tokenizer, index).save_pretrained(tmp_path / "pipeline")
    assert not (tmp_path / "pipeline").exists()


def test_inputs_longer_than_the_model_are_cut_whatever_the_arguments_say(pipeline):
    """The tiny model has 128 positions, the paper's settings say 512 tokens."""
    text = "a long input " * 200
    assert isinstance(pipeline(text), str)
    adapter = pipeline.adapter([text], AdaptationArguments(max_input_length=512, num_retrieved=4, use_cpu=True))
    assert len(adapter.tokenize(adapter.query_dataset)[0]["input_ids"]) == 128


# ---- parts -----------------------------------------------------------------------------------------------------------


def test_parts_are_opened_when_they_are_used(reranking, adapted, tmp_path):
    reranking.save_pretrained(tmp_path / "base")
    loaded = ReCrossPipeline.from_pretrained(tmp_path / "base")
    loaded("Is it good?")
    assert not any(map(loaded.parts.stored.is_opened, ("index", "reranker")))
    adapted.save_pretrained(tmp_path / "adapted")
    loaded = ReCrossPipeline.from_pretrained(tmp_path / "adapted")
    loaded("Is it good?")
    assert not loaded.parts.stored.is_opened("upstream_model")  # of an adapter nobody else has its base
    assert loaded.index is loaded.index


def test_whether_a_large_index_belongs_to_the_model_is_found_out_once(folder, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(files.constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(stored_parts, "REMEMBERED_SIZE", 1)
    checks = []
    check = index.check_encoder
    monkeypatch.setattr(index, "check_encoder", lambda *args: checks.append(args) or check(*args))
    for _ in range(3):
        assert len(ReCrossPipeline.from_pretrained(folder).index) == 48
    assert len(checks) == 1
    with pytest.raises(IndexMismatchError, match="dtype: float32 != bfloat16"):
        ReCrossPipeline.from_pretrained(folder, dtype=torch.bfloat16).index  # noqa: B018
    assert len(ReCrossPipeline.from_pretrained(folder, verify_checksums=False).index) == 48
    assert len(checks) == 3
    tiny.bart(tokenizer, seed=8).save_pretrained(folder / "upstream_model")
    write_manifest(folder, ("upstream_model", "index"), {"max_length": 128, "autocast_dtype": None}, {})
    for _ in range(2):
        with pytest.raises(IndexMismatchError, match="was built with another encoder"):
            ReCrossPipeline.from_pretrained(folder).index  # noqa: B018


def test_a_part_that_is_replaced_is_the_new_one(reranking, tmp_path):
    reranking.save_pretrained(tmp_path)
    loaded = ReCrossPipeline.from_pretrained(tmp_path)
    assert loaded.parts.is_stored("reranker")
    loaded.reranker = None
    assert not loaded.parts.is_stored("reranker")
    (tmp_path / "scratch").mkdir()
    planned = loaded.publication("org/name", tmp_path / "scratch")
    assert [publication.repo_id for publication in planned.publications()] == [
        "org/name-upstream-model",
        "org/name-index",
        "org/name",
    ]
    loaded.upstream_model = reranking.upstream_model
    assert loaded.parts.is_stored("index") and not loaded.parts.is_stored("upstream_model")


def test_replacing_a_part_of_a_copy_leaves_the_pipeline_that_was_copied(reranking, tmp_path):
    reranking.save_pretrained(tmp_path)
    loaded = ReCrossPipeline.from_pretrained(tmp_path)
    copied = copy.copy(loaded)
    copied.reranker = None
    assert copied.reranker is None and loaded.reranker is not None
    assert copied.parts.is_modified("reranker") and not loaded.parts.is_modified("reranker")
    copied.reranker = loaded.reranker
    assert copied.parts.is_stored("reranker")
    assert copied.index is loaded.index  # opened once for both


def test_what_is_modified_and_what_is_stored(reranking, folder):
    in_memory, loaded = reranking.parts, ReCrossPipeline.from_pretrained(folder)
    assert in_memory.is_modified("index") and not in_memory.is_stored("index")
    assert not in_memory.is_modified("retrieved") and not in_memory.has("retrieved")
    assert loaded.parts.is_stored("index") and not loaded.parts.is_modified("reranker")
    loaded.reranker = reranking.reranker  # there was none
    assert loaded.parts.is_modified("reranker") and not loaded.parts.is_stored("reranker")
    loaded.processing_class = copy.deepcopy(loaded.processing_class)
    assert loaded.parts.is_modified("upstream_model") and loaded.parts.is_stored("index")
    assert not loaded.parts.is_modified("adapted_model")


def test_the_card_of_a_pipeline_that_has_got_a_reranker_is_written_anew(folder, reranking, tmp_path):
    (folder / "README.md").write_text("# Ours, without a reranker")
    loaded = ReCrossPipeline.from_pretrained(folder)
    assert loaded.publication("org/name", tmp_path).publications()[-1].files["README.md"].startswith(b"# Ours")
    loaded.reranker = reranking.reranker
    card = loaded.publication("org/name", tmp_path).publications()[-1].files["README.md"].decode()
    assert "org/name-reranker" in card


def test_a_revision_is_of_the_hub(folder):
    with pytest.raises(ValueError, match=r"`revision` of a repository on the Hub, found 'v1' of the folder"):
        ReCrossPipeline.from_pretrained(folder, revision="v1")


@pytest.mark.parametrize("opened", [True, False], ids=["index opened before", "index not opened"])
def test_a_model_that_was_trained_in_place_is_not_saved_or_published_with_the_old_index(
    opened, built_folder, tmp_path
):
    pipeline = ReCrossPipeline.from_pretrained(built_folder)
    assert not opened or len(pipeline.index) == 48
    with torch.no_grad():
        pipeline.upstream_model.get_encoder().layers[0].fc1.weight.add_(1.0)
    error = "the model was replaced or trained since|was built with another encoder"
    with pytest.raises(IndexMismatchError, match=error):
        pipeline.save_pretrained(tmp_path / "saved")
    with pytest.raises(IndexMismatchError, match=error):
        pipeline.publication("org/name", tmp_path)


def test_a_reranker_that_was_trained_in_place_is_published_anew(reranking, tmp_path):
    reranking.save_pretrained(tmp_path / "saved")
    pipeline = ReCrossPipeline.from_pretrained(tmp_path / "saved")
    assert pipeline.parts.is_stored("reranker")
    with torch.no_grad():
        next(pipeline.reranker.model.parameters()).add_(1.0)
    assert not pipeline.parts.is_stored("reranker")
    (tmp_path / "scratch").mkdir()
    files = pipeline.publication("org/name", tmp_path / "scratch").new_parts["reranker"].files
    assert files["model.safetensors"].is_relative_to(tmp_path / "scratch")


def test_an_index_with_columns_that_open_files_is_refused(folder):
    path = folder / "index" / "examples.parquet"
    dataset = Dataset.from_parquet(str(path))
    features = dataset.features | {"extra": Image()}
    pictures = Dataset.from_dict(dataset.to_dict() | {"extra": [None] * len(dataset)}, features=Features(features))
    pictures.to_parquet(path)
    with pytest.raises(
        ValueError, match=r"Expected columns of texts and numbers in .*, found 'extra' of the type Image"
    ):
        ReCrossPipeline.from_pretrained(folder, verify_checksums=False).index  # noqa: B018


def test_an_index_whose_lists_lie_in_another_file_is_refused(folder):
    path = folder / "index" / "index.faiss"
    content = path.read_bytes()
    record = b"ilod" + (4).to_bytes(8, "little") + (128).to_bytes(8, "little")
    path.write_bytes(b"IwFl" + content[4:] + record)
    with pytest.raises(IndexMismatchError, match="inverted lists in a file of their own, which could be any"):
        ReCrossPipeline.from_pretrained(folder, verify_checksums=False).index  # noqa: B018


# ---- what is read is not written over --------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", ["Flat", "SQ8", "IVF4,Flat", "IVF4,PQ4x4np,Refine(SQfp16)", "HNSW8"])
def test_a_pipeline_saved_onto_itself_or_published_keeps_its_index(
    factory, answering_bart, tokenizer, examples, queries, tmp_path
):
    folder = tmp_path / "p"
    ReCrossPipeline.build(answering_bart, tokenizer, examples, folder, factory=factory, metric_type=0)
    content = (folder / "index" / "index.faiss").read_bytes()
    pipeline = ReCrossPipeline.from_pretrained(folder)
    expected = pipeline.index.search(pipeline.index.encoder.encode(queries), k=5)
    for target in (folder, folder, tmp_path / "q"):
        pipeline.save_pretrained(target)
        assert (target / "index" / "index.faiss").read_bytes() == content
        index = ReCrossPipeline.from_pretrained(target).index
        found = index.search(index.encoder.encode(queries), k=5)
        assert found.positions.tolist() == expected.positions.tolist()
    in_memory = ReCrossPipeline(answering_bart, tokenizer, pipeline.index)
    (tmp_path / "scratch").mkdir()
    files = in_memory.publication("org/p", tmp_path / "scratch").new_parts["index"].files
    assert files["index.faiss"].read_bytes() == content


@pytest.mark.parametrize("inside", ["", "upstream_model", "index", "adapted"])
def test_an_adaptation_is_not_written_into_its_pipeline(inside, built_folder, queries):
    before, pipeline = content_of(built_folder), ReCrossPipeline.from_pretrained(built_folder)
    with pytest.raises(ValueError, match="apart from the pipeline, the folder"):
        pipeline.adapt(queries, output_dir=str(built_folder / inside), **FAST)
    assert content_of(built_folder) == before


def test_an_adaptation_writes_nothing_unless_it_is_told_where_to(folder, queries, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    before = content_of(tmp_path)
    pipeline = ReCrossPipeline.from_pretrained(folder)
    pipeline.adapt(queries, save_strategy="steps", save_steps=2, **FAST)
    assert content_of(tmp_path) == before
    assert not list((tmp_path / "temporary").iterdir()) and not list(Path.cwd().iterdir())
    adapter = pipeline.adapter(queries, pipeline.arguments(**FAST))
    assert adapter.args.output_dir == "trainer_output"  # as of any trainer


def test_the_folder_of_temporary_files_is_an_output_folder_like_any_other(folder, queries, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(folder.parent))
    pipeline = ReCrossPipeline.from_pretrained(folder)
    with pytest.raises(ValueError, match="apart from the pipeline, the folder"):
        pipeline.adapt(queries, output_dir=str(folder.parent), **FAST)


def test_an_adaptation_is_not_written_over_something_else_and_may_be_written_again(built_folder, queries, tmp_path):
    pipeline = ReCrossPipeline.from_pretrained(built_folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("notes")
    with pytest.raises(FileExistsError, match=r"found README\.md of something else in"):
        pipeline.adapt(queries, output_dir=str(tmp_path / "mine"), **FAST)
    pipeline.save_pretrained(tmp_path / "other")
    with pytest.raises(FileExistsError, match=r"found a pipeline \(recross\.json\) in"):
        pipeline.adapt(queries, output_dir=str(tmp_path / "other"), **FAST)
    for _ in range(2):
        adapter = pipeline.adapter(queries, pipeline.arguments(output_dir=str(tmp_path / "adapted"), **FAST))
        adapter.train()
        adapter.save_model()
        adapter.create_model_card()
    assert {"README.md", "retrieved.parquet"} <= {path.name for path in (tmp_path / "adapted").iterdir()}


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_a_pipeline_is_written_to_a_folder_of_the_home_and_to_no_file(folder, tmp_path, monkeypatch):
    pipeline = ReCrossPipeline.from_pretrained(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    pipeline.save_pretrained("~/saved")
    assert ReCrossPipeline.from_pretrained(tmp_path / "home" / "saved").folder
    assert not (tmp_path / "~").exists()
    (tmp_path / "taken").write_text("notes")
    with pytest.raises(NotADirectoryError, match=r"found the file .*taken\. Choose another name"):
        pipeline.save_pretrained("taken")
    assert (tmp_path / "taken").read_text() == "notes"


def test_a_pipeline_is_not_saved_inside_itself_and_keeps_what_lies_beside_it(folder, tmp_path):
    copy = tmp_path / "copy"
    ReCrossPipeline.from_pretrained(folder).save_pretrained(copy)
    pipeline = ReCrossPipeline.from_pretrained(copy)
    with pytest.raises(ValueError, match=r"a folder apart from the pipeline, .* which lies inside it"):
        pipeline.save_pretrained(copy / "again")
    (copy / "results.json").write_text("{}")
    (copy / "checkpoint-1").mkdir()
    (copy / "checkpoint-1" / "trainer_state.json").write_text("{}")
    pipeline.reranker = None
    pipeline.save_pretrained(copy)
    assert (copy / "results.json").read_text() == (copy / "checkpoint-1" / "trainer_state.json").read_text() == "{}"
    assert not (copy / "reranker").exists()
    assert ReCrossPipeline.from_pretrained(copy).reranker is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "pipeline"]


@pytest.mark.parametrize(("arguments", "name"), [({"device": "cuda:7"}, "device"), ({"dtype": "float99"}, "dtype")])
def test_a_pipeline_is_not_opened_with_what_there_is_not(arguments, name, folder):
    with pytest.raises(ValueError, match=f"Expected `{name}` to be"):
        ReCrossPipeline.from_pretrained(folder, **arguments)


def test_a_call_may_say_how_much_of_an_input_is_read(pipeline):
    text = "Is this review good? The film is lovely and long."
    cut = pipeline.processing_class.decode(
        pipeline.processing_class(text, truncation=True, max_length=5)["input_ids"], skip_special_tokens=True
    )
    assert pipeline(text, max_input_length=5) == pipeline(cut)
    assert pipeline([text, cut], max_input_length=5) == [pipeline(cut)] * 2


def test_a_callback_may_ask_the_pipeline_for_answers_while_it_trains(pipeline, queries):
    class Asks(TrainerCallback):
        def __init__(self):
            self.answers = []

        def on_step_end(self, args, state, control, **kwargs):
            self.answers.append(pipeline(queries))

    asks, weights = Asks(), []
    for callbacks in ([], [asks]):
        adapter = pipeline.adapter(queries, pipeline.arguments(**FAST), callbacks=callbacks)
        adapter.train()
        weights.append(adapter.model.state_dict())
    assert asks.answers == [pipeline(queries)] * FAST["max_steps"]
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())


def test_answering_takes_no_device_as_a_training_does(pipeline, queries):
    AcceleratorState._reset_state(reset_partial_state=True)
    assert len(pipeline(queries)) == len(queries)
    assert not has_process_state()


@pytest.mark.parametrize("name", ["max_input_length", "max_target_length", "generation_num_beams"])
def test_lengths_and_beams_of_the_adaptation_hold_for_answers(name, pipeline, queries):
    other = copy.copy(pipeline)
    other.adaptation = pipeline.adaptation | {name: 3}
    of_call = {"max_target_length": "max_new_tokens", "generation_num_beams": "num_beams"}.get(name, name)
    assert other(queries) == pipeline(queries, **{of_call: 3})
