"""Loads a pipeline of a Hub in each process of `torchrun`, and writes which commit that was, or what went wrong."""

import json
import sys
from pathlib import Path

from recross_hf import ReCrossPipeline
from recross_hf.core.distributed import end_process_group, process_state
from recross_hf.hub.errors import HubError

state = process_state()
assert state.num_processes == 2
try:
    found = ReCrossPipeline.from_pretrained(sys.argv[1]).parts.stored.home.revision
except HubError as error:
    found = f"HubError: {error}"
Path(f"{state.process_index}.json").write_text(json.dumps(found))
end_process_group()
