"""What the parts of the page are given: networks, tables and pictures, JSON-able."""

import base64
import json
import zlib
from pathlib import Path

from safetensors.torch import save

from cyclegan_lib.datasets import load_split
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import read_header
from cyclegan_lib.pictures.reading import read_picture
from cyclegan_lib.pictures.weights import load_generators, weights_file
from cyclegan_lib.runs.log import read_history
from cyclegan_lib.show import plots
from cyclegan_lib.study.tables import read_table
from cyclegan_lib.water2wine.dataset import dataset_folder

HERE = Path(__file__).parent
LARGEST_SIZE, LARGEST_NETWORK = 64, 1_500_000  # pixels of a side, parameters: what still runs in a page


def base64_of(content):
    return base64.b64encode(content if isinstance(content, bytes) else Path(content).read_bytes()).decode()


def packed(network):
    """The bytes of a safetensors file, compressed: 8 % less."""
    return base64_of(zlib.compress(network, 9))


def live(folder, still=None, only_last=False):
    """live.json with the networks of data/page that it names; `still` is a picture for browsers that run none."""
    given = json.loads((HERE / "live.json").read_text())
    if only_last:
        given["sets"] = [given["sets"][0] | {"moments": given["sets"][0]["moments"][-1:]}]
    moments = [moment for one in given["sets"] for moment in one["moments"]]
    paths = sorted({folder / f"{side['file']}.safetensors" for moment in moments for side in moment["files"]})
    if missing := [path for path in paths if not path.is_file()]:
        raise UserError(f"{missing[0]}: no such file; make page-networks writes it")
    files = {path.stem: packed(path.read_bytes()) for path in paths}
    return given | {"files": files, "still": still and base64_of(still)}


def evidence(folder):
    """evidence.json with every run's scores in the tables of the ablation, and the curves of the surgery."""
    given = json.loads((HERE / "evidence.json").read_text())
    scores, history = (read_table(folder / f"{name}.csv") for name in ("scores", "history"))
    columns = ["experiment", "arm", "seed", "floor_A", "floor_B", *(score["column"] for score in given["scores"])]
    for name, rows, needed in (("scores", scores, columns), ("history", history, ["step", "cycle_A"])):
        if not rows or not rows[0].keys() >= set(needed):
            raise UserError(f"{folder / name}.csv: missing, or without {', '.join(needed)}: run cyclegan ablation")
    curves = {}
    for row in history:
        if row["experiment"] == "surgery":
            curves.setdefault((row["arm"], row["seed"]), []).append((row["step"], row["cycle_A"]))
    return given | {
        "rows": [{column: row[column] for column in columns} for row in scores],
        "curves": [{"arm": arm, "seed": seed, "points": points} for (arm, seed), points in curves.items()],
    }


def run(source, data_root, count=8):
    """A run of your own: its generators, test pictures and losses; or drawn stills, where a page cannot run it."""
    facts, (G_AB, G_BA) = read_header(weights_file(source)), load_generators(source)
    if not {"dataset_name", "img_height", "img_width"} <= facts.keys() or G_BA is None:
        raise UserError(f"{source}: not a checkpoint of a training; give saved_models/<run_name>")
    size, root = (facts["img_height"], facts["img_width"]), dataset_folder(data_root, facts["dataset_name"])
    real = {d: load_split(root, f"test{d}", size, facts["channels"], count, read_picture) for d in "AB"}
    norm, parameters = facts["output_norm"], sum(value.numel() for value in G_AB.parameters())
    given = {"size": size[0], "channels": facts["channels"], "sides": [norm], "files": {}}
    given["title"] = f"Your run: {source}"
    if (Path(source) / "history.jsonl").is_file():
        given["history"] = base64_of(plots.to_png(plots.loss_curves(read_history(source)), dpi=80))
    is_small = size[0] == size[1] <= LARGEST_SIZE and parameters <= LARGEST_NETWORK
    if not is_small or norm not in ("none", "instance"):
        fake_B = G_AB(real["A"]).detach()
        rows = {"real A": real["A"], "fake B": fake_B, "back to A": G_BA(fake_B).detach()}
        reason = f"{parameters:,} parameters a generator, {size[1]}×{size[0]} pixels, norm at the output: {norm}"
        return given | {"still": base64_of(plots.to_png(plots.picture_rows(rows))), "reason": reason, "sets": []}
    networks = {"G_AB": G_AB.half().state_dict(), "G_BA": G_BA.half().state_dict()}
    halves = {f"{name}.{key}": value for name, values in networks.items() for key, value in values.items()}
    given["files"]["run"] = packed(save(halves, {"facts": json.dumps({"output_norm": norm})}))
    moment = {"label": f"after {facts['step']:,} steps", "files": [{"file": "run", "norm": norm}]}
    given["sets"] = [{"name": str(source), "titles": [plots.NORM_NAMES[norm]], "moments": [moment], "explains": ""}]
    pixels = {d: ((pictures + 1) * 127.5).round().byte().flatten(1).numpy() for d, pictures in real.items()}
    return given | {"pictures": {d: [base64_of(row.tobytes()) for row in rows] for d, rows in pixels.items()}}
