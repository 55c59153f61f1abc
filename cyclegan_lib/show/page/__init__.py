"""The page that computes: one HTML file with everything inside, and its parts as cells of a notebook.

A part NAME is NAME.html (a <section id="NAME">), NAME.js (it registers `cyclegan.parts.NAME`) and, where it has them,
NAME_*.js (scripts that stand before it), NAME.css, NAME.wasm and NAME.json (its data, where none are given). `assemble`
puts them into page.html, with the shared page.css and the scripts of SHARED.
The same files and data give the same bytes.
"""

import base64
import html
import json
from pathlib import Path
from string import Template

from IPython.display import HTML

HERE = Path(__file__).parent
SHARED = ("common", "engine", "scene")  # scripts that every part may use, in this order
PARTS = tuple(name for name in ("mechanism", "live", "evidence", "lab") if (HERE / f"{name}.js").is_file())


def assemble(parts, data):
    """The page of these parts, a self-contained HTML text.

    A script stands in an element with the id NAME-script (so that a worker can be made of its text), what
    `data[NAME]` holds, JSON-able, in NAME-data, and the bytes of NAME.wasm, in base64, in NAME-wasm.
    """
    scripts = [*SHARED, *(script for part in parts for script in _scripts(part))]
    inside = {
        "css": "".join(_text(f"{name}.css") for name in ("page", *parts) if (HERE / f"{name}.css").is_file()),
        "sections": "".join(_text(f"{name}.html") for name in parts),
        "data": "".join(
            _element("application/json", f"{name}-data", _json(data.get(name) or _kept(name))) for name in parts
        )
        + "".join(
            _element("text/plain", f"{name}-wasm", base64.b64encode((HERE / f"{name}.wasm").read_bytes()).decode())
            for name in scripts
            if (HERE / f"{name}.wasm").is_file()
        ),
        "scripts": "".join(_element("text/javascript", f"{name}-script", _text(f"{name}.js")) for name in scripts),
    }
    return Template(_text("page.html")).substitute(inside)


def _text(name):
    return (HERE / name).read_text(encoding="utf-8")


def _scripts(part):
    return [*sorted((path.stem for path in HERE.glob(f"{part}_*.js")), reverse=True), part]


def _kept(part):
    return json.loads(_text(f"{part}.json")) if (HERE / f"{part}.json").is_file() else {}


def _json(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True).replace("<", "\\u003c")  # no "</script>" in it


def _element(kind, name, text):
    return f'<script type="{kind}" id="{name}">{text}</script>\n'


def page_part(name, height=900, data=None):
    """A part of the page as an IPython HTML object: one frame that holds everything, `height` pixels high at first."""
    page = html.escape(assemble([name], {name: data or {}}))
    frame = f'<iframe title="{name}" style="width: 100%; height: {height}px; border: 0" srcdoc="{page}"></iframe>'
    return HTML(f"<div>{frame}</div>")  # IPython warns of a text that begins with a frame
