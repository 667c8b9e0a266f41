"""Where the jobs that share a command's work run, and what each of them has; the names are submitit's."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

SLURM_ALONE = ("mem_gb", "slurm_partition")
"""Arguments that nothing on a single machine keeps to."""


@dataclass
class LauncherArguments:
    """Arguments of [`launch`].

    Raises:
        ValueError: A number is out of range, or an argument of slurm stands beside another launcher.
    """

    launcher: str = field(
        default="none",
        metadata={
            "help": "Where the work runs: here and now (none), in jobs on this machine (local), or in those of a slurm cluster (slurm). "
            "Both need the extra [cluster].",
            "choices": ["none", "local", "slurm"],
        },
    )
    num_jobs: int = field(default=2, metadata={"help": "Jobs that share the work, on slurm as one array."})
    cpus_per_task: int | None = field(
        default=None, metadata={"help": "CPU cores of a process; by default what the launcher gives."}
    )
    gpus_per_node: int = field(default=0, metadata={"help": "GPUs of a job, which runs one process on each."})
    mem_gb: float | None = field(default=None, metadata={"help": "Memory of a slurm job in GB."})
    timeout_min: int = field(
        default=240, metadata={"help": "Minutes after which a job is ended and begun again; it goes on where it was."}
    )
    slurm_partition: str | None = field(default=None, metadata={"help": "Partition of a slurm job."})
    max_retries: int = field(
        default=2, metadata={"help": "How often a job that failed, was lost or ran out of time is begun again."}
    )

    def __post_init__(self) -> None:
        for name, least in (
            ("num_jobs", 1),
            ("cpus_per_task", 1),
            ("gpus_per_node", 0),
            ("mem_gb", 0.001),
            ("timeout_min", 1),
            ("max_retries", 0),
        ):
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"Expected --{name} of at least {least}, found {value}.")
        if self.launcher == "local" and (told := [name for name in SLURM_ALONE if getattr(self, name) is not None]):
            raise ValueError(
                f"Expected --{told[0]} beside --launcher slurm, found it beside local: jobs on this machine share what it has. Leave it out."
            )


LAUNCHER_ARGUMENTS = tuple(argument.name for argument in fields(LauncherArguments))
