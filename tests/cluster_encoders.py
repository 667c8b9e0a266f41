"""Encoders for workers of a Ray cluster, which import them from here; some have the faults that tests are about."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import tiny


class Encoder(tiny.HashEncoder):
    """Gives each text a vector of its own, after a while."""

    def __init__(self, dimension: int = 16, seed: int = 0, seconds: float = 0.0) -> None:
        super().__init__(dimension, seed)
        self.seconds = seconds

    def identity(self) -> dict:
        return {"class": "Encoder", "seed": self.seed}

    def encode(self, texts):
        time.sleep(self.seconds)
        return super().encode(texts)


class DyingEncoder(Encoder):
    """Kills its process when it sees a text, once where a file can tell that it did so before."""

    def __init__(self, text: str, marker: str | None = None) -> None:
        super().__init__()
        self.text, self.marker = text, marker and Path(marker)

    def encode(self, texts):
        if any(self.text in text for text in texts) and not (self.marker and self.marker.exists()):
            if self.marker:
                self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(texts)


class RecordingEncoder(Encoder):
    """Leaves a file in a folder for the node that it encodes on, with the address of that."""

    def __init__(self, folder: str, seconds: float = 0.0) -> None:
        super().__init__(seconds=seconds)
        self.folder = Path(folder)

    def encode(self, texts):
        import ray

        if ray.is_initialized() and ray.get_runtime_context().get_actor_id():
            path = self.folder / f"{ray.get_runtime_context().get_node_id()}.node"
            path.write_text(ray.util.get_node_ip_address())
        return super().encode(texts)


class LosingEncoder(Encoder):
    """Deletes what was written before, which is how the folder of a node that shares nothing looks from another one."""

    def __init__(self, storage: str) -> None:
        super().__init__()
        self.storage = Path(storage)

    def encode(self, texts):
        for path in self.storage.glob("data/*.lance"):
            path.unlink()
        return super().encode(texts)


class NaNEncoder(Encoder):
    """Gives a text no numbers."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def encode(self, texts):
        vectors = super().encode(texts)
        vectors[[self.text in text for text in texts]] = np.nan
        return vectors


def another_on_each_node(folder: str) -> Encoder:
    """What nodes with other models at one path give: the first worker has another seed than the second."""
    seed = len(list(Path(folder).glob("*.worker")))
    (Path(folder) / f"{seed}.worker").touch()
    return Encoder(seed=seed, seconds=0.3)  # long enough for the second one to come up


def missing() -> Encoder:
    """An encoder whose model is not there."""
    raise FileNotFoundError("No model at bart0. Expected a folder with config.json.")
