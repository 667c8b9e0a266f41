"""A Hub on the loopback interface, which speaks the protocol to the real clients, and processes to run those in."""

from .client import Client, ClientGone, StepError, client_environment
from .faults import Call, CutAnswer, CutRequest, Slow, Status, WrongBytes
from .hub import LoopbackHub, RemoteHub
from .store import MAIN

CONVERTED = "refs/convert/parquet"
"""Where a Hub keeps the parquet form of a data set."""

__all__ = [
    "CONVERTED",
    "MAIN",
    "Call",
    "Client",
    "ClientGone",
    "CutAnswer",
    "CutRequest",
    "LoopbackHub",
    "RemoteHub",
    "Slow",
    "Status",
    "StepError",
    "WrongBytes",
    "client_environment",
]
