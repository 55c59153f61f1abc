"""The CycleGAN Lab in a real browser: its engine against PyTorch, its experiments to their answers, its controls."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cyclegan_lib.losses import FakeImageBuffer
from cyclegan_lib.show import page

HERE = Path(page.__file__).parent
LAB = json.loads((HERE / "lab.json").read_text(encoding="utf-8"))
PRESETS = {preset["name"]: preset for preset in LAB["presets"]}
SEEDS = range(5)
PATIENCE = 300_000  # milliseconds, for a state of the page
USUAL = dict(
    seed=0, batch=64, follow=50, large=0, cycle=10, identity=5, adversarial=1, buffer=1, norm=0, lrG=2e-3, lrD=2e-3,
    fault="",
)  # fmt: skip
HELPERS = """
var bytes = Uint8Array.from(atob(WASM), letter => letter.charCodeAt(0));
function make(settings, plain) {
  const piles = {};
  for (const d of ["A", "B"]) piles[d] = cyclegan.labEngine.makePile(d, settings.seed, settings.follow / 100);
  return cyclegan.labEngine.makeEngine({...settings, piles}, plain ? null : bytes);
}
function numbers(engine, at, count) { return [...engine.memory.slice(at, at + count)]; }
function weights(engine, what) {
  const numbersOf = ([name, net]) => [name, numbers(engine, net[what], net.count)];
  return Object.fromEntries(Object.entries(engine.networks).map(numbersOf));
}
"""


@pytest.fixture(scope="module")
def engine(browser):
    """A page with the engine and no more; `evaluate(code, argument)` runs JavaScript in it."""
    tab = browser.new_page()
    wasm = base64.b64encode((HERE / "lab.wasm").read_bytes()).decode()
    scripts = [(HERE / f"{name}.js").read_text(encoding="utf-8") for name in ("lab_engine", "lab_planes")]
    for script in ("var cyclegan = {parts: {}};", *scripts, HELPERS.replace("WASM", json.dumps(wasm))):
        tab.add_script_tag(content=script)
    yield tab.evaluate
    tab.close()


# The engine against PyTorch


def torch_network(flat, outputs):
    """The numbers of a network in `memory` → its weights and biases, leaves in float64."""
    flat, parameters = torch.tensor(flat, dtype=torch.float64), []
    for i, o in ((3, 16), (16, 16), (16, outputs)):
        weight, bias, flat = flat[: i * o].reshape(o, i), flat[i * o : i * o + o], flat[i * o + o :]
        parameters += [weight.clone().requires_grad_(), bias.clone().requires_grad_()]
    return parameters


def run_network(parameters, x):
    for k in (0, 2, 4):
        x = F.linear(x if k == 0 else F.leaky_relu(x, 0.2), parameters[k], parameters[k + 1])
    return x


def generate(parameters, x, norm):
    z = run_network(parameters, x)
    return (F.instance_norm(z[:, None])[:, 0] if norm else z).tanh()


def torch_losses(networks, a, b, settings):
    """→ what the generators minimise, what the discriminators minimise, and the losses by name."""
    G_AB, G_BA, D_A, D_B = (networks[name] for name in ("G_AB", "G_BA", "D_A", "D_B"))
    norm, swapped = settings["norm"], settings["fault"] == "swapped"
    fake_B, fake_A = generate(G_AB, a, norm), generate(G_BA, b, norm)
    adversarial = ((run_network(D_B, fake_B) - 1) ** 2).mean() + ((run_network(D_A, fake_A) - 1) ** 2).mean()
    cycle_A = (generate(G_BA, fake_B, norm) - a).abs().mean()
    cycle_B = (generate(G_AB, fake_A, norm) - b).abs().mean()
    identity = (generate(G_AB, b, norm) - b).abs().mean() + (generate(G_BA, a, norm) - a).abs().mean()
    weights = (settings["cycle"], 1) if swapped else (1, settings["cycle"])
    loss_G = weights[0] * settings["adversarial"] * adversarial + weights[1] * (cycle_A + cycle_B)
    loss_G = loss_G + settings["identity"] * identity
    loss_D = sum(
        0.5 * ((run_network(D, real) - 1) ** 2).mean() + 0.5 * (run_network(D, fake.detach()) ** 2).mean()
        for D, real, fake in ((D_A, a, fake_A), (D_B, b, fake_B))
    )
    named = dict(adversarial=adversarial / 2, cycle_A=cycle_A, cycle_B=cycle_B, loss_D=loss_D / 2)
    return loss_G, loss_D, named | ({"identity": identity / 2} if settings["identity"] else {})


CASES = {
    "usual": {}, "norm": dict(norm=1), "no identity": dict(identity=0), "swapped": dict(fault="swapped"),
    "not adversarial": dict(adversarial=0), "large": dict(large=1, seed=3), "no cycle": dict(cycle=0, batch=8),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_those_of_autograd(engine, case):
    settings = USUAL | dict(buffer=0) | CASES[case]
    found = engine(
        """settings => {
        const engine = make(settings), n = settings.batch;
        for (let i = 0; i < 20; i++) engine.train();
        const before = weights(engine, "at");
        engine.deal(); engine.generatorGradients(); engine.discriminatorGradients();
        return {before, grad: weights(engine, "grad"), losses: engine.losses,
                a: numbers(engine, engine.real.A, 3 * n), b: numbers(engine, engine.real.B, 3 * n)};
    }""",
        settings,
    )
    networks = {name: torch_network(flat, 3 if name[0] == "G" else 1) for name, flat in found["before"].items()}
    a, b = (torch.tensor(found[d], dtype=torch.float64).reshape(3, -1).T for d in "ab")
    loss_G, loss_D, losses = torch_losses(networks, a, b, settings)
    for name, loss in losses.items():
        assert found["losses"][name] == pytest.approx(loss.item(), rel=1e-5), name
    for loss, names in ((loss_G, ("G_AB", "G_BA")), (loss_D, ("D_A", "D_B"))):
        for name in names:
            expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, networks[name], retain_graph=True)])
            difference = torch.tensor(found["grad"][name], dtype=torch.float64) - expected
            assert difference.norm() < 1e-5 * expected.norm(), name


def test_five_steps_are_those_of_pytorchs_adam(engine):
    settings = USUAL | dict(buffer=0, lrG=1e-3, lrD=5e-3)
    found = engine(
        """settings => {
        const engine = make(settings), before = weights(engine, "at"), batches = [];
        for (let i = 0; i < 5; i++) {
            engine.train();
            batches.push(["A", "B"].map(d => numbers(engine, engine.real[d], 3 * settings.batch)));
        }
        return {before, after: weights(engine, "at"), batches};
    }""",
        settings,
    )
    networks = {name: torch_network(flat, 3 if name[0] == "G" else 1) for name, flat in found["before"].items()}
    adam = {
        kind: torch.optim.Adam(
            networks[f"{kind}_{x}"] + networks[f"{kind}_{y}"], lr=settings[f"lr{kind}"], betas=(0.5, 0.999)
        )
        for kind, x, y in (("G", "AB", "BA"), ("D", "A", "B"))
    }
    for batch in found["batches"]:
        a, b = (torch.tensor(x, dtype=torch.float64).reshape(3, -1).T for x in batch)
        # One graph for both: the fakes that the discriminators see are those made before the generators' update.
        loss_G, loss_D, _ = torch_losses(networks, a, b, settings)
        parts = [(adam[kind], loss, networks[f"{kind}_{x}"] + networks[f"{kind}_{y}"])
                 for kind, loss, x, y in (("G", loss_G, "AB", "BA"), ("D", loss_D, "A", "B"))]  # fmt: skip
        gradients = [torch.autograd.grad(loss, parameters, retain_graph=True) for _, loss, parameters in parts]
        for (optimizer, _, parameters), grads in zip(parts, gradients, strict=True):
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = grad
            optimizer.step()
    for name, parameters in networks.items():
        expected = torch.cat([parameter.detach().flatten() for parameter in parameters])
        assert torch.allclose(torch.tensor(found["after"][name], dtype=torch.float64), expected, rtol=1e-5, atol=1e-9)


def test_the_buffer_is_the_packages(engine):
    numbers = engine("() => { const r = cyclegan.labEngine.seeded(7); return Array.from({length: 900}, r); }")
    shown = engine("""() => {
        const swap = cyclegan.labEngine.makeBuffer(cyclegan.labEngine.seeded(7));
        return Array.from({length: 300}, (_, i) => swap(i));
    }""")
    buffer, draws = FakeImageBuffer(50), iter(numbers)
    buffer.rng = type(
        "Drawn", (), dict(random=lambda self: next(draws), randrange=lambda self, n: int(next(draws) * n))
    )()
    assert shown == [int(buffer(torch.tensor([[float(i)]])).item()) for i in range(300)]
    assert shown[:50] == list(range(50)) and 60 < sum(a != b for a, b in enumerate(shown)) < 190


def test_its_tanh_is_tanh(engine):
    x = np.linspace(-25, 25, 20_001)
    found = engine("x => x.map(cyclegan.labEngine.tanh)", x.tolist())
    assert np.abs(found - np.tanh(x)).max() < 4e-16
    assert engine("() => [0, 1e-300, -30, Infinity].map(cyclegan.labEngine.tanh)") == [0, 0, -1, 1]


@pytest.mark.parametrize("case", CASES)
def test_javascript_and_webassembly_agree_bit_for_bit(engine, case):
    runs = engine(
        """settings => [false, true].map(plain => {
        const engine = make(settings, plain);
        for (let i = 0; i < 40; i++) engine.train();
        const scores = engine.scores("D_A", engine.translations("G_BA", engine.settings.piles.B));
        return {losses: engine.losses, print: engine.fingerprint(), scores};
    })""",
        USUAL | CASES[case],
    )
    assert engine("() => WebAssembly.validate(bytes)"), "else both ran in JavaScript"
    assert runs[0] == runs[1]


def test_the_bytes_are_the_text_assembled():
    wasmtime = pytest.importorskip("wasmtime")
    assert wasmtime.wat2wasm((HERE / "lab.wat").read_text()) == (HERE / "lab.wasm").read_bytes(), (
        "python .ci/kernels.py"
    )


def test_the_floor_is_the_distance_to_the_disc(engine):
    piles = engine("() => ['A', 'B'].map(d => cyclegan.labEngine.makePile(d, 0, 0.5))")
    radius, angle = np.linspace(0, 3**0.5, 250)[:, None], np.linspace(0, 2 * np.pi, 600)[None]
    u, v = np.array([1, -1, 0]) / 2**0.5, np.array([1, 1, -2]) / 6**0.5
    disc = np.tanh((radius * np.cos(angle))[..., None] * u + (radius * np.sin(angle))[..., None] * v).reshape(-1, 3)
    for pile in piles:
        expected = np.mean([np.abs(disc - picture).mean(1).min() for picture in np.array(pile)])
        assert engine("pile => cyclegan.labPlanes.floorOf(pile)", pile) == pytest.approx(expected, abs=2e-3)


# The experiments


@pytest.fixture(scope="module")
def measured(engine):
    """(settings, seed, changes) → {"key", "losses": by name and step, "print"} after the last step of `steps`; kept."""
    kept = {}

    def measure(settings, changes, steps):
        place = json.dumps([settings, changes, steps])
        if place not in kept:
            kept[place] = engine(
                """([settings, changes, steps]) => {
                const engine = make(settings), losses = {cycle_A: [], loss_D: [], identity: []};
                for (let i = 0; i < steps; i++) {
                    for (const [step, key, value] of changes) if (step === i) engine.settings[key] = value;
                    engine.train();
                    for (const name in losses) losses[name].push(engine.losses[name]);
                }
                return {losses, key: {A: engine.answerKey("A"), B: engine.answerKey("B")}, print: engine.fingerprint(),
                        floor: cyclegan.labPlanes.floorOf(engine.settings.piles.A)};
            }""",
                [settings, changes, steps],
            )
        return kept[place]

    return measure


def value_of(claim, run):
    kept, inverted, lost, right = run["key"]["A"]
    if claim["what"] in ("cycle_A", "loss_D", "identity", "above_floor_A"):
        first, last = claim["steps"]
        mean = np.mean(run["losses"][claim["what"].replace("above_floor", "cycle")][first:last])
        return mean - run["floor"] if claim["what"] == "above_floor_A" else mean
    keys = dict(kept_A=kept, inverted_A=inverted, lost_A=lost, right_A=right)
    return (keys | dict(kept_difference=abs(kept - run["key"]["B"][0])))[claim["what"]]


@pytest.mark.parametrize("name", PRESETS)
def test_an_answer_counts_what_five_seeds_did(measured, name):
    preset = PRESETS[name]
    for claim in preset["claims"]:
        settings = USUAL | claim.get("settings", preset["settings"])
        changes = preset["changes"] + claim.get("then", [])
        steps = max(preset["steps"], claim["steps"][1])
        runs = [measured(settings | dict(seed=seed), changes, steps) for seed in SEEDS]
        values = [value_of(claim, run) for run in runs]
        assert sum(claim["low"] <= value <= claim["high"] for value in values) == claim["seeds"], (claim, values)
    said = [int(count) for count in re.findall(r"(\d) of 5", preset["answer"])]
    assert said == [claim["seeds"] for claim in preset["claims"]], "the counts in the text, in the order of the claims"


def test_the_answer_key_counts_kept_inverted_and_lost(engine):
    for detour, expected in {"x": [1, 0, 0], "-x": [0, 1, 0], "0": [0, 0, 1]}.items():
        key = engine(
            f"""settings => {{
            const engine = make(settings);
            engine.translations = (name, pile) => pile.map(([liquid, x, table]) => [-liquid, {detour}, table]);
            return engine.answerKey("A");
        }}""",
            USUAL,
        )
        assert key == [*expected, 1]


# The part of the page


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("lab") / "lab.html"
    path.write_text(page.assemble(["lab"], {}), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser, address):
    """Opens the part offline, at a width; what went wrong in any page is found at the end."""
    wrong, contexts = [], []

    def open_(fragment="", width=1280, scheme="light", url=address):
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        context.set_offline(True)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(PATIENCE)
        tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
        tab.goto(url + fragment)
        return tab

    yield open_
    for context in contexts:
        context.close()
    assert not wrong


def test_a_link_may_be_opened_in_a_page_that_is_open(opened):
    tab = opened()
    tab.evaluate("window.location.hash = '#lab?seed=3&stop=4'")
    wait_for_step(tab, 4)
    assert tab.locator("[data-key=seed]").input_value() == "3"
    tab.evaluate("window.location.hash = '#mechanism'")  # another part: nothing happens here
    at(tab, "one").click()
    assert at(tab, "step").inner_text() == "5"


def at(tab, name):
    return tab.locator(f"#lab-{name}")


def wait_for_step(tab, step):
    tab.wait_for_function(
        "step => document.querySelector('#lab-step').textContent === step "
        "&& document.querySelector('#lab-play').textContent === 'Play'",
        arg=str(step),
    )


def fingerprint(tab):
    return at(tab, "print").inner_text()


@pytest.mark.parametrize("name", PRESETS)
def test_an_experiment_runs_to_its_answer(opened, measured, name):
    preset, tab = PRESETS[name], opened()
    at(tab, "preset").select_option(name)
    assert at(tab, "question").inner_text() == preset["question"]
    assert preset["answer"][:30] not in at(tab, "answer").inner_text()
    at(tab, "play").click()
    wait_for_step(tab, preset["steps"])
    assert preset["answer"] in at(tab, "answer").inner_text()
    run = measured(USUAL | preset["settings"], preset["changes"], preset["steps"])
    assert fingerprint(tab) == run["print"]
    cells = [cell.inner_text() for cell in tab.locator("#lab-key td").all()]
    shares = [share for from_ in "AB" for share in run["key"][from_]]
    assert all(abs(int(cell.rstrip("%")) - 100 * share) < 0.51 for cell, share in zip(cells, shares, strict=True))
    assert f"cycle loss of A {np.mean(run['losses']['cycle_A'][-100:]):.3f}" in " ".join(
        at(tab, "answer").inner_text().split()
    )


def test_the_same_link_gives_the_same_run(opened):
    tab = opened()
    tab.locator("[data-key=identity]").press("Home")
    at(tab, "speed").select_option("10")
    at(tab, "play").click()
    tab.wait_for_function("Number(document.querySelector('#lab-step').textContent) >= 100")
    tab.locator("[data-key=norm]").check()  # while it runs
    tab.locator("[data-key=lrD]").select_option("0.005")
    tab.wait_for_function("Number(document.querySelector('#lab-step').textContent) >= 200")
    at(tab, "play").click()
    at(tab, "pointer").select_option("B")
    link, step, print_ = at(tab, "address").input_value(), at(tab, "step").inner_text(), fingerprint(tab)
    assert tab.evaluate("window.location.href") == link
    assert "norm*1" in link and "lrD*0.005" in link and "identity=0" in link and f"stop={step}" in link
    for _ in range(2):
        again = opened("#" + link.split("#")[1])
        wait_for_step(again, step)
        assert fingerprint(again) == print_ and at(again, "address").input_value() == link
        assert again.locator("[data-key=norm]").is_checked()


STRANGE = [
    "#lab?stop=x&seed=-7&batch=77&cycle=1e9&changes=**_5*nothing*1_3*norm*1&A=zz!&experiment=no",
    "#lab?seed=NaN&fault=<b>&A=0&stop=1e999", "#lab", "#lab?", "#mechanism",
]  # fmt: skip


@pytest.mark.parametrize("fragment", STRANGE)
def test_any_address_is_read_without_an_error(opened, fragment):
    tab = opened(fragment)
    at(tab, "play").click()
    tab.wait_for_function("Number(document.querySelector('#lab-step').textContent) > 5")
    assert at(tab, "print").inner_text() and "NaN" not in tab.locator("#lab").inner_text()


@pytest.mark.parametrize("width", [390, 1280])
def test_every_control_works_by_keyboard_and_by_mouse(opened, width):
    tab = opened(width=width)
    for name in ("one", "again", "slow", "one", "slow", "given", "copy"):
        at(tab, name).press("Enter")
        at(tab, name).click()
    assert at(tab, "address").input_value().endswith("stop=0")
    for control in tab.locator("#lab [data-key]").all():
        key, kind = control.get_attribute("data-key"), control.evaluate("e => e.type")

        def value():
            return control.evaluate("e => e.type === 'checkbox' ? e.checked : e.value")  # noqa: B023

        before = value()
        first = kind == "select-one" and control.evaluate("e => e.selectedIndex") == 0
        control.press({"checkbox": "Space", "range": "ArrowRight"}.get(kind, "ArrowDown" if first else "ArrowUp"))
        assert value() != before, key
        assert f"{key}=" in at(tab, "address").input_value(), key
        before = value()
        if kind == "select-one":
            control.select_option(index=0 if control.evaluate("e => e.selectedIndex") else 1)
        elif kind == "range":
            control.click(position={"x": 40 if key == "cycle" else 200, "y": 16})
        elif kind == "number":
            control.fill("12")
        else:
            control.click()
        assert value() != before, key
    at(tab, "preset").press("ArrowDown")
    at(tab, "preset").press("ArrowDown")
    assert at(tab, "question").inner_text() != LAB["own"]
    at(tab, "preset").select_option("")  # it has no end
    at(tab, "play").press("Enter")
    tab.wait_for_function("Number(document.querySelector('#lab-step').textContent) > 0")
    at(tab, "play").click()
    assert at(tab, "play").inner_text() == "Play"


@pytest.mark.parametrize("hand", ["mouse", "keyboard"])
def test_a_picture_is_chosen_and_a_pile_is_drawn(opened, hand):
    tab = opened(width=390)
    planes, box = at(tab, "planes"), at(tab, "planes").bounding_box()

    def use(x, y, keys):
        if hand == "mouse":
            planes.click(position={"x": x * box["width"], "y": y * box["height"]})
        else:
            for key in keys:
                planes.press(key)

    before = at(tab, "pixels").inner_text()
    use(0.1, 0.2, ["ArrowUp"] * 8 + ["ArrowLeft"])
    assert at(tab, "pixels").inner_text() != before
    at(tab, "pointer").select_option("B")
    use(0.8, 0.6, ["ArrowRight", "ArrowDown", "Enter"])
    link = at(tab, "address").input_value()
    assert re.search(r"B=[0-9a-z]{16}&", link)
    use(0.9, 0.3, ["ArrowUp", "Enter"])
    link = at(tab, "address").input_value()
    assert re.search(r"B=[0-9a-z]{32}&", link)
    at(tab, "one").click()
    once = fingerprint(tab)
    again = opened("#" + at(tab, "address").input_value().split("#")[1])
    wait_for_step(again, 1)
    assert fingerprint(again) == once
    at(tab, "given").click()
    assert "B=" not in at(tab, "address").input_value()


def test_slow_motion_tells_one_step_in_six_parts(opened):
    plain, slow = opened(), opened()
    for _ in range(2):
        at(plain, "one").click()
    at(slow, "one").click()
    at(slow, "slow").click()
    told = []
    for _ in range(6):
        at(slow, "one").click()
        told.append(at(slow, "words").inner_text())
    assert [text[:2] for text in told] == [f"{part}." for part in range(1, 7)] and "undefined" not in "".join(told)
    assert at(slow, "step").inner_text() == "2" and fingerprint(slow) == fingerprint(plain)
    for _ in range(3):
        at(slow, "one").click()
    slow.locator("[data-key=norm]").check()  # after this step
    slow.locator("[data-key=norm]").uncheck()
    for _ in range(2):
        at(slow, "one").click()
    at(plain, "one").click()
    at(slow, "slow").click()  # in the middle of a step, which is finished
    at(plain, "one").click()
    assert at(slow, "step").inner_text() == "4" and fingerprint(slow) == fingerprint(plain)


def test_it_works_in_a_notebooks_frame(opened, tmp_path):
    (tmp_path / "cell.html").write_text(f"<!DOCTYPE html>{page.page_part('lab').data}", encoding="utf-8")
    tab = opened(url=(tmp_path / "cell.html").as_uri())
    frame = tab.frame_locator("iframe")
    frame.locator("#lab-one").click()
    assert frame.locator("#lab-step").inner_text() == "1"
    frame.locator("#lab-copy").click()
    assert frame.locator("#lab-address").input_value().startswith("#lab?")


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(opened, width, scheme):
    tab = opened("#lab?experiment=norm&stop=20", width, scheme)
    wait_for_step(tab, 20)
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert all(label.is_visible() for label in tab.locator("#lab label").all())


def test_without_webassembly_the_run_is_the_same(browser, address):
    prints = []
    for script in ("", "delete window.WebAssembly"):
        tab = browser.new_page()
        tab.add_init_script(script)
        tab.goto(address + "#lab?stop=30")
        wait_for_step(tab, 30)
        prints.append(fingerprint(tab))
        tab.close()
    assert prints[0] == prints[1]
