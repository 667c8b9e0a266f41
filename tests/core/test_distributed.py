"""Processes that leave or end their group, and what a CPU computes in."""

import json
import logging
import os
import threading
import time

import pytest
import tiny
import torch
from forks import fork
from torch.multiprocessing import ProcessRaisedException

from recross_hf import (
    CrossEncoderReranker,
    ExampleTrainer,
    ExampleTrainingArguments,
    MeanPooledEncoder,
    RerankerTrainer,
    RerankerTrainingArguments,
    SupervisionArguments,
)
from recross_hf.core import distributed as processes
from recross_hf.core.distributed import bfloat16_slowdown, end_process_group, warn_where_bfloat16_is_slow
from recross_hf.supervision.group_trainer import GroupTrainer

GROUP = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "x",
    "MASTER_PORT": "1",
}


def leave(rank, results, asked_before):
    torch.cuda.device_count = lambda: 2
    if asked_before:
        processes.process_state()
    found = processes.leave_process_group()
    state = [found, os.environ["CUDA_VISIBLE_DEVICES"], bool(GROUP.keys() & os.environ.keys())]
    results.write_text(json.dumps([*state, processes.process_state().num_processes]))


@pytest.fixture
def left(tmp_path, monkeypatch):
    """What a process finds after it has left the group, in a process of its own: a group is for life."""

    def call(asked_before=False, **environment):
        for name, value in {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "4,6,7", **environment}.items():
            monkeypatch.setenv(name, value)
        fork(leave, tmp_path / "results.json", asked_before)
        return json.loads((tmp_path / "results.json").read_text())

    return call


class GroupOfTwo:
    """Whose last collective leaves a thread behind that needs the interpreter once more."""

    def __init__(self, monkeypatch):
        self.let_go, self.ended = threading.Event(), False
        monkeypatch.setattr(processes, "process_state", lambda: self)
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)

    def wait_for_everyone(self):
        def finish():
            time.sleep(0.05)
            self.let_go.set()

        threading.Thread(target=finish).start()

    def destroy_process_group(self):
        self.ended = True
        assert self.let_go.is_set()


def test_a_group_ends_after_its_threads_have_let_go(monkeypatch):
    group = GroupOfTwo(monkeypatch)
    end_process_group()
    assert group.ended


def test_a_process_alone_does_not_wait(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("There is no other process."))
    end_process_group()


def test_a_process_of_a_launcher_is_alone_with_its_gpu(left):
    assert left(**GROUP) == [3, "6", False, 1]


def test_a_process_that_was_started_alone_stays_as_it_is(left):
    assert left() == [0, "4,6,7", False, 1]


def test_it_is_too_late_once_the_group_was_asked_for(left):
    with pytest.raises(
        ProcessRaisedException, match="Expected a process that has not asked for its device or its group"
    ):
        left(asked_before=True)


@pytest.mark.parametrize(("rank", "device"), [("0", "0"), ("1", "1"), ("2", "0")])
def test_more_processes_than_gpus_share_them(rank, device, monkeypatch):
    for name in processes._OF_THE_GROUP:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(processes.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(processes.PartialState, "_shared_state", {})
    processes.leave_process_group()
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == device


@pytest.fixture
def slowdown(monkeypatch):
    """Says how slow bfloat16 is to be found, before it is asked for, and that nobody was warned so far."""

    def set_to(times: float) -> None:
        monkeypatch.setattr(processes, "bfloat16_slowdown", lambda: times)

    warn_where_bfloat16_is_slow.cache_clear()
    yield set_to
    warn_where_bfloat16_is_slow.cache_clear()


def test_how_slow_bfloat16_is_is_measured():
    assert 0.05 < bfloat16_slowdown(64) < 10_000


def test_bfloat16_is_warned_of_once_where_the_cpu_is_slow_at_it(slowdown, caplog):
    slowdown(15.4)
    warn_where_bfloat16_is_slow("cuda")
    assert not caplog.records
    warn_where_bfloat16_is_slow("cpu")
    warn_where_bfloat16_is_slow("cpu")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "took 15 times as long as in float32. Compute in float32: `bf16=False` (--bf16 false)" in record.message


def test_bfloat16_is_not_warned_of_where_the_cpu_has_it(slowdown, caplog):
    slowdown(0.6)
    warn_where_bfloat16_is_slow("cpu")
    assert not caplog.records


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize(
    "what", ["encoder", "encoder in bfloat16", "reranker", "reranker training", "mining", "training"]
)
def test_whatever_computes_in_bfloat16_warns(what, bf16, slowdown, caplog, bart, tokenizer, pair_tokenizer, tmp_path):
    slowdown(15.0)
    dtype = torch.bfloat16 if bf16 else None
    if what == "encoder":
        MeanPooledEncoder(bart, tokenizer, autocast_dtype=dtype)
    elif what == "encoder in bfloat16":
        MeanPooledEncoder(tiny.bart(tokenizer).to(dtype or torch.float32), tokenizer)
    elif what == "reranker":
        CrossEncoderReranker(tiny.cross_encoder(pair_tokenizer), pair_tokenizer, autocast_dtype=dtype)
    elif what == "reranker training":
        args = RerankerTrainingArguments(tmp_path, use_cpu=True, bf16=bf16, report_to="none")
        RerankerTrainer(tiny.cross_encoder(pair_tokenizer), args, processing_class=pair_tokenizer)
    elif what == "mining":
        GroupTrainer(bart, tokenizer, SupervisionArguments(bf16=bf16))
    else:
        args = ExampleTrainingArguments(tmp_path, use_cpu=True, bf16=bf16)
        ExampleTrainer(tiny.bart(tokenizer), args, processing_class=tokenizer)
    assert ("bfloat16 was asked for" in caplog.text) == bf16
