"""A picture of a terminal in mid-run, as docs/guides/ct.md shows it: what a run has printed so far, nothing else.

    python benchmarks/terminal.py docs/figures/terminal.svg --data chest.nii.gz -- \\
        predict --task sv_ct --views 8 --data.path chest.nii.gz

Runs the command in a pseudo-terminal of that size, gives its bytes to a terminal emulator (pyte, which no extra
brings: ``pip install pyte``), and writes the screen as SVG when the bar has come to ``--after`` of its steps; the run
is then stopped. It runs in an empty folder with links to ``--data``, so that no path of a machine is shown.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import MONOKAI
from rich.text import Text

BAR = re.compile(r"\s(\d+)/(\d+)\s")
COLOURS = {"brown": "yellow", "default": None}
"""What pyte calls otherwise than rich; the 256 come as hexadecimal digits."""
FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def run(command: list[str], folder: Path, columns: int, rows: int, done: Callable[[pyte.Screen], bool]) -> pyte.Screen:
    """The screen at the first moment that is ``done``; the command is stopped then.

    Raises:
        SystemExit: the command ended before.
    """
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    env |= {"TERM": "xterm-256color"}
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        while not done(screen):
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    read = os.read(ours, 65536)
                except OSError:  # what Linux says of a pseudo-terminal that nobody holds any more
                    read = b""
                if not read:
                    raise SystemExit("the run has ended before:\n" + "\n".join(screen.display))
                stream.feed(read)
    finally:
        process.send_signal(signal.SIGINT)
        end = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < end:  # what it still says has to be taken from it
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    os.read(ours, 65536)
                except OSError:
                    break
        process.wait()
        os.close(ours)
    return screen


def came_to(share: float) -> Callable[[pyte.Screen], bool]:
    """Whether a bar on the screen has come to a share of its steps."""

    def done(screen: pyte.Screen) -> bool:
        bars = [found for line in screen.display if (found := BAR.search(line))]
        return any(int(bar[1]) >= max(1.0, share * int(bar[2])) for bar in bars)

    return done


def text_of(screen: pyte.Screen) -> list[Text]:
    """The lines of a screen with their colours, without the empty ones below."""
    lines = []
    for y in range(screen.lines):
        line = Text()
        for x in range(screen.columns):
            cell = screen.buffer[y][x]
            colour = named(cell.fg)
            line.append(cell.data, Style(color=colour, bgcolor=named(cell.bg), bold=cell.bold, italic=cell.italics))
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain:
        lines.pop()
    return lines


def named(colour: str) -> str | None:
    """A colour of pyte as rich calls it."""
    if re.fullmatch(r"[0-9a-f]{6}", colour):
        return f"#{colour}"
    return COLOURS.get(colour, re.sub(r"^bright(?=\w)", "bright_", colour))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="files that the command names")
    parser.add_argument("--name", default="", help="what --data is called there, of one file [its own]")
    parser.add_argument("--after", type=float, default=0.2, help="share of the steps")
    parser.add_argument("--size", default="100x30", help="columns and rows")
    parser.add_argument("command", nargs="+", metavar="-- COMMAND", help="predict and its flags")
    args = parser.parse_args()
    columns, rows = (int(n) for n in args.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        for file in args.data:
            (Path(folder) / (args.name or file.name)).symlink_to(file.resolve())
        command = [sys.executable, "-m", "lightning_mbir", *args.command]
        screen = run(command, Path(folder), columns, rows, came_to(args.after))
    prompt = "$ python -m lightning_mbir " + " ".join(args.command)
    console = Console(record=True, width=columns, file=io.StringIO(), color_system="truecolor", legacy_windows=False)
    console.print(Text(prompt, "bold"), soft_wrap=False)
    for line in text_of(screen):
        console.print(line, soft_wrap=True)
    # Without rich's fonts, which a browser would fetch from elsewhere; lengths are in the text, so any monospace fits.
    args.picture.write_text(FONT.sub("", console.export_svg(title="", theme=MONOKAI, unique_id="terminal")))
    print("\n".join(screen.display).rstrip())


if __name__ == "__main__":
    main()
