// What the Lab draws: a plane for each domain, and the losses.
"use strict";
cyclegan.labPlanes = (function () {
  const {tanh} = cyclegan.labEngine, EDGE = 1.05, HEAT = 24, TOP = 24, HIGHEST = 0.6, RIM = Math.sqrt(3);
  const heat = Object.assign(document.createElement("canvas"), {width: HEAT, height: HEAT});

  /** A place on the disc where all pictures lie behind the norm: tanh(z), z with mean 0 and a mean square below 1. */
  function onDisc(radius, angle) {
    const u = radius * Math.cos(angle) / Math.SQRT2, v = radius * Math.sin(angle) / Math.sqrt(6);
    return [u + v, v - u, -2 * v].map(tanh);
  }
  const disc = Array.from({length: 1600}, (_, i) => onDisc(RIM * (1 + i % 20) / 20, i * Math.PI / 800));
  /** The mean |difference| of two pictures. */
  const difference = (x, y) => (Math.abs(x[0] - y[0]) + Math.abs(x[1] - y[1]) + Math.abs(x[2] - y[2])) / 3;

  /** The floor of a pile: the mean of how far its pictures are from the disc. */
  function floorOf(pile) {
    const nearest = pile.map(picture => {
      let least = Math.min(...disc.map(place => difference(place, picture)));
      // Nearest is often a place that has two of the pixels exactly.
      const z = picture.map(Math.atanh);
      for (const k of [0, 1, 2]) {
        const [i, j] = [(k + 1) % 3, (k + 2) % 3], left = -z[i] - z[j];
        if (z[i] ** 2 + z[j] ** 2 + left ** 2 < 3) least = Math.min(least, Math.abs(tanh(left) - picture[k]) / 3);
      }
      return least;
    });
    return nearest.reduce((sum, distance) => sum + distance, 0) / pile.length;
  }

  /** A canvas as large as it is shown, cleared: {context, w, h, colour}; colour(name) is a colour of page.css. */
  function prepare(canvas) {
    const ratio = window.devicePixelRatio || 1, context = canvas.getContext("2d"), style = getComputedStyle(canvas);
    const w = canvas.clientWidth, h = canvas.clientHeight, size = [Math.round(w * ratio), Math.round(h * ratio)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, w, h);
    context.font = "14px system-ui, sans-serif";
    return {context, w, h, colour: name => style.getPropertyValue("--" + name).trim()};
  }

  /** Where the planes are: [left edge of A, left edge of B, side]. */
  function layout(canvas) {
    const side = Math.min((canvas.clientWidth - 12) / 2, canvas.clientHeight - TOP), middle = canvas.clientWidth / 2;
    return [middle - 6 - side, middle + 6, side];
  }
  function spot(canvas, domain, [liquid, wall]) {
    const [left, right, side] = layout(canvas);
    return [(domain === "A" ? left : right) + side * (0.5 + liquid / 2 / EDGE), TOP + side * (0.5 - wall / 2 / EDGE)];
  }
  /** The other way: a place on the canvas -> [domain, liquid, wall]. */
  function pictureAt(canvas, x, y) {
    const [left, right, side] = layout(canvas), domain = x < right - 6 ? "A" : "B";
    return [domain, (2 * (x - (domain === "A" ? left : right)) / side - 1) * EDGE, (1 - 2 * (y - TOP) / side) * EDGE];
  }

  function write(context, colour, text, x, y, align = "left") {
    Object.assign(context, {fillStyle: colour, textAlign: align});
    context.fillText(text, x, y);
  }
  function stroke(context, colour, width, points, close) {
    Object.assign(context, {strokeStyle: colour, lineWidth: width});
    context.beginPath();
    points.forEach(([x, y]) => context.lineTo(x, y));
    if (close) context.closePath();
    context.stroke();
  }
  /** An arrow that bends to its right, so that the ways there and back do not cover each other. */
  function arrow(context, colour, [x0, y0], [x1, y1], bend = 0.12) {
    const points = [], dx = x1 - x0, dy = y1 - y0;
    for (let t = 0; t <= 1; t += 0.1) {
      points.push([x0 + t * dx - 4 * bend * t * (1 - t) * dy, y0 + t * dy + 4 * bend * t * (1 - t) * dx]);
    }
    const angle = Math.atan2(dy, dx) - 4 * bend;
    const head = turn => [x1 + 11 * Math.cos(angle + turn), y1 + 11 * Math.sin(angle + turn)];
    stroke(context, colour, 2.5, points);
    stroke(context, colour, 2.5, [head(2.7), [x1, y1], head(-2.7)]);
  }
  function dot(context, [x, y], shape, colour, table, size) {
    Object.assign(context, {strokeStyle: colour, lineWidth: 1.5});
    context.fillStyle = `rgb(${Array(3).fill(Math.round(127.5 * (table + 1)))})`;
    context.beginPath();
    if (shape === "real") context.arc(x, y, size, 0, 7);
    else if (shape === "fake") context.rect(x - size, y - size, 2 * size, 2 * size);
    else [-size, size].forEach(s => { context.moveTo(x - size, y - s); context.lineTo(x + size, y + s); });
    if (shape !== "rec") context.fill();
    context.stroke();
  }

  /** view: {scores {A, B}: HEAT x HEAT numbers, norm, dots: [[domain, picture, shape, begin]], path, pushes, brush}. */
  function drawPlanes(canvas, view) {
    const {context, w, colour} = prepare(canvas), [left, right, side] = layout(canvas);
    const size = w < 500 ? 2.5 : 3.5;
    for (const [domain, x, name] of [["A", left, "A: water"], ["B", right, "B: wine"]]) {
      const image = new ImageData(HEAT, HEAT), tint = parseInt(colour("D").slice(1), 16);
      view.scores[domain].forEach((score, i) => {
        image.data.set([tint >> 16, tint >> 8 & 255, tint & 255, 110 * Math.max(0, Math.min(1, score))], 4 * i);
      });
      heat.getContext("2d").putImageData(image, 0, 0);
      context.fillStyle = colour("panel");
      context.fillRect(x, TOP, side, side);
      context.drawImage(heat, x, TOP, side, side);
      write(context, colour("ink"), name, x, 15);
      write(context, colour("soft"), "liquid →", x + side - 4, TOP + side - 6, "right");
      write(context, colour("soft"), "↑ wall", x + 4, TOP + 16);
      if (view.norm) {
        const rim = Array.from({length: 72}, (_, i) => spot(canvas, domain, onDisc(RIM, i * Math.PI / 36)));
        stroke(context, colour("paper"), 6, rim, true);
        stroke(context, colour("instance"), 4, rim, true);
      }
    }
    for (const [domain, picture, shape, begin, large] of view.dots) {
      dot(context, spot(canvas, domain, picture), shape, colour(begin), picture[2], large ? 2 * size : size);
    }
    view.path.slice(1).forEach(([domain, picture], i) => {
      arrow(context, colour("ink"), spot(canvas, ...view.path[i]), spot(canvas, domain, picture));
    });
    for (const [domain, picture, push, name] of view.pushes) {
      const end = picture.map((value, p) => value + push[p]);
      arrow(context, colour(name), spot(canvas, domain, picture), spot(canvas, domain, end), 0);
    }
    if (view.brush) {
      const [x, y] = spot(canvas, view.brush[0], view.brush.slice(1));
      stroke(context, colour("ink"), 2, [[x - 9, y], [x + 9, y]]);
      stroke(context, colour("ink"), 2, [[x, y - 9], [x, y + 9]]);
    }
  }

  /** history: the losses of each step, by name. */
  function drawCurves(canvas, history, floors, norm) {
    const {context, w, h, colour} = prepare(canvas), left = 34, bottom = h - 20;
    const last = Math.max(2000, history.length), width = Math.ceil(last / 400);  // so many steps are a point
    const x = step => left + (w - left - 4) * step / last;
    const y = value => bottom - (bottom - 8) * Math.min(1, value / HIGHEST);
    for (const value of [0, 0.2, 0.4, 0.6]) {
      write(context, colour("soft"), value.toFixed(1), 4, y(value) + 5);
      stroke(context, colour("line"), 1, [[left, y(value)], [w, y(value)]]);
    }
    write(context, colour("soft"), "step " + last, w - 4, h - 3, "right");
    for (const [name, ink] of [["loss_D", "D"], ["cycle_B", "B"], ["cycle_A", "A"]]) {
      const points = [];
      for (let step = 0; step < history.length; step += width) {
        const some = history.slice(step, step + width), sum = some.reduce((so, losses) => so + losses[name], 0);
        points.push([x(step + some.length / 2), y(sum / some.length)]);
      }
      stroke(context, colour(ink), 2, points);
    }
    for (const domain of ["A", "B"]) {
      const height = y(floors[domain]), words = `floor of ${domain}: ${floors[domain].toFixed(2)}`;
      context.setLineDash([6, 4]);
      context.globalAlpha = norm ? 1 : 0.5;  // without the norm it is no limit
      stroke(context, colour("floor"), 1.5, [[left, height], [w, height]]);
      context.setLineDash([]);
      context.globalAlpha = 1;
      context.font = "12px system-ui, sans-serif";
      Object.assign(context, {strokeStyle: colour("paper"), lineWidth: 4, textAlign: "right"});
      context.strokeText(words, w - 4, height + 13);
      write(context, colour("floor"), words, w - 4, height + 13, "right");
    }
  }

  return {drawPlanes, drawCurves, pictureAt, floorOf, difference, HEAT, EDGE};
})();
