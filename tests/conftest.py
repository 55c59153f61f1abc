import functools
import http.server
import os
import shutil
import threading

os.environ.setdefault("OMP_NUM_THREADS", "2")

import hypothesis
import pytest
import torch
from helpers import gradient, tiny
from PIL import Image

from cyclegan_lib.water2wine.dataset import write_dataset

# The same examples every time in the suite, and no clock; `make torture` tries many more, new ones each time.
hypothesis.settings.register_profile("suite", max_examples=800, deadline=None, database=None, derandomize=True)
hypothesis.settings.register_profile("torture", max_examples=15_000, deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("suite")


@pytest.fixture(autouse=True)
def one_thread():
    """Sums are taken in another order by another number of threads: pin it, where bits count."""
    torch.set_num_threads(1)


MACHINE = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


@pytest.fixture(params=[name for name, there in MACHINE.items() if there])
def device(request):
    """Every device that this machine has."""
    return request.param


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """A water2wine of 6 + 6 training and 4 + 4 test pictures at 32 pixels. Read-only."""
    return write_dataset(tmp_path_factory.mktemp("data") / "tiny", num_train=6, num_test=4, size=32)


@pytest.fixture
def tiny_config(tiny_root, tmp_path):
    """Makes the configuration of a run of seconds, saved under tmp_path."""
    return functools.partial(tiny, tiny_root.parent, tmp_path)


@pytest.fixture
def folders(tmp_path):
    """Makes a data set with so many pictures in trainA, trainB, testA and testB."""

    def make(*counts, root=tmp_path / "set", size=40):
        for split, count in zip(("trainA", "trainB", "testA", "testB"), counts, strict=True):
            (root / split).mkdir(parents=True)
            for i in range(count):
                pixels = gradient(size, size)
                pixels[..., 2] = (i * 7 + len(split) * 3 + (split[-1] == "B") * 100) % 256
                Image.fromarray(pixels).save(root / split / f"{i:03d}.png")
        return root

    return make


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium, the one that this machine has."""
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        pytest.skip(f"no browser on this machine ({', '.join(names)}): nothing is tried in one")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def site(tmp_path):
    """(folder, address): what lies in the folder is served."""
    (tmp_path / "site").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path / "site"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path / "site", f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
