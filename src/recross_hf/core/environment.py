"""Variables of the environment that say which pipeline the commands and the page take where nobody names one."""

PIPELINE_VARIABLE = "RECROSS_PIPELINE"
REVISION_VARIABLE = "RECROSS_REVISION"
