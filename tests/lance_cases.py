"""Examples and an encoder for the tests of Lance data sets, which need no model."""

from hashlib import sha256

import numpy as np
from datasets import Dataset

from recross_hf import load_examples


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
