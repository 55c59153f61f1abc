// Part 1: one channel of a picture on its way through the last steps of a generator.
"use strict";
cyclegan.parts.mechanism = function (section) {
  const {LARGEST_MEAN, of: floorOf} = cyclegan.floor, {average, words, line, scale, signed} = cyclegan;
  const {named, part} = cyclegan.finder(section), size = 64, plane = size * size;
  const mean = named("mean"), channel = named("channel"), lines = part("lines");
  let original = cyclegan.scene.render(cyclegan.scene.arrange({brightness: 0.98, tint: 0.2}), size), wanted = original;

  const channelOf = (picture, c) => picture.subarray(c * plane, (c + 1) * plane);
  // The ends of the range would be infinite before the tanh.
  const beforeTanh = values => values.map(value => Math.atanh(Math.min(Math.max(value, -0.999), 0.999)));

  /** The picture, brighter or darker, so that a channel has this mean. It is shifted before the tanh. */
  function withMean(picture, c, target) {
    const before = beforeTanh(picture), shift = (values, amount) => values.map(value => Math.tanh(value + amount));
    let amount = 0;
    for (let step = 2; step > 1e-6; step /= 2) {
      amount += average(shift(channelOf(before, c), amount)) < target ? step : -step;
    }
    return shift(before, amount);
  }

  function normalised(values) {
    const m = average(values), variance = average(values.map(value => (value - m) ** 2));
    return values.map(value => (value - m) / Math.sqrt(variance + 1e-5));
  }

  /** A histogram on a number line from -limit to limit, and its mean. */
  function numberLine(y, limit, values, colour, title) {
    const bins = 60, counts = new Array(bins).fill(0), width = cyclegan.widthOf(lines), base = y + 92;
    const place = scale(-limit, limit, 10, width - 10);
    for (const value of values) counts[Math.min(Math.max(Math.floor((value / limit + 1) / 2 * bins), 0), bins - 1)]++;
    const tallest = Math.max(...counts), at = place(average(values)), bar = (width - 20) / bins;
    // A square root, so that a few far away are seen as well.
    const heights = counts.map(count => 64 * Math.sqrt(count / tallest));
    const bars = heights.map((height, i) => `M${10 + i * bar} ${base}v${-height}h${bar}v${height}`).join("");
    const tick = share => words(place(share * limit), y + 108, signed(share * limit, 1), "middle", "tick");
    return [words(10, y + 16, title), cyclegan.svg("path", {d: bars, fill: colour, opacity: 0.55}),
      line(`M10 ${base}H${width - 10}`, "var(--ink)"), line(`M${at} ${y + 24}v72`, colour, 3),
      ...[-0.8, -0.4, 0, 0.4, 0.8].map(tick)];
  }

  /** On the last line: what a mean can be, what it should be, and what is missing between them. */
  function missing(y, m) {
    const place = scale(-1, 1, 10, cyclegan.widthOf(lines) - 10), sign = Math.sign(m);
    const lack = Math.abs(m) - LARGEST_MEAN;
    const shapes = [line(`M${place(m)} ${y + 24}v72`, "var(--A)", 3),
      cyclegan.dashed(`M${place(-LARGEST_MEAN)} ${y + 92}V${y + 24}H${place(LARGEST_MEAN)}V${y + 92}`)];
    if (lack > 0) {
      shapes.push(line(`M${place(sign * LARGEST_MEAN)} ${y + 120}v8H${place(m)}v-8`, "var(--floor)", 2),
        words(place(sign * (LARGEST_MEAN + lack / 2)), y + 146, `missing: ${lack.toFixed(2)}`, "middle"));
    }
    return shapes;
  }

  function redraw() {
    const c = channel.selectedIndex;
    wanted = withMean(original, c, Number(mean.value));
    const before = beforeTanh(wanted), after = before.slice();
    for (let i = 0; i < 3; i++) after.set(normalised(channelOf(before, i)), i * plane);
    const reached = after.map(Math.tanh);
    const [m, out] = [wanted, reached].map(picture => average(channelOf(picture, c)));
    cyclegan.draw(part("wanted"), wanted, size);
    cyclegan.draw(part("reached"), reached, size);
    cyclegan.show(lines, 412, [
      ...numberLine(0, 3, channelOf(before, c), "var(--A)", "What the network computes, before the layer"),
      ...numberLine(130, 3, channelOf(after, c), "var(--instance)", "After InstanceNorm: mean 0, deviation 1"),
      ...numberLine(260, 1, channelOf(reached, c), "var(--instance)", "After the tanh: the picture"),
      ...missing(260, m)]);
    const lack = Math.abs(m) - LARGEST_MEAN;
    part("mean").textContent = signed(m);
    part("says").textContent = `Blue line: the mean that is wanted, ${signed(m)}. Orange line: the mean ` +
      `that comes out, ${signed(out)}. Dashed: the means that can come out, at most ±${LARGEST_MEAN}. ` + (lack > 0
      ? `So no weights can avoid an error of ${Math.abs(m).toFixed(2)} \u2212 0.19 = ${lack.toFixed(2)}.`
      : "The wanted mean is inside: drag it further out.");
  }

  function showFloor() {
    const floors = [0, 1, 2].map(c => floorOf(channelOf(original, c)));
    part("floors").replaceChildren(...["red", "green", "blue"].map((name, c) => {
      const row = document.createElement("tr"), m = average(channelOf(original, c));
      const bound = Math.max(0, Math.abs(m) - LARGEST_MEAN).toFixed(3);
      for (const text of [name, signed(m), bound, floors[c].toFixed(3)]) row.insertCell().textContent = text;
      return row;
    }));
    part("floor").textContent = `${original.isPhotograph ? "Your picture" : "The drawn picture"}\u2019s floor: ` +
      `${average(floors).toFixed(3)}. With the layer, no CycleGAN brings it back with a smaller mean error.`;
  }

  function begin(picture) {
    wanted = original = picture;
    mean.value = average(channelOf(picture, channel.selectedIndex));
    redraw();
    showFloor();
  }

  channel.addEventListener("input", () => {
    mean.value = average(channelOf(wanted, channel.selectedIndex));
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
