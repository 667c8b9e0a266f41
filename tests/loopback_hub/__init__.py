"""A Hub on the loopback interface, which speaks the protocol to the real clients, and processes to run those in."""

from .client import Client, ClientGone, StepError, client_environment
from .faults import CutAnswer, CutRequest, OnArrival, OnReceipt, Slow, Status, WrongBytes
from .hub import LoopbackHub, RemoteHub
from .store import MAIN

CONVERTED = "refs/convert/parquet"
"""Where a Hub keeps the parquet form of a data set."""

__all__ = [
    "CONVERTED",
    "MAIN",
    "Client",
    "ClientGone",
    "CutAnswer",
    "CutRequest",
    "LoopbackHub",
    "OnArrival",
    "OnReceipt",
    "RemoteHub",
    "Slow",
    "Status",
    "StepError",
    "WrongBytes",
    "client_environment",
]
