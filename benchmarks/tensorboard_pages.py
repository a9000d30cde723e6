"""Pictures of TensorBoard's pages, as docs/tensorboard.md shows them.

    python benchmarks/tensorboard_pages.py LOGDIR PICTURE.png --tab timeseries --filter level/

TensorBoard is started on a free port and looked at in a Chromium that is there, through playwright (extra ``browser``).
"""

import argparse
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

PATIENCE = 60.0
"""Seconds that TensorBoard may take to answer, and its page to show what is waited for."""
THERE = {
    "timeseries": "card-view canvas, card-view img, card-view svg",
    "hparams": "tf-hparams-table-view, vaadin-grid, tb-data-table, hparams-session-group-table-view",
    "text": "tf-text-loader, .text-panel, tf-markdown-view",
    "images": "tf-image-loader img",
    "scalars": "tf-scalar-card svg",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdir", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--tab", choices=THERE, default="timeseries")
    parser.add_argument("--filter", default="", help="of tags, a regular expression")
    parser.add_argument("--size", default="1400x900")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--settle", type=float, default=4.0, help="seconds after the page is there")
    args = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(args.logdir), "--port", str(port)]
    board = subprocess.Popen([*command, "--samples_per_plugin", "images=100", "--reload_interval", "5"])
    try:
        wait_for(f"http://127.0.0.1:{port}/data/runs")
        query = urllib.parse.urlencode({"tagFilter": args.filter, "smoothing": 0})
        look(f"http://127.0.0.1:{port}/?{query}#{args.tab}", args)
    finally:
        board.terminate()
        board.wait()


def wait_for(address: str) -> None:
    """Until the server has found runs."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address) as answer:
                if answer.read().strip() != b"[]":
                    return
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.5)
    raise SystemExit(f"{address}: no runs")


def look(address: str, args: argparse.Namespace) -> None:
    """Take the picture."""
    from playwright.sync_api import sync_playwright

    wide, high = (int(n) for n in args.size.split("x"))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": wide, "height": high})
        page.goto(address)
        page.wait_for_selector(THERE[args.tab], timeout=1000 * PATIENCE)
        if args.tab == "timeseries":
            page.get_by_role("button", name="Settings").first.click()  # the pane takes a fifth of the page
        page.wait_for_timeout(1000 * args.settle)
        page.screenshot(path=args.picture)
        browser.close()


if __name__ == "__main__":
    main()
