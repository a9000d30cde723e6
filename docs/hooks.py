"""What the site needs beyond its files: pages from the root of the repository, the table of all options of all methods,
and equations without a script."""

import html
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
FROM_ROOT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Pages that stand in the root, where repositories have them, and the notebooks of the gallery."""
    for name in FROM_ROOT:
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, name, content=text))
    files.append(File.generated(config, "options.md", content=options_page()))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
    return files


def options_page() -> str:
    """Of the text of the files in ``lightning_mbir/methods``, as help has it: without torch, without an install."""
    sys.path.insert(0, str(ROOT))
    try:
        from lightning_mbir.methods.catalog import own_cards
    finally:
        sys.path.remove(str(ROOT))
    lines = [
        "# All options of all methods",
        "",
        """Given as `--model.method_options '{"lam": 0.001}'`, or as arguments of `reconstruct`; `steps` as""",
        "`--steps`. `predict --method NAME --help` shows the same. What was tuned for a task, in `configs/tuned`, goes",
        "before these defaults. The last column has the range in which `--tune true` searches.",
    ]
    for card in own_cards().values():
        lines += ["", f"## {card.name}", "", f"{card.summary} For {' and '.join(card.modalities)}.", ""]
        if not card.options:
            lines.append("No options.")
            continue
        lines += ["| option | default | allowed | unit | what | searched |", "|---|---|---|---|---|---|"]
        for option, text in card.options:
            search, between = option.search, ""
            if search is not None:
                between = "both" if isinstance(option.default, bool) else f"{search.least:g} to {search.most:g}"
            what = text.replace("``", "`").replace("|", "\\|")
            lines.append(f"| `{option.name}` | {option.text} | {option.range} | {option.unit} | {what} | {between} |")
    return "\n".join(lines) + "\n"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to them from ``docs`` lead out of it; the site has them beside the rest."""
    markdown = markdown.replace("](../../notebooks/", "](../notebooks/")
    return re.sub(rf"\]\(\.\./({'|'.join(map(re.escape, FROM_ROOT))})", r"](\1", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Equations as MathML, which browsers show without a script from elsewhere."""

    def shown(found: re.Match[str]) -> str:
        return convert(html.unescape(found[2]).strip(), display="block" if found[1] == "div" else "inline")

    return EQUATION.sub(shown, content)
