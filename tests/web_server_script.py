"""`recross web` with a log, at the path in WEB_REQUESTS, of whatever this process asks another machine for."""

import os
import sys

LOG = os.environ["WEB_REQUESTS"]
HERE = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "")


def note(event: str, arguments: tuple) -> None:
    if event == "socket.getaddrinfo":
        name = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[-1], tuple):
        name = arguments[-1][0]
    else:
        return
    name = name.decode() if isinstance(name, bytes) else name
    if name is not None and name not in HERE:
        with open(LOG, "a", encoding="utf-8") as log:
            log.write(f"{event} {name}\n")


sys.addaudithook(note)

from recross_hf.cli.main import main  # noqa: E402  (what is asked for when it is imported counts, too)

main(["web", *sys.argv[1:]])
