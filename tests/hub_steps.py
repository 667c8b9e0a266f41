"""What clients of the Hub do in the tests: they run in processes of their own, and values come back through JSON."""

import io
import json
import os
import runpy
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

from huggingface_hub import snapshot_download

from recross_hf import CrossEncoderReranker, DenseRetriever, ReCrossPipeline, UpstreamIndex, load_examples

FAST = {"num_retrieved": 6, "max_steps": 2, "learning_rate": 1e-2, "use_cpu": True, "disable_tqdm": True}


def publish(pipeline=None, *, repo_id, parts=(), **settings):
    """The commit of the pipeline; of `parts`, those are opened before."""
    loaded = ReCrossPipeline.from_pretrained(pipeline)
    for name in parts:
        getattr(loaded, name)
    return loaded.push_to_hub(repo_id, **settings).oid


def planned(pipeline, repo_id, scratch):
    publications = ReCrossPipeline.from_pretrained(pipeline).publication(repo_id, Path(scratch)).publications()
    return {publication.repo_id: publication.sizes for publication in publications}


def behaviour(name=None, inputs=("Is it good?",), **access):
    """What a pipeline answers, finds and ranks, and which parts were fetched to answer."""
    pipeline = ReCrossPipeline.from_pretrained(name, **access)
    inputs = list(inputs)
    answers = pipeline(inputs)
    fetched = pipeline.parts.stored.fetched
    found = DenseRetriever(pipeline.index).retrieve(inputs, 12)
    scores = None if pipeline.reranker is None else pipeline.reranker.rank(inputs, found["input"][:]).tolist()
    return {
        "answers": answers,
        "fetched": fetched,
        "ids": found["id"][:],
        "distances": found["distance"][:],
        "scores": scores,
        "retrieved": None if pipeline.retrieved is None else pipeline.retrieved["id"][:],
    }


def predict(name, inputs=("Is it good?",), **access):
    return ReCrossPipeline.from_pretrained(name, **access)(list(inputs))


def open_index(name, **access):
    return len(ReCrossPipeline.from_pretrained(name, **access).index)


@cache
def adapted(name, peft):
    from peft import LoraConfig

    config = LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, lora_alpha=64) if peft else None
    pipeline = ReCrossPipeline.from_pretrained(name)
    return pipeline.adapt(["Is this review good? It is fine."], peft_config=config, output_dir="adapted", **FAST)


def adapt(name, peft, inputs):
    """What the adapted pipeline answers, and what it learned from."""
    pipeline = adapted(name, peft)
    return {"answers": pipeline(inputs), "retrieved": pipeline.retrieved["id"][:]}


def publish_adapted(name, peft, repo_id):
    return adapted(name, peft).push_to_hub(repo_id).oid


def open_plainly(repo_id, parts):
    """The parts with the plain tools of their kind."""
    import faiss
    from datasets import load_dataset
    from huggingface_hub import hf_hub_download
    from sentence_transformers import CrossEncoder
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    model = AutoModelForSeq2SeqLM.from_pretrained(parts["upstream_model"])
    tokenizer = AutoTokenizer.from_pretrained(parts["upstream_model"])
    scores = CrossEncoder(parts["reranker"], device="cpu").predict([("a", "b")], show_progress_bar=False)
    examples = load_dataset(parts["index"], split="train")
    path = hf_hub_download(parts["index"], "index.faiss", repo_type="dataset")
    examples.load_faiss_index("embeddings", path)
    return {
        "model": type(model).__name__,
        "tokens": len(tokenizer("a")["input_ids"]),
        "scores": len(scores),
        "examples": examples["id"][:],
        "attached": examples.get_index("embeddings").faiss_index.ntotal,
        "vectors": faiss.read_index(path).ntotal,
    }


def open_adapted_plainly(repo_id, peft, text):
    """What an adapted model generates that was opened without this library."""
    from peft import AutoPeftModelForSeq2SeqLM, PeftConfig, PeftModel
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    if peft:
        config = PeftConfig.from_pretrained(repo_id)
        base = AutoModelForSeq2SeqLM.from_pretrained(config.base_model_name_or_path, revision=config.revision)
        model = PeftModel.from_pretrained(base, repo_id)
        other = AutoPeftModelForSeq2SeqLM.from_pretrained(repo_id)
    else:
        model = other = AutoModelForSeq2SeqLM.from_pretrained(repo_id)
    tokenizer = AutoTokenizer.from_pretrained(repo_id)
    ids = tokenizer(text, return_tensors="pt").input_ids
    found = [one.eval().generate(input_ids=ids, max_new_tokens=8)[0].tolist() for one in (model, other)]
    assert found[0] == found[1]
    return tokenizer.decode(found[0], skip_special_tokens=True).strip()


def push_index(pipeline, repo_id, **settings):
    return ReCrossPipeline.from_pretrained(pipeline).index.push_to_hub(repo_id, **settings).oid


def pull_index(pipeline, repo_id, **access):
    encoder = ReCrossPipeline.from_pretrained(pipeline).index.encoder
    index = UpstreamIndex.from_pretrained(repo_id, encoder=encoder, **access)
    return index.search(encoder.encode(["Is it good?"]), 5).positions.tolist()


def push_reranker(pipeline, repo_id, **settings):
    return ReCrossPipeline.from_pretrained(pipeline).reranker.push_to_hub(repo_id, **settings).oid


def pull_reranker(repo_id, **access):
    return CrossEncoderReranker.from_pretrained(repo_id, **access).score(["a"], ["b", "c"]).tolist()


def download(repo_id, folder):
    """A whole repository into a folder, as `hf download` does."""
    return snapshot_download(repo_id, local_dir=folder)


def run_example(path, arguments, token=None, folder=None):
    """What an example prints. It changes arguments and environment: call it in a copy, or last."""
    os.environ |= {"ACCELERATE_USE_CPU": "true"}
    os.environ.pop("HF_TOKEN", None)
    if token is not None:
        os.environ["HF_TOKEN"] = token
    if folder is not None:
        os.chdir(folder)
    sys.argv = [path, *arguments]
    with redirect_stdout(io.StringIO()) as shown:
        runpy.run_path(path, run_name="__main__")
    return shown.getvalue()


def told_by_publish(arguments, token):
    """What `recross publish` writes to standard error. It changes the environment: call it in a copy."""
    from recross_hf.cli.main import main

    os.environ["HF_TOKEN"] = token
    # The clients of the tests show no bars; that of a user does, on a terminal.
    for module in ("constants", "utils.tqdm"):
        sys.modules[f"huggingface_hub.{module}"].HF_HUB_DISABLE_PROGRESS_BARS = None
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    with redirect_stdout(io.StringIO()), redirect_stderr(terminal) as told:
        main(["publish", *arguments])
    return told.getvalue()


def soft_em(name):
    import evaluate

    return evaluate.load(name).compute(predictions=["The answer is B."], references=[["B", "option B"]])


WAITED = []


def wait_no_longer():
    """From now on this process tries again at once what failed; `WAITED` holds the seconds that it would have waited."""
    time.sleep = WAITED.append


def waited_for(name):
    """The seconds that a prediction would have waited between tries, before it is told that there is no connection."""
    from recross_hf.hub.errors import HubError

    WAITED.clear()
    try:
        predict(name)
    except HubError:
        return sum(WAITED)


TRIED = []


def refuse_connections():
    """From now on this process finds no other machine; `TRIED` holds what was tried, for errors may be caught."""
    refused = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.connect", "socket.sendto"}

    def refuse(event, arguments):
        if event in refused:
            TRIED.append(f"{event} {arguments!r}")
            raise ConnectionError(TRIED[-1])

    sys.addaudithook(refuse)


def use_a_folder(folder, inputs, examples, queries, labelled, scratch):
    """All that a folder is used for; what was tried to connect to for it."""
    from evaluate import load  # noqa: F401  what is asked for when it is imported counts as well

    found = behaviour(folder, inputs)
    for peft in (False, True):
        adapt(folder, peft, inputs)
        adapted(folder, peft).save_pretrained(Path(scratch) / f"saved-{peft}")
        arguments = ["--pipeline", folder, "--query_file", queries, "--eval_file", labelled, "--max_steps", "2"]
        arguments += ["--num_retrieved", "6", "--output_dir", str(Path(scratch) / f"adapted-{peft}")]
        shown = run_example(str(Path(examples) / "adapt.py"), [*arguments, *["--use_peft"] * peft])
        assert "adapted" in shown
        predict(str(Path(scratch) / f"saved-{peft}"))
    assert pull_reranker(str(Path(folder) / "reranker")) and pull_index(folder, str(Path(folder) / "index"))
    assert planned(folder, "org/name", scratch)
    assert soft_em(str(Path(sys.modules["recross_hf"].__file__).with_name("soft_em.py")))["soft_em"] == 100.0
    return {"tried": TRIED, "answers": found["answers"]}


def train_and_push(kind, pipeline, repo_id, output_dir):
    """Trains with checkpoints that are pushed, as they are saved and at the end."""
    from recross_hf import ExampleTrainer, ExampleTrainingArguments

    loaded = ReCrossPipeline.from_pretrained(pipeline)
    settings = {"max_steps": 2, "save_steps": 1, "save_strategy": "steps", "report_to": "none", "use_cpu": True}
    settings |= {"push_to_hub": True, "hub_model_id": repo_id, "hub_always_push": True, "output_dir": output_dir}
    if kind == "reranker":
        import tiny

        from recross_hf import RerankerTrainer, RerankerTrainingArguments

        args = RerankerTrainingArguments(**settings, max_length=50, disable_tqdm=True)
        model, tokenizer = loaded.reranker.model, loaded.reranker.processing_class
        trainer = RerankerTrainer(model, args, train_dataset=tiny.pairs(), processing_class=tokenizer)
    else:
        args = ExampleTrainingArguments(**settings, disable_tqdm=True)
        trainer = ExampleTrainer(
            loaded.upstream_model,
            args,
            train_dataset=load_examples(loaded.index.dataset),
            processing_class=loaded.processing_class,
        )
    trainer.train()
    trainer.push_to_hub()


def build_with_encoder(encoder, base, folder, examples):
    """The manifest of a pipeline whose index is encoded by a sentence-transformers model."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from recross_hf import SentenceEncoder

    ReCrossPipeline.build(
        AutoModelForSeq2SeqLM.from_pretrained(base),
        AutoTokenizer.from_pretrained(base),
        load_examples(examples),
        folder,
        encoder=SentenceEncoder.from_pretrained(encoder, prompt="search: "),
        adaptation={"max_input_length": 64, "max_target_length": 8},
    )
    return json.loads((Path(folder) / "recross.json").read_text())


def build_on_adapter(base, folder, examples):
    """Trains a LoRA upstream adapter on a base by the commands, and makes a pipeline of both."""
    from recross_hf.cli.main import main

    few = ["--use_cpu", "--max_steps", "4", "--learning_rate", "0.01", "--quiet"]
    lora = ["--use_peft", "--lora_r", "2", "--output_dir", f"{folder}-lora"]
    main(["train", "--train_files", examples, "--model_name_or_path", base, *lora, *few])
    main(["index", "--train_files", examples, "--model_name_or_path", f"{folder}-lora", "--output_dir", folder])
    settings = json.loads((Path(f"{folder}-lora") / "adapter_config.json").read_text())
    card = (Path(f"{folder}-lora") / "README.md").read_text()
    return {
        "settings": settings,
        "parts": json.loads((Path(folder) / "recross.json").read_text())["parts"],
        "card": card,
    }


def go_on_and_publish(name, repo_id, inputs):
    """What a pipeline answers after its upstream adapter was trained further, and is published."""
    adapted = ReCrossPipeline.from_pretrained(name).adapt(inputs, output_dir="gone-on", **FAST)
    adapted.push_to_hub(repo_id)
    return adapted(inputs)
