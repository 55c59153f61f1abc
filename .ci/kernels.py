"""Assemble every .wat of the page into the .wasm beside it: only for who changes one. A test compares them."""

from pathlib import Path

import wasmtime

for source in sorted((Path(__file__).resolve().parents[1] / "cyclegan_lib" / "show" / "page").glob("*.wat")):
    source.with_suffix(".wasm").write_bytes(wasmtime.wat2wasm(source.read_text()))
    print(source.with_suffix(".wasm"))
