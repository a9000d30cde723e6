"""A picture of a page that lies on the disk: a report, as docs/report.md shows it, or a page of the site.

    python benchmarks/screenshot.py outputs/cs_mri/demo_head_0/report.html report.png
    mkdocs build && python benchmarks/screenshot.py build/site/guides/ct/index.html guide.png --size 1300x1000

The page is looked at in a Chromium that is there, through playwright (extra ``browser``).
"""

import argparse
import shutil
from pathlib import Path

FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
"""WebGL2, which reports are drawn with, without a graphics card."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--size", default="1300x730", help="of the window, in pixels")
    args = parser.parse_args()
    if not args.page.is_file():
        parser.error(f"{args.page}: no such file")
    look(args.page.resolve(), args.picture, args.size)


def look(page: Path, picture: Path, size: str) -> None:
    """Take the picture; of a report, when all its panels are drawn."""
    from playwright.sync_api import sync_playwright

    wide, high = (int(n) for n in size.split("x"))
    with sync_playwright() as play:
        own = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = play.chromium.launch(executable_path=own, args=FLAGS)
        tab = browser.new_page(viewport={"width": wide, "height": high})
        tab.goto(page.as_uri())
        if tab.locator("#slice-z").count():
            tab.wait_for_selector("body[data-ready]", timeout=120_000)
        tab.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main()
