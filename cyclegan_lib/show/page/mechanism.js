// Part 1: one channel of a picture on its way through the last steps of a generator.
"use strict";
cyclegan.parts.mechanism = function (section) {
  const {LARGEST_MEAN, of: floorOf} = cyclegan.floor, {svg, average} = cyclegan, size = 64, plane = size * size;
  const {named, part} = cyclegan.finder(section);
  const mean = named("mean"), channel = named("channel"), lines = part("lines");
  const drawn = cyclegan.scene.arrange({brightness: 0.98, tint: 0.2});
  let original = cyclegan.scene.render(drawn, size), shown = original;

  const channelOf = (picture, c) => picture.subarray(c * plane, (c + 1) * plane);
  const signed = value => value.toFixed(2).replace("-", "\u2212");
  // The ends of the range would be infinite before the tanh.
  const beforeTanh = values => values.map(value => Math.atanh(Math.min(Math.max(value, -0.999), 0.999)));

  /** The picture, brighter or darker, so that a channel has the wanted mean. It is shifted before the tanh. */
  function withMean(picture, c, wanted) {
    const before = beforeTanh(picture), shifted = amount => before.map(value => Math.tanh(value + amount));
    let low = -4, high = 4;
    for (let i = 0; i < 24; i++) {
      const middle = (low + high) / 2;
      if (average(channelOf(before, c).map(value => Math.tanh(value + middle))) < wanted) low = middle;
      else high = middle;
    }
    return shifted(low);
  }

  function normalised(values) {
    const m = average(values), variance = average(values.map(value => (value - m) ** 2));
    return values.map(value => (value - m) / Math.sqrt(variance + 1e-5));
  }

  /** A histogram on a number line, and its mean. */
  function numberLine(y, width, limit, values, colour, title) {
    const margin = 10, place = value => margin + (value / limit + 1) / 2 * (width - 2 * margin), bins = 60, high = 64;
    const counts = new Array(bins).fill(0);
    for (const value of values) counts[Math.min(Math.max(Math.floor((value / limit + 1) / 2 * bins), 0), bins - 1)]++;
    const tallest = Math.max(...counts), bar = (width - 2 * margin) / bins, at = place(average(values));
    const bars = counts.map((count, i) => {
      const h = Math.sqrt(count / tallest) * high;  // a square root, so that a few far away are seen as well
      return `M${margin + i * bar} ${y + 92}v${-h}h${bar}v${h}z`;
    });
    const ticks = [-1, -0.5, 0, 0.5, 1].map(share => svg("text", {x: place(share * limit), y: y + 108,
      "text-anchor": share === -1 ? "start" : share === 1 ? "end" : "middle", class: "tick"}, signed(share * limit).replace(/\.?0+$/, "")));
    return svg("g", {}, svg("text", {x: margin, y: y + 16}, title), svg("path", {d: bars.join(""), fill: colour, opacity: 0.55}),
      svg("path", {d: `M${margin} ${y + 92}H${width - margin}`, stroke: "var(--ink)"}), ...ticks,
      svg("path", {d: `M${at} ${y + 24}v72`, stroke: colour, "stroke-width": 3}));
  }

  /** The last line again: what a mean can be, what it should be, and what is missing between them. */
  function missing(y, width, wanted) {
    const margin = 10, place = value => margin + (value + 1) / 2 * (width - 2 * margin), cap = Math.sign(wanted) * LARGEST_MEAN;
    const lack = Math.abs(wanted) - LARGEST_MEAN, [from, to] = [place(cap), place(wanted)].sort((a, b) => a - b);
    const parts = [svg("rect", {x: place(-LARGEST_MEAN), y: y + 24, width: place(LARGEST_MEAN) - place(-LARGEST_MEAN), height: 68,
      fill: "none", stroke: "var(--floor)", "stroke-dasharray": "5 4", "stroke-width": 1.5}),
    svg("path", {d: `M${place(wanted)} ${y + 24}v72`, stroke: "var(--A)", "stroke-width": 3})];
    if (lack > 0) {
      const isLeft = wanted < 0, label = `missing: ${lack.toFixed(2)}`;
      parts.push(svg("path", {d: `M${from} ${y + 122}v8H${to}v-8`, fill: "none", stroke: "var(--floor)", "stroke-width": 2}),
        svg("text", {x: (from + to) / 2, y: y + 148, "text-anchor": isLeft ? "start" : "end", dx: isLeft ? "-2em" : "2em"}, label));
    }
    return svg("g", {}, ...parts);
  }

  function redraw() {
    const c = channel.selectedIndex, wanted = withMean(original, c, Number(mean.value)), width = lines.clientWidth || 640;
    const before = beforeTanh(wanted), after = before.slice();
    shown = wanted;
    for (let i = 0; i < 3; i++) after.set(normalised(channelOf(before, i)), i * plane);
    const reached = after.map(Math.tanh), [m, out] = [wanted, reached].map(picture => average(channelOf(picture, c)));
    cyclegan.draw(part("wanted"), wanted, size);
    cyclegan.draw(part("reached"), reached, size);
    part("mean").textContent = signed(m);
    lines.setAttribute("viewBox", `0 0 ${width} 420`);
    lines.replaceChildren(
      numberLine(0, width, 3, channelOf(before, c), "var(--A)", "What the network computes, before the layer"),
      numberLine(130, width, 3, channelOf(after, c), "var(--instance)", "After InstanceNorm: mean 0, deviation 1"),
      numberLine(260, width, 1, channelOf(reached, c), "var(--instance)", "After the tanh: the picture"), missing(260, width, m));
    const lack = Math.abs(m) - LARGEST_MEAN;
    part("says").textContent = `Wanted mean ${signed(m)}, blue. It comes out as ${signed(out)}, and could be ` +
      `${signed(Math.sign(m) * LARGEST_MEAN)} at most (dashed). ` + (lack > 0
      ? `Error that nobody can avoid: ${Math.abs(m).toFixed(2)} \u2212 0.19 = ${lack.toFixed(2)}.`
      : "This mean is within reach: drag it further.");
  }

  function showFloor() {
    const rows = ["red", "green", "blue"].map((name, c) => {
      const values = channelOf(original, c), m = average(values);
      return {name, m, bound: Math.max(0, Math.abs(m) - LARGEST_MEAN), floor: floorOf(values)};
    });
    part("floors").replaceChildren(...rows.map(({name, m, bound, floor}) => {
      const row = document.createElement("tr");
      for (const text of [name, signed(m), bound.toFixed(3), floor.toFixed(3)]) row.insertCell().textContent = text;
      return row;
    }));
    const whole = average(rows.map(row => row.floor)).toFixed(3);
    part("floor").textContent = `${original.isPhotograph ? "Your picture" : "The drawn picture"}\u2019s floor: ${whole}. ` +
      "With the layer, no CycleGAN can bring it back from a cycle with a smaller mean error.";
  }

  function begin(picture) {
    original = picture;
    mean.value = average(channelOf(original, channel.selectedIndex));
    redraw();
    showFloor();
  }

  channel.addEventListener("input", () => {
    mean.value = average(channelOf(shown, channel.selectedIndex));
    redraw();
  });
  mean.addEventListener("input", redraw);
  lines.addEventListener("pointermove", event => {
    if (event.buttons) mean.value = (event.offsetX / lines.clientWidth) * 2 - 1, redraw();
  });
  new ResizeObserver(redraw).observe(lines);
  cyclegan.onPhotograph(section, picture => begin(Object.assign(picture, {isPhotograph: true})));
  begin(original);
};
