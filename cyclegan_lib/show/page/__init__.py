"""The page that computes: one HTML file with everything inside, and its parts as cells of a notebook.

A part NAME is NAME.html (a <section id="NAME">) and, where it has them, NAME.js (it registers `cyclegan.parts.NAME`),
NAME_*.js (what that needs), NAME.css, NAME.wasm and NAME.json (its data, where none are given). `assemble` puts them
into page.html, with page.css and the scripts of SHARED. The same files and data give the same bytes.
"""

import html
import json
from pathlib import Path
from string import Template

from IPython.display import HTML

from cyclegan_lib.errors import UserError
from cyclegan_lib.files import write_atomic
from cyclegan_lib.show.page import contents

HERE = Path(__file__).parent
SHARED = ("common", "engine", "scene", "floor")  # scripts that every part may use, in this order
PARTS = tuple(n for n in ("opening", "mechanism", "live", "evidence", "lab") if (HERE / f"{n}.html").is_file())


def assemble(parts, data):
    """The page of these parts, a self-contained HTML text.

    A script stands in an element with the id NAME-script (so that a worker can be made of its text), what
    `data[NAME]` holds, JSON-able, in NAME-data, and the bytes of NAME.wasm, in base64, in NAME-wasm.
    """
    scripts = list(SHARED)
    for part in parts:
        scripts += [*sorted(path.stem for path in HERE.glob(f"{part}_*.js")), part]
    kernels = {path.stem: contents.base64_of(path) for path in sorted(HERE.glob("*.wasm")) if path.stem in scripts}
    given = {name: data.get(name) or json.loads(_text(f"{name}.json") or "{}") for name in parts}
    # No "</script>" may be in the data.
    values = {name: json.dumps(value, separators=(",", ":")).replace("<", "\\u003c") for name, value in given.items()}
    inside = {
        "css": "".join(_text(f"{name}.css") for name in ("page", *parts)),
        "sections": "".join(_text(f"{name}.html") for name in parts),
        "data": "".join(_element("application/json", f"{name}-data", value) for name, value in values.items())
        + "".join(_element("text/plain", f"{name}-wasm", kernel) for name, kernel in kernels.items()),
        "scripts": "".join(_element("text/javascript", f"{name}-script", _text(f"{name}.js")) for name in scripts),
    }
    return Template(_text("page.html")).substitute(inside)


def _text(name):
    return (HERE / name).read_text(encoding="utf-8") if (HERE / name).is_file() else ""


def _element(kind, name, text):
    return f'<script type="{kind}" id="{name}">{text}</script>\n' if text else ""


def page_part(name, height=900, data_root="data"):
    """A part of the page, "mechanism" say, as an IPython HTML object: one frame with all that it needs inside.

    The frame is `height` pixels high at first, and then as high as what it holds. The networks of "live" and the tables
    of "evidence" are read from `data_root`/page and `data_root`/ablation; a `UserError` names what is missing.
    """
    data_root = Path(data_root)
    if name == "live":
        data = contents.live(data_root / "page", only_last=True)
    else:
        data = contents.evidence(data_root / "ablation") if name == "evidence" else {}
    page = html.escape(assemble([name], {name: data}))
    frame = f'<iframe title="{name}" style="width: 100%; height: {height}px; border: 0" srcdoc="{page}"></iframe>'
    return HTML(f"<div>{frame}</div>")  # IPython warns of a text that begins with a frame


def write_page(path, run=None, data_root=Path("data"), ablation=None):
    """Write the page: of the experiment, or of a `run` of your own, saved_models/<run_name> say. Returns its path.

    Raises a `UserError` that names what is missing or damaged.
    """
    path, still = Path(path), data_root / "demo" / "water_to_wine.png"
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'its folder is not there'}")
    if run:
        text = assemble(("live", "mechanism"), {"live": contents.run(run, data_root)})
    else:
        tables = contents.evidence(ablation or data_root / "ablation")
        text = assemble(PARTS, {"live": contents.live(data_root / "page", still), "evidence": tables})
    write_atomic(path, text)
    return path


def command(args):
    """`cyclegan page`, and `cyclegan page saved_models/mine`."""
    output = args.output or Path("data/explorer.html" if not args.run else f"{Path(args.run).name}.html")
    path = write_page(output, args.run, args.data_root, args.ablation)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
