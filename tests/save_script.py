"""Saves a pipeline onto itself in copies of this process, each killed a little later, and writes what each left behind."""

import json
import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import torch
from contents import content_of

from recross_hf import ReCrossPipeline

WATCHED = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "shutil.copyfile", "shutil.rmtree"}


def save_and_be_killed(pipeline, folder, left):
    """Kills this process at the given event beside or below the folder; it ends by itself where there are not so many."""

    def count(event, arguments):
        nonlocal left
        if event in WATCHED and folder.name in str(arguments[0]):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    pipeline.save_pretrained(folder)


def what_is_left(folder, contents):
    if folder.is_dir():
        found = content_of(folder)
        return next((name for name, content in contents.items() if found == content), "broken")
    try:
        ReCrossPipeline.from_pretrained(folder)
    except FileNotFoundError as error:
        (replaced,) = folder.parent.glob(f".{folder.name}.*.replaced")
        if str(replaced) in str(error) and content_of(replaced) == contents["old"]:
            replaced.rename(folder)
            return "named"
    return "broken"


def main(folder, output):
    torch.set_num_threads(1)
    pipeline = ReCrossPipeline.from_pretrained(folder)
    # One part is written from memory, and the files of the others are linked.
    pipeline.upstream_model.generation_config.update(num_beams=2)
    assert pipeline.parts.unmodified() == {"index", "reranker"}
    shutil.copytree(folder, kept := folder.with_name("kept"))
    pipeline.save_pretrained(folder.with_name("whole"))
    contents = {"old": content_of(kept), "new": content_of(folder.with_name("whole"))}
    left, finished = Counter(), False
    for killed_at in range(10_000):
        if finished:
            break
        child = os.fork()
        if child == 0:
            save_and_be_killed(pipeline, folder, killed_at)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, -signal.SIGKILL), f"a save failed that was to be killed at event {killed_at}"
        finished = code == 0
        left[what_is_left(folder, contents)] += 1
        for rest in (folder, *folder.parent.glob(f".{folder.name}.*")):
            shutil.rmtree(rest)
        shutil.copytree(kept, folder)
    Path(output).write_text(json.dumps(left))
    for name in ("kept", "whole"):
        shutil.rmtree(folder.with_name(name))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
