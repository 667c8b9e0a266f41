"""Two processes of a launcher share a benchmark: `python tests/evaluation_script.py FOLDER`."""

import sys

from evaluation_cases import ADAPTATION, methods, tasks

from recross_hf import ReCrossPipeline, evaluate_methods
from recross_hf.core.distributed import leave_process_group

if __name__ == "__main__":
    rank, folder = leave_process_group(), sys.argv[1]
    pipeline = ReCrossPipeline.from_pretrained(f"{folder}/pipeline")
    output_dir = f"{folder}/shared"
    results = evaluate_methods(
        pipeline, tasks(), methods(pipeline), output_dir, settings=ADAPTATION, show_progress=False
    )
    results.save(f"{folder}/rank-{rank}")
