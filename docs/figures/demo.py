"""Draws docs/figures/demo.svg: what `recross demo` shows on a terminal of 80 columns.

python docs/figures/demo.py
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.ansi import AnsiDecoder
from rich.console import Console

PICTURE = Path(__file__).with_suffix(".svg")
COLUMNS = 80
# Without the font that rich would load from elsewhere: a page of the documentation asks nobody else for anything.
FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<title>recross demo</title>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g></g></svg>
"""


def shown() -> str:
    """What the command writes to a terminal, in an empty folder."""
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environment = os.environ | {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "recross_hf", "demo"]
    written = b""
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdout=terminal, stderr=terminal, cwd=folder, env=environment) as running,
    ):
        os.close(terminal)
        with contextlib.suppress(OSError):  # the other end is closed
            while some := os.read(reader, 1 << 16):
                written += some
    if running.returncode:
        raise RuntimeError(f"Expected `recross demo` to succeed, found: {written.decode()}")
    return written.decode()


def main() -> None:
    """Runs the demo and draws the last state of each of its lines."""
    states = [[state for state in line.split("\r") if state.strip()] for line in shown().split("\n")]
    lines = ["$ recross demo", *(line[-1] if line else "" for line in states)]
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, highlight=False)
        for line in AnsiDecoder().decode("\n".join(lines)):
            console.print(line)
    svg = console.export_svg(title="", code_format=FORMAT, unique_id="demo")
    PICTURE.write_text(re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE), encoding="utf-8")


if __name__ == "__main__":
    main()
