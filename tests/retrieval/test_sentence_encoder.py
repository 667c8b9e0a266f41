"""A sentence-transformers model as the encoder of an index and of a pipeline."""

import json
import shutil

import numpy as np
import pytest
import tiny
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from recross_hf import MeanPooledEncoder, ReCrossPipeline, SentenceEncoder, UpstreamIndex
from recross_hf.data.conversations import Conversation
from recross_hf.hub.errors import ArtifactError
from recross_hf.retrieval.vector_shards import IndexMismatchError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny sentence encoder with prompts."""
    return tiny.sentence_transformer(tmp_path_factory.mktemp("encoder"), prompts={"query": "query: ", "none": ""})


@pytest.fixture
def encoder(folder):
    return SentenceEncoder.from_pretrained(folder)


def test_vectors_are_those_of_sentence_transformers(encoder, folder):
    texts = ["yes", "Is the sky blue?", "yes"]
    plain = SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(encoder.encode(texts), plain.encode(texts), rtol=1e-5)
    assert encoder.encode([]).shape == (0, encoder.dimension) == (0, 32)
    asking = SentenceEncoder.from_pretrained(folder, prompt_name="query")
    np.testing.assert_allclose(asking.encode(texts), plain.encode(texts, prompt="query: "), rtol=1e-5)
    np.testing.assert_allclose(
        asking.encode(texts), SentenceEncoder.from_pretrained(folder, prompt="query: ").encode(texts)
    )
    conversation = Conversation([{"role": "system", "content": "Be short."}, {"role": "user", "content": "Why?"}])
    np.testing.assert_array_equal(encoder.encode([conversation]), encoder.encode([str(conversation)]))
    with pytest.raises(TypeError, match="found one string"):
        encoder.encode("yes")


def test_the_identity_says_all_that_vectors_depend_on(encoder, folder):
    others = [
        SentenceEncoder.from_pretrained(folder, prompt="query: "),
        SentenceEncoder.from_pretrained(folder, max_length=8),
        SentenceEncoder.from_pretrained(folder, dtype="bfloat16"),
    ]
    assert len({json.dumps(one.identity(), sort_keys=True) for one in [encoder, *others]}) == 4
    assert SentenceEncoder.from_pretrained(folder).identity() == encoder.identity()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"prompt_name": "passage"}, "Expected `prompt_name` to be one of the model's, 'query', .*found 'passage'"),
        ({"prompt_name": "query", "prompt": "x"}, "no `prompt` beside it, found 'query' and the prompt 'x'"),
        ({"max_length": 1000}, "Expected `max_length` from 1 to the 64 tokens"),
    ],
)
def test_settings_that_the_model_has_not_are_refused(settings, told, folder):
    with pytest.raises(ValueError, match=told):
        SentenceEncoder.from_pretrained(folder, **settings)


def test_models_that_ask_for_code_or_have_no_safe_weights_are_refused(folder, tmp_path):
    with pytest.raises(ArtifactError, match=r"with modules\.json and safetensors, found no files"):
        (tmp_path / "empty").mkdir()
        SentenceEncoder.from_pretrained(tmp_path / "empty")
    for kind in ("mymodels.Transformer", "sentence_transformers.util.misc.import_from_string", "os.system"):
        other = tmp_path / kind
        shutil.copytree(folder, other)
        modules = json.loads((other / "modules.json").read_text())
        modules[0]["type"] = kind
        (other / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(ArtifactError, match=f"Expected modules of sentence-transformers .* found {kind}"):
            SentenceEncoder.from_pretrained(other)


def test_files_beside_the_models_own_are_not_read(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "modeling_evil.py").write_text("raise SystemExit('ran')")
    SentenceEncoder.from_pretrained(other).encode(["yes"])


def test_an_index_knows_another_encoder_by_short_and_long_texts(encoder, folder, examples, tmp_path):
    UpstreamIndex.build(examples, encoder, tmp_path / "index")

    class Alike:
        """An encoder without an identity that cuts texts earlier."""

        inner = SentenceEncoder.from_pretrained(folder, max_length=40)

        def encode(self, texts):
            return self.inner.encode(texts)

    built = UpstreamIndex.build(examples, Alike(), tmp_path / "alike")
    assert len(built.config["probes"]) == 4
    later = Alike()
    later.inner = encoder
    with pytest.raises(IndexMismatchError, match="for the same texts it gave other vectors"):
        UpstreamIndex.from_pretrained(tmp_path / "alike", encoder=later)


def test_a_pipeline_keeps_its_encoder(encoder, examples, queries, tmp_path):
    tokenizer = tiny.causal_tokenizer("<s> $A")
    model = tiny.llama(tokenizer)
    pipeline = ReCrossPipeline.build(model, tokenizer, examples, tmp_path / "pipeline", encoder=encoder)
    manifest = json.loads((tmp_path / "pipeline" / "recross.json").read_text())
    assert manifest["format_version"] == 3
    assert manifest["encoder"] == {"prompt": "", "max_length": 64}
    opened = ReCrossPipeline.from_pretrained(tmp_path / "pipeline")
    assert isinstance(opened.index.encoder, SentenceEncoder)
    settings = {"num_retrieved": 8, "max_steps": 1, "disable_tqdm": True}
    found = [one.adapt(queries, **settings).retrieved["id"][:] for one in (pipeline, opened)]
    assert found[0] == found[1]
    opened.save_pretrained(tmp_path / "again")
    opened.adapt(queries, **settings).save_pretrained(tmp_path / "adapted")
    pipeline.save_pretrained(tmp_path / "from memory")
    for name in ("again", "adapted", "from memory"):
        again = ReCrossPipeline.from_pretrained(tmp_path / name)
        assert again.adapt(queries, **settings).retrieved["id"][:] == found[0]
    assert "upstream_model" not in ReCrossPipeline.from_pretrained(tmp_path / "pipeline").parts.stored.fetched


def test_an_index_of_the_models_own_encoder_takes_its_place(encoder, examples, tmp_path, bart, tokenizer):
    ReCrossPipeline.build(bart, tokenizer, examples, tmp_path / "pipeline", encoder=encoder)
    pipeline = ReCrossPipeline.from_pretrained(tmp_path / "pipeline")
    pipeline.index = UpstreamIndex.build(examples, MeanPooledEncoder(bart, tokenizer), tmp_path / "index")
    pipeline.save_pretrained(tmp_path / "own")
    assert not (tmp_path / "own" / "encoder").exists()
    assert json.loads((tmp_path / "own" / "recross.json").read_text())["format_version"] == 2
    own = ReCrossPipeline.from_pretrained(tmp_path / "own")
    own.index = UpstreamIndex.build(examples, encoder, tmp_path / "other index")
    own.save_pretrained(tmp_path / "back")
    assert isinstance(ReCrossPipeline.from_pretrained(tmp_path / "back").index.encoder, SentenceEncoder)


def test_a_static_model_is_an_encoder(examples, bart, tokenizer, tmp_path):
    torch.manual_seed(0)
    static = StaticEmbedding(tiny.tokenizer(), embedding_dim=16)
    encoder = SentenceEncoder(SentenceTransformer(modules=[static], device="cpu"))
    pipeline = ReCrossPipeline.build(bart, tokenizer, examples, tmp_path / "pipeline", encoder=encoder)
    texts = examples["input"][:5]
    opened = ReCrossPipeline.from_pretrained(tmp_path / "pipeline")
    np.testing.assert_allclose(opened.index.encoder.encode(texts), pipeline.index.encoder.encode(texts), rtol=1e-5)
