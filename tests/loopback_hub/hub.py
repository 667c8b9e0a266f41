"""The Hubs that tests talk to: one on the loopback interface, or any other that the environment names."""

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from .access import Access, Token
from .faults import Fault
from .protocol import HubProtocol, StorageProtocol
from .store import MAIN, Commit, File, Repository, Store
from .transport import Logged, Rule, Server


@dataclass
class Hub:
    """A Hub at an address, and all that tests may use of a Hub that is not theirs.

    Args:
        endpoint: Its address.
        token: A token that may write.
        user: Whose it is.
    """

    endpoint: str
    token: str
    user: str
    named: list[str] = field(default_factory=list)

    def name(self, name: str) -> str:
        """A name for a repository of the user's that nothing else has."""
        self.named.append(f"{self.user}/test-{secrets.token_hex(4)}-{name}")
        return self.named[-1]


class LoopbackHub(Hub):
    """A Hub with two origins on the loopback interface, from `with` to its end.

    Attributes:
        requests: What came, in order.
        token, read_token, other_token: Of the user, of the same to read only, and of `other_user`.
        invalid_token: Nobody's.
    """

    def __init__(self, *, page_size: int = 1000, part_size: int | None = None) -> None:
        super().__init__(endpoint="", token="hf_write", user="writer")
        self.other_user = "other"
        self.read_token, self.other_token, self.invalid_token = "hf_read", "hf_other", "hf_invalid"
        self.store = Store()
        tokens = {
            self.token: Token(self.user),
            self.read_token: Token(self.user, may_write=False),
            self.other_token: Token(self.other_user),
        }
        self.access = Access(tokens, {"org": {self.user}})
        self.requests: list[Logged] = []
        self._rules: list[Rule] = []
        self.protocol = HubProtocol(self.store, self.access, page_size=page_size, part_size=part_size)

    def __enter__(self) -> "LoopbackHub":
        lock = threading.Lock()
        self._servers = [
            Server("hub", self.protocol, lock, self._rules, self.requests),
            Server("storage", StorageProtocol(self.store), lock, self._rules, self.requests),
        ]
        self.endpoint, self.protocol.storage_url = (server.url for server in self._servers)
        self.protocol.url = self.endpoint
        return self

    def __exit__(self, *error: object) -> None:
        for server in self._servers:
            server.close()

    def add(self, kind: str, name: str, files: Mapping[str, bytes], reference: str = MAIN) -> Commit:
        """Puts files into a repository, which is made if it is not there, without any client."""
        repository = self.store.repositories.get((kind, name)) or self.store.create(kind, name)
        parent = repository.commit(reference) if reference in repository.references else None
        rules = parent or repository.commit()
        large = {path for path, content in files.items() if rules.takes_large(path, content[:512], len(content))}
        return repository.write(reference, {path: File(c, path in large) for path, c in files.items()}, parent=parent)

    def repository(self, kind: str, name: str) -> Repository:
        return self.store.repository(kind, name)

    def fail(self, method: str, pattern: str, fault: Fault, times: int = 1) -> Rule:
        """What befalls the next requests of a method whose target (path and query, either origin) has the pattern."""
        self._rules.append(Rule(method, pattern, fault, times))
        return self._rules[-1]

    def asked(self, *methods: str) -> list[str]:
        """The requests of these methods, in order, as "GET /api/models/org/name"."""
        return [f"{request.method} {request.target}" for request in self.requests if request.method in methods]

    def settle(self, timeout: float = 10.0) -> None:
        """Waits until what clients asked for is done or has failed, as after a client was killed.

        Raises:
            TimeoutError: Something is still under way.
        """
        if not all(server.settle(timeout) for server in self._servers):
            raise TimeoutError(f"Expected all requests to end within {timeout} s, found some under way")

    def mend(self) -> None:
        """Ends all faults."""
        self._rules.clear()
