"""Clients that need no time to begin: forks of processes that have imported everything."""

import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from .client import Client


class Clients:
    """Starts clients as copies of a warm process for each set of the variables that libraries read at their import.

    `HF_HOME` is one of those, and each test has its own: what libraries see of it is one link, which leads to a client's own
    home when a step of that client begins. So steps of clients with different homes must not run at once. `HF_TOKEN` is read
    when it is needed.

    Args:
        folder: For the link, and where the warm processes run.
        without_settings: Modules that read no such variable, imported once for all.
        with_settings: Modules that do, or that import those.
    """

    def __init__(self, folder: Path, without_settings: Sequence[str], with_settings: Sequence[str]) -> None:
        self.folder, self.without_settings, self.with_settings = folder, without_settings, with_settings
        self._link, self._lock = folder / "home", threading.Lock()
        self._bare: Client | None = None
        self._warm: dict[frozenset[tuple[str, str]], Client] = {}

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *error: object) -> None:
        for client in self._warm.values():
            client.close()
        if self._bare is not None:
            self._bare.close()

    def start(self, environment: Mapping[str, str], folder: Path, timeout: float = 120.0) -> Client:
        """A client as `Client` makes one."""
        settings = {**environment, "HF_HOME": str(self._link)}
        client = self._warm_client(settings).copy(settings, folder, timeout)
        client.before_step = partial(self._lead_home, Path(environment["HF_HOME"]))
        return client

    def _warm_client(self, environment: dict[str, str]) -> Client:
        read = frozenset((k, v) for k, v in environment.items() if k.startswith("HF_") and k != "HF_TOKEN")
        if read not in self._warm:
            if self._bare is None:
                unset = {name: value for name, value in environment.items() if not name.startswith("HF_")}
                self._bare = Client(unset, self.folder)
                self._import(self._bare, self.without_settings)
            self._lead_home(self.folder / "warm")
            self._warm[read] = self._bare.copy(environment, self.folder)
            self._import(self._warm[read], self.with_settings)
        return self._warm[read]

    def _import(self, client: Client, modules: Sequence[str]) -> None:
        for module in modules:
            client("importlib:import_module", name=module)
        client("gc:freeze")  # so that collecting garbage in a copy does not touch, and double, all memory

    def _lead_home(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if not self._link.is_symlink() or Path(os.readlink(self._link)) != home:
                new = self._link.with_name("home.new")
                new.symlink_to(home)
                new.replace(self._link)
