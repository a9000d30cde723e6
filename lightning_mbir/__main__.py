"""``python -m lightning_mbir``."""

import sys
from pathlib import Path


def _leave_working_folder() -> None:
    """Take the working folder off the path, where ``python -m`` has put it: files that happen to lie there are not to
    be imported in the place of what is installed. A checkout in the working folder stays, behind everything else.
    """
    if sys.flags.safe_path or not sys.path or Path(sys.path[0]).resolve() != Path().resolve():
        return
    folder = sys.path.pop(0)
    if Path(folder).resolve() == Path(__file__).resolve().parents[1]:
        sys.path.append(folder)


if __name__ == "__main__":
    _leave_working_folder()

from lightning_mbir.cli import main  # noqa: E402 -- from what is on the path then

if __name__ == "__main__":
    raise SystemExit(main())
