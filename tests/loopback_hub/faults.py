"""What can go wrong with a request."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple


class Pace(NamedTuple):
    """A piece of a body, and the pause after it."""

    size: int
    seconds: float


class Fault:
    """A request as usual; each kind changes one thing.

    `status`, `headers`: answered instead of being handled. `request_limit`, `answer_limit`: bytes of a body after which the
    connection ends; with an `answer_limit` of 0 the request is handled and the answer lost. `pace`: of the answer.
    """

    status: int | None = None
    headers: Mapping[str, str] = MappingProxyType({})
    request_limit: int | None = None
    answer_limit: int | None = None
    pace: Pace | None = None

    def at_arrival(self) -> None:
        """Called when the head of a request has come, and perhaps not its body."""

    def at_receipt(self) -> None:
        """Called when the whole request has come, and nothing is done yet."""

    def at_half(self) -> None:
        """Called when half of the answer's body has been sent."""

    def changed(self, body: bytes) -> bytes:
        """The body to send, of the same length."""
        return body


class Status(Fault):
    """The request is not handled: 500, 503, ..."""

    def __init__(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.status, self.headers = status, headers or {}


class CutRequest(Fault):
    """The connection ends when so many bytes of the request's body have come; nothing is done."""

    def __init__(self, after: int) -> None:
        self.request_limit = after


class CutAnswer(Fault):
    """The request is handled, and the connection ends after so many bytes of the answer's body."""

    def __init__(self, after: int) -> None:
        self.answer_limit = after


class WrongBytes(Fault):
    """The answer's body has the right length, and each byte is another one."""

    def at_half(self) -> None:
        """Called when half of the answer's body has been sent."""

    def changed(self, body: bytes) -> bytes:
        return bytes(byte ^ 0xFF for byte in body)


class Slow(Fault):
    """The answer's body comes in pieces, with pauses."""

    def __init__(self, size: int, seconds: float) -> None:
        self.pace = Pace(size, seconds)


class OnArrival(Fault):
    """A function is called when the head of the request has come; what else comes is handled as usual."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function

    def at_arrival(self) -> None:
        self.function()


class OnReceipt(Fault):
    """A function is called when the whole request has come; then it is handled as usual, whether anybody waits or not."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function

    def at_receipt(self) -> None:
        self.function()


class OnHalf(Fault):
    """A function is called when half of the answer's body has been sent; then comes the rest."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function

    def at_half(self) -> None:
        self.function()
