"""Examples and an encoder for the tests of Lance data sets, which need no model, and what clients of the Hub do with these."""

from datetime import timedelta
from hashlib import sha256

import numpy as np
from datasets import Dataset
from huggingface_hub import HfApi

from recross_hf import LanceIndex, LanceRetriever, ReCrossPipeline, load_examples
from recross_hf.retrieval.lance.location import load_lance


class TextEncoder:
    """An encoder that gives each text a random vector of its own."""

    def __init__(self, dimension=16, seed=0):
        self.dimension, self.seed = dimension, seed

    def encode(self, texts):
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text):
        digest = sha256(f"{self.seed} {text}".encode()).digest()
        return np.random.default_rng(list(digest)).standard_normal(self.dimension, dtype=np.float32)


def rows(number, name="row", tasks=5):
    """So many examples of five tasks; all inputs differ."""
    return load_examples(
        Dataset.from_list(
            [
                {"id": f"{name}/{row}", "task": f"task {row % tasks}", "input": f"{name} {row}", "references": ["x"]}
                for row in range(number)
            ]
        )
    )


def give_up(storage, version):
    """Deletes a version that was finished."""
    dataset = load_lance().dataset(str(storage))
    dataset.tags.delete(f"recross_hf-{version}")
    dataset.cleanup_old_versions(timedelta(0), delete_unverified=True)


def upload(repo_id, folder):
    HfApi().create_repo(repo_id, repo_type="dataset", private=True)
    HfApi().upload_folder(repo_id=repo_id, repo_type="dataset", folder_path=folder)


def retrieved(uri, inputs, exclude_tasks):
    index = LanceIndex.from_pretrained(uri, encoder=TextEncoder())
    return LanceRetriever(index, exclude_tasks=exclude_tasks).retrieve(list(inputs), 20)["id"][:]


def publish_naming(folder, uri, repo_id):
    pipeline = ReCrossPipeline.from_pretrained(folder)
    pipeline.index = LanceIndex.from_pretrained(uri, encoder=pipeline.index.encoder)
    pipeline.push_to_hub(repo_id, private=True)


def found_by_pipeline(repo_id, inputs):
    pipeline = ReCrossPipeline.from_pretrained(repo_id)
    return LanceRetriever(pipeline.index).retrieve(list(inputs), 12)["id"][:], pipeline.parts.stored.fetched
