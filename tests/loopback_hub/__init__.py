"""A Hub on the loopback interface, which speaks the protocol to the real clients, and processes to run those in.

With the fixtures of `conftest.py`:

    def test_a_busy_hub_is_asked_again(loopback, run_client):
        loopback.add("models", "org/name", {"a.txt": b"a"})
        loopback.fail("HEAD", "/resolve/", Status(503), times=2)
        client = run_client(loopback.token)
        path = client("huggingface_hub:hf_hub_download", repo_id="org/name", filename="a.txt")
        assert [request.method for request in loopback.requests] == ["HEAD", "HEAD", "HEAD", "GET"]

`store` keeps repositories, `access` knows who may do what, `protocol` answers requests with them, `transport` carries
requests and `faults` spoil them; `client` and `worker` are the two ends of a process that runs client code, `clients` keeps
warm ones. The tests that take `hub` and not `loopback` run against any Hub: RECROSS_TEST_ENDPOINT and RECROSS_TEST_TOKEN name
it and a token that may write.
"""

from .client import Client, ClientGone, StepError, client_environment
from .clients import Clients
from .faults import CutAnswer, CutRequest, OnArrival, OnHalf, OnReceipt, Slow, Status, WrongBytes
from .hub import Hub, LoopbackHub
from .store import MAIN

CONVERTED = "refs/convert/parquet"
"""Where a Hub keeps the parquet form of a data set."""

__all__ = [
    "CONVERTED",
    "MAIN",
    "Client",
    "ClientGone",
    "Clients",
    "CutAnswer",
    "CutRequest",
    "Hub",
    "LoopbackHub",
    "OnArrival",
    "OnHalf",
    "OnReceipt",
    "Slow",
    "Status",
    "StepError",
    "WrongBytes",
    "client_environment",
]
