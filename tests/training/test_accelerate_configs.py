"""The ready configs of accelerate, with two CPU processes in place of their GPUs.

FSDP is not among them: `accelerate launch` spreads weights over accelerators alone, and would run `fsdp.yaml` as plain data parallelism
here. What that file asks for is tested in `test_distributed.py`, where accelerate is told that the CPUs are accelerators.
"""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from recross_hf import load_model

CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "recipes" / "accelerate"
TRAIN = (
    *("-m", "recross_hf", "train", "--model_name_or_path", "model", "--train_files", "train.parquet"),
    *("--output_dir", "trained", "--max_steps", "2", "--per_device_train_batch_size", "4", "--save_strategy", "no"),
    *("--use_cpu", "true", "--max_target_length", "8"),
)


@pytest.fixture
def folder(tmp_path):
    tokenizer = tiny.tokenizer()
    tiny.bart(tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    tiny.examples().to_parquet(tmp_path / "train.parquet")
    return tmp_path


def launched(folder: Path, config: str, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file", str(CONFIGS / config)]
    return subprocess.Popen(
        [*command, "--num_processes", "2", *flags, *TRAIN],
        cwd=folder,
        env=os.environ | {"ACCELERATE_USE_CPU": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("config", ["ddp.yaml", "multi_node.yaml"])
def test_two_processes_train_one_model(config, folder):
    port = str(free_port())
    if config == "multi_node.yaml":  # two nodes of one process
        nodes = [
            launched(
                folder,
                config,
                *("--machine_rank", rank, "--main_process_ip", "127.0.0.1"),
                *("--main_process_port", port),
            )
            for rank in "01"
        ]
    else:
        nodes = [launched(folder, config, "--main_process_port", port)]
    printed = []
    try:
        for node in nodes:
            printed.append(node.communicate(timeout=300)[0])
            assert node.returncode == 0, printed[-1][-4000:]
    finally:
        for node in nodes:
            node.terminate()
    # Two steps of four examples in each of two processes; the main one alone says so.
    passes = [float(epoch) for text in printed for epoch in re.findall(r"'epoch': '?([\d.]+)", text)]
    assert passes == [pytest.approx(2 * 4 * 2 / len(tiny.examples()), abs=1e-3)]
    assert load_model(folder / "trained").num_parameters() == load_model(folder / "model").num_parameters()
