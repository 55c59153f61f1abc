"""Write the repository's address into every badge, link and set-up cell.

    make address REPO=owner/name

It stands in one place, `[project.urls]` in pyproject.toml; everything else follows.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def current():
    """owner/name, as pyproject.toml says."""
    return re.search(r'Repository = "https://github\.com/([^"]+)"', (ROOT / "pyproject.toml").read_text())[1]


def files():
    """Every file that may name the address."""
    names = ("pyproject.toml", "README.md", "CITATION.cff", "data/README.md", "playground.ipynb")
    pages = ("cyclegan_lib/show/page/page.html", "data/explorer.html")
    notebooks = (path for path in (ROOT / "notebooks").glob("*") if path.suffix in (".md", ".ipynb"))
    return [*(ROOT / name for name in (*names, *pages)), *sorted(notebooks)]


def main():
    if len(sys.argv) != 2 or not re.fullmatch(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+", sys.argv[1]):
        sys.exit("error: give the repository as owner/name: make address REPO=owner/name")
    old, new = current(), sys.argv[1]
    for path in files():
        text = path.read_text()
        changed = text.replace(f"github.com/{old}", f"github.com/{new}")
        changed = changed.replace(f"colab.research.google.com/github/{old}", f"colab.research.google.com/github/{new}")
        if changed != text:
            path.write_text(changed)
            print(f"{path.relative_to(ROOT)}: {text.count(old)} × {new}")


if __name__ == "__main__":
    main()
