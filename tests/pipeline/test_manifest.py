import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args, get_type_hints

import numpy as np
import pytest
from huggingface_hub import constants
from hypothesis import event, given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from transformers import SchedulerType

from recross_hf import AdaptationArguments
from recross_hf.hub import safety
from recross_hf.hub.errors import ArtifactError
from recross_hf.hub.expressions import runs_away
from recross_hf.hub.generation_settings import check_generation
from recross_hf.hub.model_sizes import check_tokenizer
from recross_hf.hub.repository import Repository
from recross_hf.hub.safety import check_model_files
from recross_hf.pipeline.manifest import Manifest, Part, read_manifest, write_manifest
from recross_hf.pipeline.settings import ADAPTATION_SETTINGS

ENCODER = {"max_length": 8, "autocast_dtype": None}
DIGEST, COMMIT = "0a" * 32, "0f" * 20


def content(**changes):
    parts = {
        "upstream_model": {"path": "upstream_model", "sha256": {"model.safetensors": DIGEST}},
        "index": {"repo_id": "org/i", "repo_type": "dataset", "revision": COMMIT, "sha256": {"index.json": DIGEST}},
    }
    return {"format_version": 2, "parts": parts, "encoder": ENCODER, "adaptation": {"seed": 3}} | changes


def read(tmp_path, manifest):
    path = tmp_path / "recross.json"
    path.write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    return Manifest.read(path, "org/name")


def with_part(**changes):
    return content(parts=content()["parts"] | {"reranker": changes})


def test_a_manifest_comes_back_as_it_was_written(tmp_path):
    parts = {
        "upstream_model": Part({"a/b.json": DIGEST}, "sub/folder", Repository("org/m", "model", COMMIT)),
        "index": Part({"index.faiss": DIGEST}, repository=Repository("org/i", "dataset", COMMIT)),
        "adapted_model": Part({"model.safetensors": DIGEST}),
        "retrieved": Part({"retrieved.parquet": DIGEST}),
    }
    manifest = Manifest(parts, ENCODER, {"rerank": False, "generation_num_beams": None})
    (tmp_path / "recross.json").write_bytes(manifest.to_bytes())
    assert Manifest.read(tmp_path / "recross.json", "org/name") == manifest
    described = manifest.to_json()["parts"]
    assert described["index"] == {
        "repo_id": "org/i",
        "repo_type": "dataset",
        "revision": COMMIT,
        "sha256": {"index.faiss": DIGEST},
    }
    assert described["adapted_model"] == {"path": ".", "sha256": {"model.safetensors": DIGEST}}


def test_the_type_of_the_weights_is_named_where_it_is_not_float32(tmp_path):
    for named in (None, "float32"):
        assert "dtype" not in Manifest(read(tmp_path, content()).parts, ENCODER, dtype=named).to_json()
    manifest = read(tmp_path, content(dtype="bfloat16"))
    assert (manifest.dtype, manifest.to_json()["dtype"], manifest.to_json()["format_version"]) == (
        *["bfloat16"] * 2,
        2,
    )
    for wrong in ("int8", "torch.bfloat16", 16, ["bfloat16"], {}, True):
        with pytest.raises(ArtifactError, match=r"Expected a data type of weights \(float32, bfloat16, .* found"):
            read(tmp_path, content(dtype=wrong))


def test_what_is_well_formed_is_read(tmp_path):
    assert read(tmp_path, content()).parts["index"].repository == Repository("org/i", "dataset", COMMIT)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (content(format_version=3), r"pipeline of format 2, found 3 in org/name .*pip install -U recross_hf"),
        (content(format_version=1), r"pipeline of format 2, found 1"),
        ([], r"pipeline of format 2, found None"),
        (content(parts=None), r"Expected the parts of a pipeline, found None"),
        (content(parts={}), r"Expected an upstream model and an index"),
        (
            content(parts=content()["parts"] | {"code": {"sha256": {"a.json": DIGEST}}}),
            r"Expected the parts base_model, upstream_model, .*found 'upstream_model, index, code'",
        ),
        (content(encoder={"max_length": 0, "autocast_dtype": None}), r"max_length and autocast_dtype"),
        (content(encoder={"max_length": True, "autocast_dtype": None}), r"max_length and autocast_dtype"),
        (content(encoder={"max_length": 8, "autocast_dtype": "int8"}), r"max_length and autocast_dtype"),
        (content(adaptation={"output_dir": "/home/somebody"}), r"settings of how to learn .* found output_dir="),
        (content(adaptation={"resume_from_checkpoint": "x"}), r"found resume_from_checkpoint='x'"),
        (content(adaptation={"seed": [1]}), r"Expected seed of the type int, found \[1\]"),
        (content(adaptation={"seed": True}), r"Expected seed of the type int, found True"),
        (content(adaptation={"rerank": 1}), r"Expected rerank of the type bool, found 1"),
        (
            content(adaptation={"learning_rate": "1e-4"}),
            r"Expected learning_rate of the type float or int, found '1e-4'",
        ),
        (
            content(adaptation={"generation_num_beams": 100_000}),
            r"Expected generation_num_beams from 1 to 128, found 100000",
        ),
        (
            content(adaptation={"num_retrieved": 10**11}),
            r"Expected num_retrieved from 1 to 1,000,000, found 100000000000",
        ),
        (content(adaptation={"num_retrieved": 10**6, "upsampling_ratio": 900}), r"at most 10,000,000 candidates"),
        (content(adaptation={"learning_rate": -1}), r"Expected learning_rate from 0 to 10, found -1"),
        (content(adaptation={"max_target_length": 0}), r"Expected max_target_length from 1 to"),
        (content(adaptation={"learning_rate": float("nan")}), r"Expected learning_rate of the type .* found nan"),
        (content(adaptation={"max_input_length": None}), r"Expected max_input_length of the type int, found None"),
        (with_part(path="../other", sha256={"a.json": DIGEST}), r"within the folder, found '\.\./other'"),
        (with_part(path="/etc", sha256={"a.json": DIGEST}), r"within the folder, found '/etc'"),
        (with_part(sha256={"../../a.json": DIGEST}), r"within the folder, found '\.\./\.\./a\.json'"),
        (with_part(sha256={"a\\b.json": DIGEST}), r"within the folder"),
        (with_part(sha256={"C:/b.json": DIGEST}), r"within the folder"),
        (with_part(sha256={"a//b.json": DIGEST}), r"within the folder"),
        (
            with_part(sha256={"pytorch_model.bin": DIGEST}),
            r"safe formats .* found 'pytorch_model\.bin'. Pickles and code",
        ),
        (with_part(sha256={"optimizer.pt": DIGEST}), r"safe formats"),
        (with_part(sha256={"modeling_new.py": DIGEST}), r"safe formats"),
        (with_part(sha256={"a.json": "short"}), r"SHA-256 checksum of a\.json, found 'short'"),
        (with_part(sha256={"a.json": 3}), r"SHA-256 checksum of a\.json, found 3"),
        (with_part(sha256={}), r"checksums of a part's files"),
        (with_part(path=3, sha256={"a.json": DIGEST}), r"the path of a part, found 3"),
        (with_part(url="http://x", sha256={"a.json": DIGEST}), r"found 'url, sha256'"),
        (with_part(repo_id="org/r", revision="main", sha256={"a.json": DIGEST}), r"a commit of org/r .* found 'main'"),
        (with_part(repo_id="org/r", sha256={"a.json": DIGEST}), r"a commit of org/r .* found None"),
        (
            with_part(repo_id="../r", revision=COMMIT, sha256={"a.json": DIGEST}),
            r"a repository's name, found '\.\./r'",
        ),
        (
            with_part(repo_id="o/r", repo_type="space", revision=COMMIT, sha256={"a.json": DIGEST}),
            r"a model or dataset repository, found 'space'",
        ),
    ],
)
def test_what_is_malformed_is_refused(manifest, message, tmp_path):
    with pytest.raises(ArtifactError, match=message):
        read(tmp_path, manifest)


def test_a_manifest_that_is_too_large_or_no_json_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"recross\.json of at most 1,048,576 bytes in org/name, found 1,048,577"):
        read(tmp_path, " " * (1 << 20) + "{")
    for text in ("{", "[" * 500_000):
        with pytest.raises(ValueError, match=r"Expected JSON in .*recross\.json"):
            read(tmp_path, text)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=3,
)
SOUND = content()["parts"]["index"]
file_names = st.sampled_from(["a.json", "sub/a.json", "../a.json", "/a.json", "a\\b.json", "a.bin"]) | st.text(
    max_size=8
)
in_a_part = {
    "sha256": st.dictionaries(st.just("a.json"), st.just(DIGEST) | values) | values,
    "path": st.sampled_from([".", "sub", "..", "/etc"]) | values,
    "repo_id": st.sampled_from(["org/m", "../m"]) | values,
    "repo_type": st.sampled_from(["model", "dataset", "space"]) | values,
    "revision": st.sampled_from([COMMIT, "main"]) | values,
    "url": values,
}
in_an_encoder = {"max_length": st.integers() | values, "autocast_dtype": st.sampled_from([None, "int8"]) | values}
in_an_adaptation = dict.fromkeys([*sorted(ADAPTATION_SETTINGS), "output_dir"], values)


def changed_in_one_place(sound, strategies):
    return st.one_of(
        st.builds(lambda value, name=name: sound | {name: value}, found) for name, found in strategies.items()
    )


part_names = st.sampled_from(["upstream_model", "index", "reranker", "adapted_model", "retrieved", "code"])
in_a_manifest = {
    "a file": st.builds(
        lambda name, file: content(parts=content()["parts"] | {name: {"sha256": {file: DIGEST}}}),
        part_names,
        file_names,
    ),
    "a part": st.builds(
        lambda name, part: content(parts=content()["parts"] | {name: part}),
        part_names,
        changed_in_one_place(SOUND, in_a_part),
    ),
    "parts": st.builds(lambda name, value: content(parts=content()["parts"] | {name: value}), part_names, values)
    | st.builds(lambda value: content(parts=value), values),
    "encoder": st.builds(lambda value: content(encoder=value), changed_in_one_place(ENCODER, in_an_encoder) | values),
    "adaptation": st.builds(
        lambda value: content(adaptation=value), changed_in_one_place({"seed": 3}, in_an_adaptation) | values
    ),
    "format_version": st.builds(lambda value: content(format_version=value), st.sampled_from([2, 3]) | values),
}


@pytest.mark.parametrize("place", in_a_manifest)
@given(data=st.data())
def test_whatever_stands_in_a_place_is_read_or_refused(place, data):
    """What is read is all that stood there, and leads nowhere."""
    found = data.draw(in_a_manifest[place])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "recross.json"
        path.write_text(json.dumps(found), encoding="utf-8")
        try:
            manifest = Manifest.read(path, "org/name")
        except ArtifactError:
            event("refused")
            return
        event("read")
        for name, part in manifest.parts.items():
            described = {"path": "."} | part.to_json()
            assert {key: described.get(key) for key in found["parts"][name]} == found["parts"][name]
            for file in [part.path, *part.sha256]:
                assert (Path("/home/x") / file).resolve().is_relative_to("/home/x") and "\\" not in file
            assert not [file for file in part.sha256 if file.endswith(".bin")]
            assert part.repository is None or part.repository.revision == COMMIT
        # As text, for no number that is no number is equal to itself.
        assert repr((manifest.encoder, manifest.adaptation)) == repr((found["encoder"], found["adaptation"]))
        path.write_bytes(manifest.to_bytes())
        assert repr(Manifest.read(path, "org/name")) == repr(manifest)


def test_settings_that_a_pipeline_may_hold_are_those_of_an_adaptation():
    types = get_type_hints(AdaptationArguments)
    for name, kinds in ADAPTATION_SETTINGS.items():
        expected = {kind for kind in get_args(types[name]) or (types[name],) if kind is not SchedulerType}
        assert set(kinds) == ({float, int} if float in expected else expected), name
    places = ("dir", "hub", "push", "report", "resume", "logging", "deepspeed", "fsdp")
    assert not [name for name in ADAPTATION_SETTINGS if any(place in name for place in places)]


def test_a_folder_is_described_and_what_is_no_artifact_is_not_saved(tmp_path):
    for name in ("upstream_model", "index"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "config.json").write_text("{}")
    write_manifest(tmp_path, ("upstream_model", "index"), ENCODER, {})
    assert read_manifest(tmp_path).parts["index"].sha256.keys() == {"sub/config.json"}
    (tmp_path / "index" / "training_args.bin").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"safe formats .* found 'training_args\.bin'"):
        write_manifest(tmp_path, ("upstream_model", "index"), ENCODER, {})


WEIGHTS = {"embeddings": np.zeros((90_000, 2), np.float16), "head": np.zeros(2, np.float16)}


@pytest.fixture
def model_folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    (tmp_path / "README.md").write_text("a card is no part of the model")
    return tmp_path


MODEL_FILES = ["config.json", "model.safetensors"]


def test_a_model_is_its_settings_and_weights_in_a_safe_format(model_folder):
    check_model_files(model_folder, MODEL_FILES)
    (model_folder / "model.safetensors").unlink()
    (model_folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"weights as safetensors in .*, found config\.json, pytorch_model\.bin"):
        check_model_files(model_folder, ["config.json", "pytorch_model.bin"])


def test_weights_under_another_name_are_refused(model_folder):
    """A list of shards may name a pickle that is called a text."""
    (model_folder / "weights.txt").write_bytes(b"")
    (model_folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "weights.txt"}}))
    with pytest.raises(ArtifactError, match=r"weights as safetensors"):
        check_model_files(model_folder, [*MODEL_FILES, "weights.txt", "model.safetensors.index.json"])


@pytest.mark.parametrize("name", ["adapter_config.json", "evil.py", "pytorch_model.bin", "generation_config.json"])
def test_a_file_that_is_not_named_is_refused_where_it_would_be_read(model_folder, name):
    (model_folder / name).write_text("{}")
    with pytest.raises(ArtifactError, match=rf"found {name} beside them, which would be read with them"):
        check_model_files(model_folder, MODEL_FILES)


def test_an_adapter_is_no_upstream_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file(
        {"lora_A": np.zeros((4, 30), np.float16), "lora_B": np.zeros((20, 4), np.float16)},
        tmp_path / "adapter_model.safetensors",
    )
    names = ["adapter_config.json", "adapter_model.safetensors"]
    check_model_files(tmp_path, names, adapter_allowed=True)
    with pytest.raises(ArtifactError, match=r"Expected a whole model in .*, found an adapter"):
        check_model_files(tmp_path, names)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "XLORA", "adapters": {"0": "org/other"}}')
    with pytest.raises(ArtifactError, match="found peft_type='XLORA'"):
        check_model_files(tmp_path, names, adapter_allowed=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"auto_map": {"AutoModel": "modeling.New"}},
        {"encoder": {"auto_map": {"AutoModel": "modeling.New"}}},
        {"attn_implementation": "org/kernel"},
        {"quantization_config": {"quant_method": "other"}},
    ],
)
def test_settings_that_ask_for_code_from_elsewhere_are_refused(model_folder, settings):
    for name in ("config.json", "tokenizer_config.json"):
        (model_folder / "tokenizer_config.json").write_text("{}")
        (model_folder / "config.json").write_text("{}")
        (model_folder / name).write_text(json.dumps(settings))
        with pytest.raises(ArtifactError, match=rf"in .*{name}, which asks for code from elsewhere.* never run"):
            check_model_files(model_folder, [*MODEL_FILES, "tokenizer_config.json"])


def test_weights_that_are_no_safetensors_are_refused(model_folder):
    (model_folder / "model.safetensors").write_bytes(b"a pickle by another name")
    with pytest.raises(ArtifactError, match=r"weights as safetensors in .*model\.safetensors, found something else"):
        check_model_files(model_folder, MODEL_FILES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_hidden_layers": 10**7}, r"num_hidden_layers of at most 128 in .*config\.json, found 10,000,000"),
        ({"encoder": {"n_layer": 10**7}}, r"encoder\.n_layer of at most 128"),
        ({"num_labels": 10**7}, r"num_labels of at most 90,000 in .*, found 10,000,000"),
        ({"id2label": {str(label): "" for label in range(90_001)}}, r"id2label of at most 90,000 in .*, found 90,001"),
        ({"vocab_size": 10**9}, r"vocab_size of at most 90,000"),
        ({"text_config": {"hidden_size": 90_001}}, r"text_config\.hidden_size of at most 90,000"),
        ({"d_ff": [2, 1e7]}, r"d_ff of at most 90,000 .* found 10,000,000"),
        ({"max_position_embeddings": 10**9}, r"max_position_embeddings of at most 16,777,216"),
    ],
)
def test_sizes_beyond_the_weights_are_refused_before_anything_is_built(settings, message, model_folder):
    (model_folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ArtifactError, match=message + r".*the weights beside it are 2 tensors .* download or save"):
        check_model_files(model_folder, MODEL_FILES)


def test_sizes_that_cost_nothing_and_what_is_no_size_are_read(model_folder):
    settings = {
        "num_hidden_layers": 96,
        "vocab_size": 90_000,
        "max_position_embeddings": 10_485_760,
        "rope_theta": 10**9,
    }
    settings |= {
        "eos_token_id": 10**8,
        "num_labels": 3,
        "id2label": {"0": "a"},
        "initializer_range": 0.02,
        "seed": 10**9,
    }
    (model_folder / "config.json").write_text(json.dumps(settings))
    check_model_files(model_folder, MODEL_FILES)


def test_settings_that_are_very_long_are_not_read(model_folder):
    (model_folder / "config.json").write_text(" " * (4 << 20) + "{}")
    with pytest.raises(ArtifactError, match=r"config\.json of at most 4,194,304 bytes, found 4,194,306"):
        check_model_files(model_folder, MODEL_FILES)


@pytest.mark.parametrize("settings", [{"r": 5}, {"rank_pattern": {"q_proj": 5}}, {"r": 4, "token_dim": 31}])
def test_an_adapter_has_no_larger_rank_than_its_weights(settings, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    weights = {"lora_A": np.zeros((4, 30), np.float16), "lora_B": np.zeros((20, 4), np.float16)}
    save_file(weights, tmp_path / "adapter_model.safetensors")
    names = ["adapter_config.json", "adapter_model.safetensors"]
    check_model_files(tmp_path, names, adapter_allowed=True)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | settings))
    with pytest.raises(ArtifactError, match=r"Expected \w+(\.q_proj)? of at most (4|30) in .*adapter_config\.json"):
        check_model_files(tmp_path, names, adapter_allowed=True)


def replaced(content, pattern):
    return {"type": "Replace", "pattern": pattern, "content": content}


def nested(depth):
    return {"type": "Sequence", "normalizers": [nested(depth - 1)]} if depth else {"type": "NFC"}


@pytest.mark.parametrize(
    ("name", "step", "message"),
    [
        ("normalizer", {"normalizers": [replaced("aa", {"String": "a"})] * 40}, r"at most 8,192 times as long"),
        ("normalizer", {"normalizers": [replaced("a", {"Regex": ""})] * 14}, r"at most 8,192 times as long"),
        (
            "pre_tokenizer",
            {"pretokenizers": [{"type": "ByteLevel"}] * 20},
            r"found replacements that could make it 1,048",
        ),
        ("normalizer", {"normalizers": [{"type": "NFC"}] * 300}, r"a normalizer of at most 256 parts.* found more"),
        ("pre_tokenizer", nested(20), r"a pre_tokenizer of at most 256 parts.* found deeper ones"),
    ],
)
def test_a_tokenizer_whose_steps_would_not_end_is_refused(name, step, message, model_folder):
    path = model_folder / "tokenizer.json"
    path.write_text(json.dumps({name: replaced("x" * 9, {"String": " "}), "model": {"vocab": {"a": 0}}}))
    check_model_files(model_folder, [*MODEL_FILES, "tokenizer.json"])
    path.write_text(json.dumps({name: {"type": "Sequence"} | step}))
    with pytest.raises(ArtifactError, match=message):
        check_model_files(model_folder, [*MODEL_FILES, "tokenizer.json"])


def test_a_tokenizer_that_passed_is_read_again_once_its_bytes_are_others(model_folder, monkeypatch):
    monkeypatch.setattr(constants, "HF_HOME", str(model_folder / "home"))
    read, path = [], model_folder / "tokenizer.json"
    monkeypatch.setattr(safety, "check_tokenizer", lambda *args: read.append(1) or check_tokenizer(*args))
    path.write_text(json.dumps({"normalizer": replaced("a" * 9, {"String": " "})}))
    status = path.stat()
    for _ in range(3):
        check_model_files(model_folder, [*MODEL_FILES, "tokenizer.json"])
    assert len(read) == 1
    # of the same length and the same times, as far as somebody can set them
    path.write_text(json.dumps({"normalizer": replaced("", {"Regex": "(a+)+$"})}).ljust(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    for _ in range(2):
        with pytest.raises(ArtifactError, match="regular expressions"):
            check_model_files(model_folder, [*MODEL_FILES, "tokenizer.json"])
    assert len(read) == 3


# ---- generation and expressions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 100_000}, "num_beams from 1 to 128"),
        ({"num_beams": "4"}, "num_beams from 1"),
        ({"num_beams": -1}, "num_beams from 1"),
        ({"num_return_sequences": 100_000}, "num_return_sequences from 1 to 128"),
        ({"num_return_sequences": 5}, "num_return_sequences of at most the 1 beams"),
        ({"max_new_tokens": 10**12}, "max_new_tokens from 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty from"),
        ({"early_stopping": "foo"}, "early_stopping to be true, false or 'never'"),
        ({"cache_implementation": "nonsense"}, "cache_implementation to be one of"),
        ({"decoder_start_token_id": 10**9}, "tokens of decoder_start_token_id that the model has"),
        ({"bad_words_ids": [[10**9]]}, "tokens of bad_words_ids that the model has"),
        ({"sequence_bias": [[[10**9], 1.0]]}, "tokens of sequence_bias that the model has"),
        ({"assistant_early_exit": 3}, "no assistant_early_exit"),
        ({"dola_layers": "high"}, "no dola_layers"),
        ({"stop_strings": ["a" * 257]}, "at most 64 stop_strings of 1 to 256 characters"),
        ({"stop_strings": ["a"] * 65}, "at most 64 stop_strings"),
        ({"stop_strings": [""]}, "at most 64 stop_strings"),
        ({"stop_strings": {"a": 1}}, "at most 64 stop_strings"),
    ],
)
def test_settings_of_generation_have_ranges(settings, message, tmp_path):
    path = tmp_path / "generation_config.json"
    with pytest.raises(ArtifactError, match=rf"{message}.*generation_config\.json, found .* remove the setting"):
        check_generation(settings, 300, path)


def test_settings_that_models_ship_are_taken(tmp_path):
    shipped = {
        **{"num_beams": 4, "early_stopping": True, "length_penalty": 2.0, "max_length": 142, "min_length": 56},
        **{
            "do_sample": True,
            "temperature": 0.6,
            "top_p": 0.9,
            "top_k": 50,
            "eos_token_id": [1, 2],
            "pad_token_id": -1,
        },
        **{
            "stop_strings": ["</s>", "User:"],
            "cache_implementation": "hybrid",
            "forced_bos_token_id": 0,
            "num_return_sequences": None,
        },
    }
    check_generation(shipped, 300, tmp_path / "generation_config.json")
    check_generation({"eos_token_id": 10**6}, None, tmp_path / "generation_config.json")


@pytest.mark.parametrize(
    "expression",
    [
        *(r"(a+)+$", r"(a|a)*b", r"(a*)*b", r"a*a*a*a*a*b", r"(?:a+){2,}x{9}(b|c)+", r"((a+)b?)+", r"(\w+\s?)*$"),
        *(
            r"((?:\r?\n)+)+x",
            r"(?:\s?\n)+x",
            r"(?:a?b?)+c",
            r"(?:a?A)+b",
            r"(?:\r\n|\n|\r)+x",
            r"(?:a?a)+b",
            r"(?:.?a)+b",
        ),
        *(r"(a?){30}a{30}", r"(.*)*", r"(?<n>a+)+", r"([ab]+)*c", r"(a{1,9}){1,9}", r"(?i:(a|A)+)+", "a" * 5000),
    ],
)
def test_expressions_that_run_away_are_told(expression, tmp_path):
    assert runs_away(expression)
    content = {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated"}}
    with pytest.raises(ArtifactError, match=r"regular expressions .* in the pre_tokenizer in .*tokenizer\.json"):
        check_tokenizer(content, tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    "expression",
    [
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}]*[\p{Ll}\p{Lm}]+(?i:'s|'t|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+(?!\S)",
        *(
            r" ?[^(\s|[.,!?…])]+",
            r"[\p{Han}&&[^\p{Hira}]]*[\p{Ll}]+(?i:'s)?",
            r" {2,}",
            r"(?:\r?\n)+",
            r"(\r\n?)*x|(?:-?\.'?)+",
            r"(?=(\d{3})+(?!\d))",
            "a{",
        ),
    ],
)
def test_expressions_of_known_tokenizers_are_taken(expression):
    assert not runs_away(expression)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (with_part(base="index", sha256={"a.json": DIGEST}), r"base_model or upstream_model as a base, found 'index'"),
        (with_part(base="base_model", sha256={"a.json": DIGEST}), r"the base of an adapter, found 'none'"),
        (
            content(parts=content()["parts"] | {"base_model": {"sha256": {"a.json": DIGEST}}}),
            r"Expected a pipeline of format 3, found 2",
        ),
    ],
)
def test_a_base_that_is_none_is_refused(manifest, message, tmp_path):
    path = tmp_path / "recross.json"
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=message):
        Manifest.read(path, "org/name")
