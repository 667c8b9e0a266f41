"""The page of recross_hf on which a pipeline is tried. RECROSS_PIPELINE and RECROSS_REVISION name another pipeline."""

from recross_hf.web.serving import launch_space

launch_space()
