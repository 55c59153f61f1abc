// Part 2: networks that translate a picture there and back while a slider is dragged.
"use strict";
cyclegan.parts.live = function (section, data) {
  const {svg, average} = cyclegan, {LARGEST_MEAN} = cyclegan.floor, size = data.size, plane = size * size;
  const {named, part} = cyclegan.finder(section);
  const sides = data.sides.map(name => ({name, translator: cyclegan.engine.open(), loaded: new Set()}));
  const LIQUIDS = {A: "water", B: "wine"}, CHANNELS = ["red", "green", "blue"];
  let photograph = null, isBusy = false, isStale = false, timer = 0;

  const currentSet = () => data.sets[named("set").selectedIndex];
  const meansOf = picture => CHANNELS.map((_, c) => average(picture.subarray(c * plane, (c + 1) * plane)));

  /** Domain of the picture that goes in, "A" or "B". */
  const domain = () => named("direction").value[0];

  function input() {
    if (photograph) return photograph;
    if (data.pictures) return cyclegan.bytes(data.pictures[domain()][named("number").value]).reduce(
      (picture, byte, i) => { picture[i] = byte / 127.5 - 1; return picture; }, new Float32Array(3 * plane));
    const number = name => Number(named(name).value);
    return cyclegan.scene.render(cyclegan.scene.arrange({brightness: number("brightness"), tint: number("tint"),
      fill: number("fill"), glass: named("glass").value, light: number("light"), liquid: LIQUIDS[domain()]}), size);
  }

  /** There and back, by a side's networks of this moment; each is brought to its worker when it is first needed. */
  async function translate(side, index, picture) {
    const {file, norm} = currentSet().moments[named("moment").value].files[index], key = file + norm;
    if (!side.loaded.has(key)) {
      side.loaded.add(key);
      const unpacked = new Blob([cyclegan.bytes(data.files[file])]).stream().pipeThrough(new DecompressionStream("deflate"));
      await side.translator.ask({key, norm, bytes: new Uint8Array(await new Response(unpacked).arrayBuffer())});
    }
    const names = domain() === "A" ? ["G_AB", "G_BA"] : ["G_BA", "G_AB"];
    return side.translator.ask({key, names, picture, size});
  }

  /** Redraw as often as the networks can, always with the newest position of the controls. */
  async function redraw() {
    isStale = true;
    if (isBusy) return;
    isBusy = true;
    try {
      while (isStale) {
        isStale = false;
        const picture = input(), translated = await Promise.all(sides.map((side, i) => translate(side, i, picture)));
        show(picture, translated);
        section.dataset.redraws = Number(section.dataset.redraws || 0) + 1;
      }
    } catch (error) {
      giveUp(error);
    }
    isBusy = false;
  }

  /** Where the networks cannot run, drawn pictures say the same. */
  function giveUp(error) {
    part("networks").hidden = true;
    part("error").hidden = false;
    part("error").textContent = `The networks do not run in this browser (${error.message}). ` + (data.stillText || "");
    if (data.still) Object.assign(part("still"), {src: "data:image/png;base64," + data.still, alt: data.stillText || "Pictures drawn beforehand", hidden: false});
  }

  function show(picture, translated) {
    sides.forEach((side, i) => {
      const [there, back] = translated[i], loss = average(picture.map((value, k) => Math.abs(value - back[k])));
      [picture, there, back].forEach((shown, k) => cyclegan.draw(side.canvases[k], shown, size));
      side.note.textContent = `difference after the return: ${loss.toFixed(3)}`;
    });
    showMeans(picture, translated);
    const least = average(meansOf(picture).map(mean => Math.max(0, Math.abs(mean) - LARGEST_MEAN)));
    part("reads").textContent = `With the layer, the difference after the return of this picture is at least ${least.toFixed(3)}, ` +
      "whatever the weights: that much its means lie outside the band.";
  }

  /** For each channel a number line with the band that the layer allows, and the means of all pictures on it. */
  function showMeans(picture, translated) {
    const chart = part("means"), width = chart.clientWidth || 640, margin = 46, step = 20;
    const place = value => margin + (value + 1) / 2 * (width - margin - 14), rows = 1 + 2 * sides.length, high = rows * step + 14;
    const shapes = [];
    CHANNELS.forEach((name, c) => {
      const y = 4 + c * high;
      const row = (k, value, colour, isHollow) => svg("circle", {cx: place(value), cy: y + 10 + k * step, r: 6, stroke: colour,
        "stroke-width": 2.5, fill: isHollow ? "var(--paper)" : colour});
      shapes.push(svg("rect", {x: place(-LARGEST_MEAN), y, width: place(LARGEST_MEAN) - place(-LARGEST_MEAN),
        height: rows * step, fill: "var(--panel)", stroke: "var(--floor)", "stroke-dasharray": "5 4"}),
      svg("path", {d: `M${margin} ${y + rows * step}H${width - 14}`, stroke: "var(--line)"}),
      svg("text", {x: 0, y: y + rows * step / 2 + 5}, name), row(0, meansOf(picture)[c], "var(--A)"));
      sides.forEach((side, i) => translated[i].forEach((shown, k) => {
        shapes.push(row(1 + 2 * i + k, meansOf(shown)[c], `var(--${side.name})`, k === 1));
      }));
    });
    const bottom = 4 + 3 * high, ticks = [-1, -0.5, 0, 0.5, 1].map(value => svg("text",
      {x: place(value), y: bottom + 6, "text-anchor": "middle", class: "tick"}, String(value).replace("-", "\u2212")));
    chart.setAttribute("viewBox", `0 0 ${width} ${bottom + 14}`);
    chart.replaceChildren(...shapes, ...ticks);
  }

  /** One row of pictures for each side: the picture, there, back. */
  function buildRows() {
    const words = domain() === "A" ? ["picture", "G_AB: as wine", "G_BA: and back"] : ["picture", "G_BA: as water", "G_AB: and back"];
    part("networks").replaceChildren(...sides.map((side, i) => {
      const box = document.createElement("div"), title = document.createElement("h3"), row = document.createElement("div");
      box.style.setProperty("--arm", `var(--${side.name})`);
      title.textContent = currentSet().titles[i];
      row.className = "row";
      side.note = document.createElement("p");
      side.canvases = words.map(word => {
        const figure = document.createElement("figure"), canvas = document.createElement("canvas");
        canvas.className = "pixels";
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", `${title.textContent}: ${word}`);
        const caption = document.createElement("figcaption");
        caption.textContent = word;
        figure.append(canvas, caption);
        row.append(figure);
        return canvas;
      });
      box.append(title, row, side.note);
      return box;
    }));
  }

  function showControls() {
    for (const name of ["brightness", "tint", "fill"]) part(name).textContent = named(name).value;
    part("moment").textContent = currentSet().moments[named("moment").value].label;
    part("number").textContent = Number(named("number").value) + 1;
  }

  function changeSet() {
    const last = currentSet().moments.length - 1;
    Object.assign(named("moment"), {max: last, value: last});
    part("explains").textContent = currentSet().explains;
    buildRows();
    update();
  }

  function update() {
    showControls();
    redraw();
  }

  function play() {
    const isPlaying = Boolean(timer), moment = named("moment");
    clearInterval(timer);
    timer = 0;
    named("play").setAttribute("aria-pressed", !isPlaying);
    if (isPlaying) return;
    moment.value = 0;
    update();
    timer = setInterval(() => {
      moment.value = Number(moment.value) + 1;
      update();
      if (moment.value === moment.max) play();
    }, 1200);
  }

  function use(picture) {
    photograph = picture;
    for (const control of section.querySelectorAll("label.drawn, .kept")) {
      control.classList.toggle("faint", Boolean(picture));
    }
    redraw();
  }

  if (data.title) section.querySelector("h2").textContent = data.title;
  if (data.history) Object.assign(part("history"), {src: "data:image/png;base64," + data.history, hidden: false});
  if (data.reason) return giveUp(new Error(data.reason));
  named("set").append(...data.sets.map(set => new Option(set.name)));
  named("number").max = data.pictures ? data.pictures.A.length - 1 : 0;
  for (const control of section.querySelectorAll(data.pictures ? ".drawn" : ".kept")) control.hidden = true;
  named("set").addEventListener("input", changeSet);
  named("direction").addEventListener("input", buildRows);
  section.addEventListener("input", event => event.target.name !== "set" && event.target.name && update());
  named("play").addEventListener("click", play);
  named("back").addEventListener("click", () => use(null));
  cyclegan.onPhotograph(section, use);
  changeSet();
};
