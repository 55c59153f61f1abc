"""The README's tables of "How fast it is", written from data/benchmark/*.json: after `make benchmark`."""

import json
import re
from pathlib import Path

from cyclegan_lib.benchmark import summary

ROOT = Path(__file__).resolve().parents[1]
BETWEEN = re.compile(r"(<!-- measured: make benchmark -->\n).*?(<!-- end -->)", re.S)


def main():
    readme = ROOT / "README.md"
    files = sorted((ROOT / "data" / "benchmark").glob("*.json"))
    text = "\n\n".join(summary(json.loads(path.read_text())) for path in files)
    readme.write_text(BETWEEN.sub(lambda found: f"{found[1]}{text}\n{found[2]}", readme.read_text()))


if __name__ == "__main__":
    main()
