// What the parts share. It also runs inside workers, where there is no document.
"use strict";
var cyclegan = (function () {
  const parts = {};  // {name: function (section, data)}: each part's script registers its own
  const SVG = "http://www.w3.org/2000/svg";

  /** Base64 text -> Uint8Array. */
  const bytes = text => Uint8Array.from(atob(text), character => character.charCodeAt(0));

  /** The bytes of NAME.wasm, or null where the page has none. */
  function wasm(name) {
    const element = document.getElementById(name + "-wasm");
    return element && bytes(element.textContent);
  }

  /** A worker that runs these scripts of the page, or null where the browser forbids it. */
  function worker(names) {
    try {
      const text = names.map(name => document.getElementById(name + "-script").textContent).join("\n");
      return new Worker(URL.createObjectURL(new Blob([text], {type: "text/javascript"})));
    } catch (error) {
      return null;
    }
  }

  /** An SVG element with these attributes; a child is an element or a text. */
  function svg(tag, attributes, ...children) {
    const element = document.createElementNS(SVG, tag);
    for (const name in attributes) element.setAttribute(name, attributes[name]);
    element.append(...children);
    return element;
  }

  /** What charts are made of: text, a line, the dashed line of a floor, a scale, and all of it put in place. */
  const words = (x, y, text, anchor = "start", kind = "") =>
    svg("text", {x, y, "text-anchor": anchor, class: kind}, text);
  const line = (d, stroke, width = 1) => svg("path", {d, stroke, "stroke-width": width, fill: "none"});
  const dashed = d => svg("path", {d, class: "floor"});
  const scale = (low, high, from, to) => value => from + (value - low) / (high - low) * (to - from);
  const signed = (value, digits = 2) => value.toFixed(digits).replace("-", "\u2212");

  function show(chart, height, shapes) {
    chart.setAttribute("viewBox", `0 0 ${widthOf(chart)} ${height}`);
    chart.replaceChildren(...shapes);
  }

  const widthOf = chart => chart.clientWidth || 640;

  /** How a part finds its controls, by their name, and the places that it fills, by what they show. */
  const finder = section => ({
    named: name => section.querySelector(`[name=${name}]`), part: name => section.querySelector(`[data-of=${name}]`),
  });

  const average = values => values.reduce((sum, value) => sum + value, 0) / values.length;

  /** Paint a picture (3 planes, or 1, of size × size, from -1 to 1) on a canvas. */
  function draw(canvas, picture, size) {
    const image = new ImageData(size, size), plane = size * size;
    for (let i = 0; i < plane; i++) {
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = (picture[(c * plane + i) % picture.length] + 1) * 127.5;
      image.data[4 * i + 3] = 255;
    }
    canvas.width = canvas.height = size;
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  /** Call `act(picture)` for a photograph chosen or dropped in any part; its middle square, 64 × 64. */
  function onPhotograph(section, act) {
    const input = section.querySelector("input[type=file]"), zone = input.closest(".drop");
    const announce = file => createImageBitmap(file).then(image => {
      const size = 64, side = Math.min(image.width, image.height), canvas = new OffscreenCanvas(size, size);
      const context = canvas.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(image, (image.width - side) / 2, (image.height - side) / 2, side, side, 0, 0, size, size);
      const pixels = context.getImageData(0, 0, size, size).data, picture = new Float32Array(3 * size * size);
      pixels.forEach((value, i) => { if (i % 4 < 3) picture[i % 4 * size * size + (i >> 2)] = value / 127.5 - 1; });
      document.dispatchEvent(new CustomEvent("photograph", {detail: picture}));
    }).catch(() => { zone.querySelector("output").textContent = "The browser cannot read this file as a picture."; });
    input.addEventListener("change", () => input.files[0] && announce(input.files[0]));
    zone.addEventListener("dragover", event => event.preventDefault());
    zone.addEventListener("drop", event => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) announce(event.dataTransfer.files[0]);
    });
    document.addEventListener("photograph", event => act(event.detail));
  }

  /** A question shows its answer only after one of its buttons was pressed. */
  function ask(question) {
    const buttons = question.querySelectorAll("button"), answer = question.querySelector(".answer");
    for (const button of buttons) {
      button.addEventListener("click", () => {
        for (const other of buttons) other.setAttribute("aria-pressed", other === button);
        answer.querySelector("b").textContent = "right" in button.dataset ? "Right." : "Not so.";
        answer.hidden = false;
      });
    }
  }

  function start() {
    document.querySelectorAll(".question").forEach(ask);
    for (const section of document.querySelectorAll("main > section")) {
      const part = parts[section.id], data = document.getElementById(section.id + "-data");
      if (part) part(section, JSON.parse(data.textContent));
    }
    fitFrame();
  }

  /** In a notebook the page is a frame: it becomes as high as what it holds. */
  function fitFrame() {
    const frame = window.frameElement;  // null, too, in a frame of another origin, which keeps its height
    if (frame && window.ResizeObserver) {
      new ResizeObserver(() => { frame.style.height = document.body.scrollHeight + 4 + "px"; }).observe(document.body);
    }
  }

  if (typeof document !== "undefined") document.addEventListener("DOMContentLoaded", start);
  return {
    parts, bytes, wasm, worker, finder, average, draw, onPhotograph,
    svg, words, line, dashed, scale, signed, show, widthOf,
  };
})();
