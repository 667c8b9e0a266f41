"""Builds an index in two processes, of which one may be killed on the way; run by `test_distributed.py`."""

import os
import signal
import sys

import tiny
from accelerate import PartialState

from recross_hf import UpstreamIndex
from recross_hf.core.distributed import end_process_group
from recross_hf.retrieval.vector_shards import probes_for


class LoggingEncoder(tiny.HashEncoder):
    """Logs what it encodes; in process 1 it is killed at the given shard."""

    def __init__(self, log: str, killed_at: int) -> None:
        super().__init__()
        self.log, self.killed_at, self.shards = log, killed_at, 0

    def encode(self, texts):
        if list(texts) != probes_for(self):
            if PartialState().process_index == 1 and self.shards == self.killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.shards += 1
            with open(self.log, "a") as log:
                log.writelines(f"{text}\n" for text in texts)
        return super().encode(texts)


def main(folder: str, log: str, killed_at: int) -> None:
    state = PartialState(cpu=True)
    assert state.num_processes == 2
    UpstreamIndex.build(tiny.examples(), LoggingEncoder(log, killed_at), folder, shard_size=6)
    end_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
