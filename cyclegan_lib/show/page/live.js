// Part 2: networks that translate a picture there and back while a slider is dragged.
"use strict";
cyclegan.parts.live = function (section, data) {
  const {svg, average, words, line, scale, signed} = cyclegan, {LARGEST_MEAN} = cyclegan.floor;
  const {size} = data, plane = size * size;
  const {named, part} = cyclegan.finder(section), CHANNELS = ["red", "green", "blue"];
  const sides = data.sides.map(name => ({name, translator: cyclegan.engine.open(), loaded: new Set()}));
  let photograph = null, isBusy = false, isStale = false, timer = 0;

  const currentSet = () => data.sets[named("set").selectedIndex];
  const currentMoment = () => currentSet().moments[named("moment").value];
  const isFromA = () => named("direction").value === "AB";
  const meansOf = picture => CHANNELS.slice(0, picture.length / plane).map(
    (_, c) => average(picture.subarray(c * plane, (c + 1) * plane)));

  /** The picture that goes in: the reader's, a test picture, or the drawn glass. */
  function input() {
    if (photograph) return photograph;
    if (data.pictures) {
      const bytes = cyclegan.bytes(data.pictures[isFromA() ? "A" : "B"][named("number").value]);
      return Float32Array.from(bytes, byte => byte / 127.5 - 1);
    }
    const scene = {liquid: isFromA() ? "water" : "wine", glass: named("glass").value};
    for (const name of ["brightness", "tint", "fill", "light"]) scene[name] = Number(named(name).value);
    return cyclegan.scene.render(cyclegan.scene.arrange(scene), size);
  }

  /** There and back, by a side's networks of this moment; each is brought to its worker when it is first needed. */
  async function translate(side, index, picture) {
    const {file, norm} = currentMoment().files[index], key = file + norm;
    if (!side.loaded.has(key)) {
      side.loaded.add(key);
      const packed = new Blob([cyclegan.bytes(data.files[file])]).stream();
      const bytes = await new Response(packed.pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
      await side.translator.ask({key, norm, bytes: new Uint8Array(bytes)});
    }
    return side.translator.ask({key, names: isFromA() ? ["G_AB", "G_BA"] : ["G_BA", "G_AB"], picture, size});
  }

  /** Redraw as often as the networks can, always with the newest position of the controls. */
  async function redraw() {
    isStale = true;
    if (isBusy) return;
    isBusy = true;
    try {
      while (isStale) {
        isStale = false;
        const picture = input(), asked = sides.map((side, i) => translate(side, i, picture));
        const translated = await Promise.all(asked);
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
    part("error").textContent = `The networks do not run in this browser (${error.message}). ${data.stillText || ""}`;
    showDrawn("still", data.still);
  }

  function showDrawn(name, png) {
    part(name).hidden = !png;
    if (png) part(name).src = "data:image/png;base64," + png;
  }

  function show(picture, translated) {
    sides.forEach((side, i) => {
      const box = part("networks").children[i], [there, back] = translated[i];
      [picture, there, back].forEach((shown, k) => cyclegan.draw(box.querySelectorAll("canvas")[k], shown, size));
      const loss = average(picture.map((value, k) => Math.abs(value - back[k])));
      box.querySelector("p").textContent = `mean difference of the third from the first: ${loss.toFixed(3)}`;
    });
    showMeans(picture, translated);
    const least = average(meansOf(picture).map(mean => Math.max(0, Math.abs(mean) - LARGEST_MEAN)));
    part("reads").textContent = `The means of the first picture lie ${least.toFixed(3)} outside the boxes (mean of ` +
      "the channels). So with the layer it comes back with at least this difference, whatever the weights are.";
  }

  /** For each channel a number line with the band that the layer allows, and the means of all pictures on it. */
  function showMeans(picture, translated) {
    const right = cyclegan.widthOf(part("means")) - 14, place = scale(-1, 1, 46, right), step = 20;
    const own = isFromA() ? "A" : "B";
    const rows = [[meansOf(picture), `var(--${own})`, `var(--${own})`]];
    part("first").className = own;
    sides.forEach((side, i) => translated[i].forEach((shown, k) => {
      rows.push([meansOf(shown), `var(--${side.name})`, k ? "var(--paper)" : `var(--${side.name})`]);
    }));
    const high = rows.length * step, bottom = 4 + rows[0][0].length * (high + 14);
    const tick = value => words(place(value), bottom + 6, signed(value, 1), "middle", "tick");
    const shapes = [-1, -0.5, 0, 0.5, 1].map(tick);
    rows[0][0].forEach((_, c) => {
      const y = 4 + c * (high + 14), x = place(-LARGEST_MEAN);
      shapes.push(svg("rect", {x, y, width: place(LARGEST_MEAN) - x, height: high, class: "band"}),
        line(`M46 ${y + high}H${right}`, "var(--line)"), words(0, y + high / 2 + 5, CHANNELS[c]));
      rows.forEach(([means, stroke, fill], k) => shapes.push(
        svg("circle", {cx: place(means[c]), cy: y + 10 + k * step, r: 6, stroke, fill, "stroke-width": 2.5})));
    });
    cyclegan.show(part("means"), bottom + 14, shapes);
  }

  /** One row of pictures for each side: the picture, there, back. */
  function buildRows() {
    const first = photograph ? "your picture" : data.pictures ? "test picture" : isFromA() ? "water" : "wine";
    const captions = [first, ...(isFromA() ? ["by G_AB", "back by G_BA"] : ["by G_BA", "back by G_AB"])];
    const figures = captions.map(caption =>
      `<figure><canvas class=pixels role=img></canvas><figcaption>${caption}</figcaption></figure>`);
    part("networks").replaceChildren(...sides.map((side, i) => {
      const box = document.createElement("div"), title = currentSet().titles[i];
      box.style.setProperty("--arm", `var(--${side.name})`);
      box.innerHTML = `<h3></h3><div class=row>${figures.join("")}</div><p></p>`;
      box.querySelector("h3").textContent = title;
      const canvases = box.querySelectorAll("canvas");
      canvases.forEach((canvas, k) => canvas.setAttribute("aria-label", `${title}: ${captions[k]}`));
      return box;
    }));
  }

  function update() {
    for (const name of ["brightness", "tint", "fill"]) part(name).textContent = signed(Number(named(name).value));
    part("moment").textContent = currentMoment().label;
    part("number").textContent = Number(named("number").value) + 1;
    redraw();
  }

  function changeSet() {
    const last = currentSet().moments.length - 1;
    Object.assign(named("moment"), {max: last, value: last});
    part("explains").textContent = currentSet().explains;
    buildRows();
    update();
  }

  function play() {
    const moment = named("moment"), isPlaying = Boolean(timer);
    clearInterval(timer);
    timer = 0;
    named("play").setAttribute("aria-pressed", !isPlaying);
    named("play").textContent = isPlaying ? "Play from left to right" : "Stop";
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
    const given = section.querySelectorAll("label.drawn, .kept");
    for (const control of given) control.classList.toggle("faint", Boolean(picture));
    buildRows();
    redraw();
  }

  for (const other of section.querySelectorAll(data.pictures || data.reason ? ".drawn" : ".kept")) other.hidden = true;
  if (data.title) section.querySelector("h2").textContent = data.title;
  showDrawn("history", data.history);
  if (data.reason) return giveUp(new Error(data.reason));
  named("set").append(...data.sets.map(set => new Option(set.name)));
  named("number").max = data.pictures ? data.pictures.A.length - 1 : 0;
  section.addEventListener("input", ({target}) => {
    if (target.name === "set") return changeSet();
    if (target.name === "direction") buildRows();
    if (target.name) update();
  });
  named("play").addEventListener("click", play);
  named("back").addEventListener("click", () => use(null));
  const hasChoice = data.sets.length > 1 || data.sets[0].moments.length > 1;
  for (const name of ["set", "moment", "play"]) named(name).closest("label").hidden = !hasChoice;
  const takesPhotographs = size === 64 && data.channels === 3;
  section.querySelector(".drop").hidden = !takesPhotographs;
  if (takesPhotographs) cyclegan.onPhotograph(section, use);
  changeSet();
};
