"""Jobs that share a command's work, on this machine or on a slurm cluster, by submitit."""
