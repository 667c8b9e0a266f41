"""What the pages of docs/ take for granted: the names that their Python uses without making them, and the files that it reads.

Each function is called in an empty working directory, and gives the names by which its page's blocks begin.
"""

from pathlib import Path
from typing import Any

import pytest
import tiny
from chat_templates import CHATML, chat_tokenizer
from datasets import Dataset

from recross_hf import (
    MeanPooledEncoder,
    ReCrossPipeline,
    TargetTask,
    load_examples,
    load_queries,
)

Names = dict[str, Any]
SMALL = {"num_retrieved": 16, "per_device_train_batch_size": 8, "num_train_epochs": 1}


def _model() -> Names:
    tokenizer = tiny.tokenizer()
    model = tiny.bart(tokenizer)
    model.name_or_path = "org/tiny"  # as a model that was loaded
    return {"model": model, "tokenizer": tokenizer, "encoder": MeanPooledEncoder(model, tokenizer)}


def _pipeline(folder: str = "bart0-pipeline") -> Names:
    names = _model()
    rows = tiny.examples().to_pandas().replace({"task": {"sum": "glue-mrpc"}})
    examples = load_examples(Dataset.from_pandas(rows, preserve_index=False))
    pipeline = ReCrossPipeline.build(names["model"], names["tokenizer"], examples, folder, adaptation=SMALL)
    return names | {"pipeline": pipeline, "index": pipeline.index, "inputs": tiny.queries()}


def _upstream_file() -> None:
    Path("upstream").mkdir()
    tiny.examples().to_parquet("upstream/tiny.parquet")


def adapting() -> Names:
    names = _pipeline()
    return names | {"test": tiny.examples(2)}


def many_tasks() -> Names:
    reviews = tiny.queries()
    return _pipeline() | {"reviews": reviews, "tickets": [f"Which desk? {text}" for text in reviews]}


def safety_gate() -> Names:
    return _pipeline() | {"queries": tiny.queries()}


def reranker() -> Names:
    its_tokenizer = tiny.pair_tokenizer()
    return _pipeline() | {"its_tokenizer": its_tokenizer, "cross_encoder": tiny.cross_encoder(its_tokenizer)}


def chat_models() -> Names:
    tokenizer = chat_tokenizer(CHATML)
    model = tiny.llama(tokenizer)
    return {"pipeline": ReCrossPipeline.build(model, tokenizer, tiny.examples(), "chat-pipeline", adaptation=SMALL)}


def indexes() -> Names:
    _upstream_file()
    tiny.sentence_transformer(Path("sentence-transformers/all-MiniLM-L6-v2"))
    return _model()


def lance() -> Names:
    pytest.importorskip("lance", reason="pylance is absent: pip install 'recross_hf[cluster]'")
    _upstream_file()
    return _model() | {"inputs": tiny.queries()}


def upstream_model() -> Names:
    _upstream_file()
    return _model()


def several_gpus() -> Names:
    return _model()


def comparing_methods() -> Names:
    test = load_examples(Dataset.from_list([row | {"id": f"t{place}"} for place, row in enumerate(_test_rows())]))
    task = TargetTask("film", test, [load_queries(tiny.queries(), task="film")])
    return _pipeline() | {"tasks": [task]}


def _test_rows() -> list[Names]:
    films = ("short", "odd", "loud", "warm")
    return [{"input": f"Is the film good? It was {word}.", "references": ["yes"], "task": "film"} for word in films]


def upstream_data() -> Names:
    Path("tickets").mkdir()
    Path("tickets/monday.csv").write_text(
        "text,desk\n"
        + "".join(f"Parcel {number} is lost.,post\nBill {number} is wrong.,money\n" for number in range(9))
    )
    Path("tasks.yaml").write_text(
        "upstream:\n  - {task: tickets, files: tickets/*.csv, templates: '{{text}} Which desk? ||| {{desk}}'}\n"
    )
    return {"test": tiny.examples(2)}
