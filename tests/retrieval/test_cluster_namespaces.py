"""A build on two machines: two nodes of a Ray cluster that share nothing but a disk and a network between them."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cluster_encoders
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'recross_hf[cluster]'")
lance = pytest.importorskip("lance", reason="Lance is not installed: pip install 'recross_hf[cluster]'")
pytest.importorskip("lance_ray", reason="lance-ray is not installed: pip install 'recross_hf[cluster]'")

from recross_hf import LanceIndex, load_examples  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:lance is not fork-safe")]

TESTS = Path(__file__).parents[1]
NUM_ROWS = 4000
HEAD, OTHER = "10.77.0.1", "10.77.0.2"
TOOLS = ("ip", "nsenter", "setpriv", "unshare")
RAY = (sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats")


class Machine:
    """Processes with a network, processes, shared memory and a `/tmp/ray` of their own, all of which end with it: nothing of it has a name.

    Args:
        folder: Folder of its `/tmp/ray`.
    """

    def __init__(self, folder: Path) -> None:
        own = f"mkdir -p /tmp/ray {folder} && mount --bind {folder} /tmp/ray && mount -t tmpfs tmpfs /dev/shm"
        # It ends with this process, however that ends, and with it all that runs in it.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork"]
        command += ["--kill-child", "--mount-proc", "sh", "-c", f"{own} && echo up && while :; do sleep 1; done"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "up\n":
            raise OSError(self.process.communicate()[1])
        (self.first,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()

    def run(self, *words: object) -> subprocess.CompletedProcess:
        """Runs a command on it."""
        paths = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])
        environment = os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "RAY_ADDRESS": ""}
        # Where a token lies in the home folder, the head asks for it, and the others have to be told that there is one.
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32}
        command = ["nsenter", "--target", self.first, "--net", "--mount", "--pid", *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    def must(self, *words: object) -> str:
        """What a command printed that has to succeed."""
        done = self.run(*words)
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout

    def end(self) -> None:
        """Ends it, with all that runs on it."""
        self.process.kill()
        self.process.communicate()
        while Path(f"/proc/{self.first}").exists():
            time.sleep(0.05)


def cable(one: Machine, other: Machine) -> None:
    """A network between two machines, which ends with them."""
    ends = ["link0", "netns", one.first, "type", "veth", "peer", "name", "link0", "netns", other.first]
    subprocess.run(["ip", "link", "add", "name", *ends], check=True, capture_output=True, text=True)
    for machine, address, gate in ((one, HEAD, OTHER), (other, OTHER, HEAD)):
        machine.must("ip", "address", "add", f"{address}/24", "dev", "link0")
        for name in ("lo", "link0"):
            machine.must("ip", "link", "set", name, "up")
        machine.must("ip", "route", "add", "default", "via", gate)


@pytest.fixture
def machines(tmp_path) -> Iterator[tuple[Machine, Machine]]:
    """Two machines with a network between them."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if sys.platform != "linux" or os.geteuid() or missing:
        pytest.skip(
            f"only root on Linux makes networks, with {', '.join(TOOLS)}; missing: {', '.join(missing) or 'none'}"
        )
    made: list[Machine] = []
    try:
        try:
            made += [Machine(tmp_path / "ray" / "head")]
            made += [Machine(tmp_path / "ray" / "other")]
            cable(*made)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network of their own for two machines: {getattr(error, 'stderr', None) or error}")
        yield made[0], made[1]
    finally:
        for machine in made:
            machine.end()


@pytest.fixture
def upstream(tmp_path) -> str:
    """Examples in two files."""
    (tmp_path / "upstream").mkdir()
    for number in range(2):
        rows = range(number * NUM_ROWS // 2, (number + 1) * NUM_ROWS // 2)
        columns = {"input": [f"text {row}" for row in rows], "references": [["yes"]] * len(rows)}
        columns["task"] = [f"task {row % 7}" for row in rows]
        pq.write_table(pa.table(columns), tmp_path / "upstream" / f"{number}.parquet", row_group_size=500)
    return str(tmp_path / "upstream")


def test_two_machines_that_share_a_disk_build_the_index_of_one(machines, upstream, tmp_path):
    head, other = machines
    size = ("--num-cpus", 2, "--object-store-memory", 100_000_000)
    head.must(*RAY, "--head", "--node-ip-address", HEAD, "--port", 6379, "--include-dashboard", "false", *size)
    other.must(*RAY, "--address", f"{HEAD}:6379", "--node-ip-address", OTHER, *size)
    build = [sys.executable, TESTS / "cluster_script.py", upstream, tmp_path / "index", f"{HEAD}:6379"]
    build += ["--num_workers", 3, "--chunk_size", 250, "--seconds", 0.1, "--nodes", tmp_path, "--num_partitions", 4]
    without_token = head.run("env", "-u", "RAY_AUTH_MODE", "-u", "RAY_AUTH_TOKEN", *build)
    assert f"ConnectionError: Expected a Ray cluster at {HEAD}:6379, found none: " in without_token.stderr
    assert "A cluster that answers may ask for a token: set RAY_AUTH_MODE=token" in without_token.stderr
    head.must(*build)
    assert {path.read_text() for path in tmp_path.glob("*.node")} == {HEAD, OTHER}

    encoder = cluster_encoders.Encoder()
    index = LanceIndex.from_pretrained(tmp_path / "index", encoder=encoder)
    of_one = LanceIndex.build(load_examples(upstream), encoder, tmp_path / "of_one")
    rows, expected = (lance.dataset(str(one.location.uri), version=one.version).to_table() for one in (index, of_one))
    assert rows.to_pylist() == expected.to_pylist()
    segments = lance.dataset(str(tmp_path / "index"), version=index.version).stats.index_stats("vector_idx")
    assert (segments["num_indices"] > 1, segments["num_indexed_rows"]) == (True, NUM_ROWS)
    vectors = encoder.encode([f"text {row}" for row in range(0, NUM_ROWS, 97)] + ["another text"])
    near, exact = index.search(vectors, 8), of_one.search(vectors, 8)
    assert np.array_equal(near.positions[:, 0], exact.positions[:, 0])
    index.depth = None  # all vectors are compared
    assert np.array_equal(index.search(vectors, 8).positions, exact.positions)
