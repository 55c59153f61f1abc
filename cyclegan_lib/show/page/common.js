// What the parts share. It also runs inside workers, where there is no document.
"use strict";
var cyclegan = (function () {
  const parts = {};  // {name: function (section, data)}: each part's script registers its own
  const SVG = "http://www.w3.org/2000/svg";

  /** Base64 text -> Uint8Array. */
  function bytes(text) {
    return Uint8Array.from(atob(text), character => character.charCodeAt(0));
  }

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

  /** Call `act` now and whenever one of the controls changes. */
  function onInput(controls, act) {
    for (const control of controls) control.addEventListener("input", act);
    act();
  }

  function start() {
    for (const section of document.querySelectorAll("main > section")) {
      if (parts[section.id]) {
        parts[section.id](section, JSON.parse(document.getElementById(section.id + "-data").textContent));
      }
    }
    fitFrame();
  }

  /** In a notebook the page is a frame: it becomes as high as what it holds. */
  function fitFrame() {
    let frame = null;
    try { frame = window.frameElement; } catch (error) { /* a frame of another origin keeps its height */ }
    if (frame && window.ResizeObserver) {
      new ResizeObserver(() => { frame.style.height = document.body.scrollHeight + 4 + "px"; }).observe(document.body);
    }
  }

  if (typeof document !== "undefined") document.addEventListener("DOMContentLoaded", start);
  return {parts, bytes, wasm, worker, svg, onInput};
})();
