// The CycleGAN Lab: its controls, experiments, slow motion and answer key. lab.json, here `data`, holds its texts.
"use strict";
cyclegan.parts.lab = function (section, data) {
  const {makeEngine, makePile, seeded} = cyclegan.labEngine, draw = cyclegan.labPlanes, {HEAT, EDGE} = draw;
  const at = name => section.querySelector("#lab-" + name);
  const mean = (list, of) => list.reduce((sum, one) => sum + one[of], 0) / list.length;
  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const OTHER = {A: "B", B: "A"}, GENERATOR = {A: "G_AB", B: "G_BA"}, START_ONLY = ["seed", "batch", "follow", "large"];
  // A run: its settings at the start, the changes [step, key, value] made while it ran, drawn piles [[liquid, wall]].
  const run = {preset: null, start: {}, changes: [], drawn: {}};
  let engine, floors, history, next, part, told, stopAt, coming, drawingTime = 0, lastPart = 0;
  let playing = false, chosen = 5, brush = null;

  // Controls. What they show at first is the default.
  const controls = {};
  for (const control of section.querySelectorAll("[data-key]")) controls[control.dataset.key] = control;
  function read(key) {
    const {type, checked, value} = controls[key];
    return type === "checkbox" ? Number(checked) : value === "" || isNaN(value) ? value : Number(value);
  }
  /** Set a control. A link may hold anything: what the control cannot show is left out. Returns what it shows. */
  function write(key, value) {
    const control = controls[key];
    if (control.type === "checkbox") control.checked = Number(value);
    else if (control.type === "number") control.value = Math.min(9999, Math.max(0, Math.round(value) || 0));
    else if (!control.options || [...control.options].some(({value: own}) => own === `${value}`)) control.value = value;
    if (control.type === "range") control.parentNode.querySelector("var").textContent = control.value;
    return read(key);
  }
  const readAll = () => Object.fromEntries(Object.keys(controls).map(key => [key, read(key)])), DEFAULTS = readAll();

  /** Begin a run: an experiment of the list, or the reader's own {start, changes, drawn}; stop: at this step. */
  function begin(preset, own = {}, stop = preset ? preset.steps : Infinity) {
    const start = {...DEFAULTS, ...(preset && preset.settings), ...own.start};
    Object.assign(run, {changes: preset ? preset.changes : [], drawn: {}}, own, {preset, start: {}});
    for (const key in controls) run.start[key] = write(key, start[key]);
    const piles = {}, table = seeded(99);
    for (const domain of ["A", "B"]) {
      const drawn = run.drawn[domain] && run.drawn[domain].map(picture => [...picture, 0.7 * table() - 0.5]);
      piles[domain] = drawn || makePile(domain, run.start.seed, run.start.follow / 100);
    }
    engine = makeEngine({...run.start, piles}, cyclegan.wasm("lab"));
    floors = {A: draw.floorOf(piles.A), B: draw.floorOf(piles.B)};
    [history, next, part, told, stopAt] = [[], 0, 0, "", stop];
    play(false);
  }
  const beginOwn = (drawn = run.drawn) => begin(null, {start: readAll(), drawn});

  function changed(key) {
    const value = write(key, read(key));
    if (key === "seed" && run.preset) return begin(run.preset, {start: {seed: value}});
    if (!engine.step || START_ONLY.includes(key)) return beginOwn();
    while (part) nextPart();  // in slow motion: a change belongs between two steps
    Object.assign(run, {preset: null, changes: [...run.changes.slice(0, next++), [engine.step, key, value]]});
    engine.settings[key] = value;
    stopAt = Infinity;
    return show();
  }

  // Training
  function applyChanges() {
    for (; next < run.changes.length && run.changes[next][0] <= engine.step; next++) {
      engine.settings[run.changes[next][1]] = write(...run.changes[next].slice(1));
    }
  }
  function train() {
    applyChanges();
    engine.train();
    history.push({...engine.losses});
  }
  const isSlow = () => at("slow").getAttribute("aria-pressed") === "true";
  function play(on) {
    playing = on;
    cancelAnimationFrame(coming);
    if (on) coming = requestAnimationFrame(frame);
    show();
  }
  /** Some steps, then one drawing, which takes a third of the time at most, however slow it is. */
  function frame(now) {
    const end = performance.now() + Math.max(30, 2 * drawingTime), most = Number(at("speed").value) || Infinity;
    if (isSlow() && now - lastPart > 5000) nextPart(lastPart = now);
    for (let i = 0; !isSlow() && i < most && engine.step < stopAt && performance.now() < end; i++) train();
    play(isSlow() || engine.step < stopAt);
  }

  /** Slow motion: the calls of `engine.train`, in six parts, each with its words. */
  function nextPart() {
    if (part === 0) {
      applyChanges();
      engine.deal();
      engine.generatorGradients();
    }
    if (part === 4) engine.updateGenerators();
    if (part === 5) {
      engine.discriminatorGradients();
      engine.updateDiscriminators();
      history.push({...engine.losses});
    }
    const {real, rec, score} = engine.first_A, {batch, buffer} = engine.settings;
    const words = {batch, score: score.toFixed(2), step: engine.step, loss_D: (engine.losses.loss_D || 0).toFixed(3)};
    words.shown = buffer ? "new ones and, from the buffer, old ones" : "new ones";
    words.cycle = draw.difference(rec, real).toFixed(3);
    for (const name of ["real", "fake", "rec"]) words[name] = engine.first_A[name].map(x => x.toFixed(2)).join(", ");
    told = fill(data.parts[part], words);
    part = (part + 1) % 6;
  }

  // Showing
  const line = Array.from({length: HEAT}, (_, i) => EDGE * ((2 * i + 1) / HEAT - 1));
  const grid = line.flatMap(wall => line.map(liquid => [liquid, -wall]));  // from a plane's upper left corner
  function showPlanes() {
    const {piles, norm} = engine.settings, dots = [], scores = {}, pushes = [];
    for (const from of ["A", "B"]) {
      const real = piles[from].slice(0, 64), fakes = engine.translations(GENERATOR[from], real);
      const recs = engine.translations(GENERATOR[OTHER[from]], fakes), table = mean(piles[from], 2);
      scores[from] = engine.scores("D_" + from, grid.map(picture => [...picture, table]));
      for (const picture of real) dots.push([from, picture, "real", from]);
      for (const picture of fakes) dots.push([OTHER[from], picture, "fake", from]);
      for (const picture of recs) dots.push([from, picture, "rec", from]);
    }
    const real = piles.A[chosen % piles.A.length], [fake] = engine.translations("G_AB", [real]);
    const one = told ? engine.first_A : {real, fake, rec: engine.translations("G_BA", [fake])[0]};
    const path = [["A", one.real, "real"], ["B", one.fake, "fake"], ["A", one.rec, "rec"]];
    if (told) path.length = Math.min(3, part || 6);  // what slow motion has told of
    if (told && part === 5) {
      const longest = Math.max(Math.hypot(...one.fromD), Math.hypot(...one.fromCycle), 1e-12);
      for (const [push, colour] of [[one.fromD, "D"], [one.fromCycle, "A"]]) {
        pushes.push(["B", one.fake, push.map(x => -0.5 * x / longest), colour]);  // downhill
      }
    }
    for (const [domain, picture, shape] of path) dots.push([domain, picture, shape, "A", true]);
    draw.drawPlanes(at("planes"), {scores, norm, dots, path, pushes, brush});
    return path;
  }
  function show() {
    const began = performance.now(), path = showPlanes(), {preset} = run, {step} = engine;
    draw.drawCurves(at("curves"), history, floors, engine.settings.norm);
    drawingTime = performance.now() - began;
    const key = [...engine.answerKey("A"), ...engine.answerKey("B")].map(x => Math.round(100 * x) + "%");
    at("key").querySelectorAll("td").forEach((cell, i) => {
      cell.textContent = key[i];
      cell.style.setProperty("--share", key[i]);
    });
    at("pixels").querySelectorAll("i").forEach((pixel, i) => {
      const seen = path[Math.floor(i / 3)], value = seen ? seen[1][i % 3] : 0, grey = Math.round(127.5 * (value + 1));
      pixel.textContent = seen ? value.toFixed(2) : "?";
      pixel.style.cssText = `background: rgb(${grey},${grey},${grey}); color: ${grey > 127 ? "#000" : "#fff"}`;
    });
    at("step").textContent = step;
    at("play").textContent = playing ? "Pause" : "Play";
    if (playing && !isSlow()) return;  // what follows is read aloud, or takes time
    const last = history.slice(-100), [kept, inverted, lost, right] = key;
    const cycle_A = mean(last, "cycle_A").toFixed(3), loss_D = mean(last, "loss_D").toFixed(2);
    const seen = {step, kept, inverted, lost, right, cycle_A, loss_D, floor: floors.A.toFixed(2)};
    const yours = step ? fill(data.yours, seen) : "", isOver = preset && step >= preset.steps;
    const answer = isOver ? "<b>Answer.</b> " + preset.answer : preset ? fill(data.later, preset) : "";
    at("preset").value = preset ? preset.name : "";
    at("question").textContent = preset ? preset.question : data.own;
    const texts = [yours && "<b>Seen in this run.</b> " + yours, answer].filter(Boolean);
    at("answer").innerHTML = texts.map(text => `<p>${text}</p>`).join("");
    at("words").innerHTML = told || data.slow;
    at("words").hidden = !isSlow();
    at("one").textContent = isSlow() ? "Next part" : "One step";
    at("print").textContent = engine.fingerprint();
    const link = at("address").value = address();
    try { if (step) window.history.replaceState(null, "", link); } catch (error) { /* in a notebook's frame */ }
    at("planes").setAttribute("aria-label", "The planes of A and B. " + yours);
    at("curves").setAttribute("aria-label", "The losses, and the floors. " + yours);
  }

  // The address: all of a run, after #lab?
  const pack = pile => pile.flat().map(x => Math.round(100 * x + 100).toString(36).padStart(2, "0")).join("");
  const unpack = text => (text.match(/[0-9a-z]{4}/g) || []).slice(0, 256).map(four => [four.slice(0, 2), four.slice(2)]
    .map(two => Math.max(-98, Math.min(98, parseInt(two, 36) - 100)) / 100));
  function address() {
    const parameters = new URLSearchParams(run.preset ? {experiment: run.preset.name} : {});
    const usual = {...DEFAULTS, ...(run.preset && run.preset.settings)};
    for (const key in controls) if (run.start[key] !== usual[key]) parameters.set(key, run.start[key]);
    const changes = run.preset ? [] : run.changes.slice(0, next);
    if (changes.length) parameters.set("changes", changes.map(change => change.join("*")).join("_"));
    for (const domain in run.drawn) parameters.set(domain, pack(run.drawn[domain]));
    parameters.set("stop", engine.step);
    return (window.location.protocol === "about:" ? "" : window.location.href.split("#")[0]) + "#lab?" + parameters;
  }
  /** Begin what the address says, and train up to its step. */
  function follow() {
    const [name, text] = window.location.hash.slice(1).split("?");
    if (name !== "lab" || !text) return begin(data.presets[0]);
    const said = Object.fromEntries(new URLSearchParams(text)), own = {start: {}, drawn: {}};
    const preset = data.presets.find(one => one.name === said.experiment) || null;
    for (const key in controls) if (key in said) own.start[key] = said[key];
    for (const domain of ["A", "B"]) if (unpack(said[domain] || "").length) own.drawn[domain] = unpack(said[domain]);
    const changes = (said.changes || "").split("_").map(change => change.split("*"));
    if (!preset) own.changes = changes.filter(([, key]) => key in controls).map(([step, ...to]) => [+step || 0, ...to]);
    begin(preset, own, Math.min(50000, Number(said.stop) || 0));
    section.scrollIntoView();
    return play(stopAt > 0);
  }

  // What the reader does
  for (const {name, title} of data.presets) at("preset").add(new Option(title, name));
  const actions = {
    play() {
      const ends = run.preset ? run.preset.steps : 0;
      if (engine.step >= stopAt) stopAt = engine.step < ends ? ends : Infinity;
      play(!playing);
    },
    one() {
      if (isSlow()) nextPart();
      else train();
      play(false);
    },
    slow() {
      while (part) nextPart();  // a step is finished
      told = "";
      at("slow").setAttribute("aria-pressed", !isSlow());
      play(false);
    },
    again: () => (run.preset ? begin(run.preset, {start: {seed: run.start.seed}}) : beginOwn()),
    given: () => beginOwn({}),
    copy() {
      at("address").select();
      const old = () => document.execCommand("copy");  // for frames that may not use the clipboard
      if (navigator.clipboard) navigator.clipboard.writeText(at("address").value).catch(old);
      else old();
    },
  };
  for (const name in actions) at(name).addEventListener("click", actions[name]);
  for (const key in controls) controls[key].addEventListener("input", () => changed(key));
  at("preset").addEventListener("input", () => {
    const preset = data.presets.find(one => one.name === at("preset").value);
    return preset ? begin(preset) : beginOwn();
  });

  /** The pointer, or the brush that the arrow keys move, chooses a picture of A or draws a pile. ends: start again. */
  function touch(domain, place, draws, ends) {
    const pile = at("pointer").value;
    brush = [pile || domain, ...place.map(x => Math.min(0.9, Math.max(-0.9, x)))];
    const near = engine.settings.piles.A.slice(0, 64).map(x => Math.hypot(x[0] - brush[1], x[1] - brush[2]));
    if (!pile) chosen = near.indexOf(Math.min(...near));
    if (pile === domain && draws) {
      const old = run.drawn[pile] || [], spray = seeded(old.length);
      const points = [0, 1, 2, 3].map(() => brush.slice(1).map(x => Math.round(100 * x + 16 * spray() - 8) / 100));
      run.drawn = {...run.drawn, [pile]: [...old, ...points].slice(-256)};
      engine.settings.piles[pile] = run.drawn[pile].map(picture => [...picture, -0.15]);
    }
    return pile && ends ? beginOwn() : show();
  }
  const canvas = at("planes");
  for (const name of ["pointerdown", "pointermove", "pointerup"]) {
    canvas.addEventListener(name, event => {
      const [domain, ...place] = draw.pictureAt(canvas, event.offsetX, event.offsetY);
      if (name === "pointerdown") canvas.setPointerCapture(event.pointerId);
      if (name !== "pointermove" || event.buttons) touch(domain, place, name !== "pointerup", name === "pointerup");
    });
  }
  const MOVES = {ArrowLeft: [-0.05, 0], ArrowRight: [0.05, 0], ArrowUp: [0, 0.05], ArrowDown: [0, -0.05]};
  canvas.addEventListener("keydown", event => {
    const enter = event.key === "Enter", [dx, dy] = MOVES[event.key] || [0, 0], [domain, x, y] = brush || ["A", 0, 0];
    if (!dx && !dy && !enter) return;
    event.preventDefault();
    touch(at("pointer").value || domain, [x + dx, y + dy], enter, enter);
  });

  window.addEventListener("hashchange", () => window.location.hash.startsWith("#lab?") && follow());
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  follow();
  new ResizeObserver(show).observe(canvas);
};
