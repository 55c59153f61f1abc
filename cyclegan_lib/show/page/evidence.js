// Part 3: every run of the experiments as a dot, and the surgery's curves. All numbers come from the tables.
"use strict";
cyclegan.parts.evidence = function (section, data) {
  const {svg, words, line, dashed, scale, signed} = cyclegan, {named, part} = cyclegan.finder(section);
  const unique = values => [...new Set(values)], there = unique(data.rows.map(row => row.experiment));
  const experiments = unique([...Object.keys(data.experiments), ...there]).filter(name => there.includes(name));
  const nameFloor = (x, y, value, anchor) => words(x, y, `floor ${value.toFixed(3)}`, anchor);

  function colourOf(arm) {
    if (/^instance(?!_)|it stays/.test(arm)) return "var(--instance)";
    return /^none|taken out/.test(arm) ? "var(--none)" : "var(--soft)";
  }

  function drawDots() {
    const {column, name, floor} = data.scores[named("score").selectedIndex], step = 46, seed = named("seed").value;
    const rows = data.rows.filter(row => row.experiment === experiments[named("experiment").selectedIndex]);
    const isChosen = row => seed === "all" || Number(seed) === row.seed;
    const floorAt = floor ? rows[0][floor] : 0;
    const right = cyclegan.widthOf(part("dots")) - 14, most = Math.max(...rows.map(row => row[column]), floorAt) * 1.05;
    const place = scale(0, most, 6, right), arms = unique(rows.map(row => row.arm)), bottom = arms.length * step + 34;
    const shapes = [words(6, bottom + 18, "0", "start", "tick"), words(6, bottom + 36, name),
      words(right, bottom + 18, most.toFixed(2), "end", "tick")];
    if (floor) shapes.push(dashed(`M${place(floorAt)} 18V${bottom}`), nameFloor(place(floorAt), 13, floorAt, "middle"));
    const says = arms.map((arm, i) => {
      const y = 50 + i * step, own = rows.filter(row => row.arm === arm);
      const values = own.filter(isChosen).map(row => row[column]);
      const [low, high] = [Math.min(...values), Math.max(...values)].map(value => value.toFixed(3));
      const dots = own.map(row => svg("circle", {
        cx: place(row[column]), cy: y + (row.seed % 3 - 1) * 5, fill: colourOf(arm),
        r: isChosen(row) ? 7 : 4, opacity: isChosen(row) ? 0.85 : 0.25,
      }, svg("title", {}, `seed ${row.seed}: ${row[column].toFixed(3)}`)));
      shapes.push(words(6, y - 16, data.arms[arm] || arm), line(`M6 ${y}H${right}`, "var(--line)"), ...dots);
      return `${data.arms[arm] || arm}: ${!values.length ? "no such seed" : low === high ? low : low + " to " + high}`;
    });
    cyclegan.show(part("dots"), bottom + 40, shapes);
    part("dots-say").textContent = says.join("; ") + ".";
  }

  /** The surgery: steps after the cut across, cycle_A up. The slider moves along the recorded steps. */
  function drawCurves() {
    const {curves, cut} = data, right = cyclegan.widthOf(part("curves")) - 12, floor = data.rows[0].floor_A;
    const steps = curves[0].points.map(([step]) => step).filter(step => step >= cut), now = steps[named("step").value];
    const first = cut - 200, x = scale(first, steps[steps.length - 1], 40, right), y = scale(0, 0.45, 280, 20);
    // Until the cut both runs are one, with the layer.
    const isShown = (run, step) => step >= (run.arm === "it stays" ? first : cut);
    const place = ([step, value]) => `${x(step).toFixed(1)} ${y(value).toFixed(1)}`;
    const pathOf = run => "M" + run.points.filter(([step]) => isShown(run, step)).map(place).join("L");
    const valueOf = run => run.points.find(([step]) => step === now)[1];
    const range = arm => curves.filter(run => run.arm === arm).map(run => valueOf(run).toFixed(3)).join(", ");
    cyclegan.show(part("curves"), 324, [
      ...[-200, 0, 100, 200, 300, 400, 500].map(step => words(x(cut + step), 298, signed(step, 0), "middle", "tick")),
      ...[0, 0.1, 0.2, 0.3, 0.4].map(value => words(0, y(value) + 5, value.toFixed(1), "start", "tick")),
      ...curves.map(run => line(pathOf(run), colourOf(run.arm), 2)),
      ...curves.map(run => svg("circle", {cx: x(now), cy: y(valueOf(run)), r: 6, fill: colourOf(run.arm)})),
      dashed(`M40 ${y(floor)}H${right}`), nameFloor(right, y(floor) + 18, floor, "end"),
      line(`M${x(cut)} 20V280`, "var(--soft)"), words(x(cut), 14, "the cut", "middle"),
      words(40, 320, "steps after the cut; up: cycle loss of A")]);
    part("step").textContent = now - cut;
    part("curves-say").textContent = `The layer taken out, green: ${range("taken out")}. ` +
      `It stays, orange: ${range("it stays")}.`;
    named("step").max = steps.length - 1;
  }

  named("experiment").append(...experiments.map(name => new Option(data.experiments[name] || name)));
  named("score").append(...data.scores.map(({name}) => new Option(name)));
  const seeds = unique(data.rows.map(row => row.seed)).sort();
  named("seed").append(new Option("all"), ...seeds.map(seed => new Option(seed)));
  for (const name of ["experiment", "score", "seed"]) named(name).addEventListener("input", drawDots);
  named("step").addEventListener("input", drawCurves);
  new ResizeObserver(() => { drawDots(); drawCurves(); }).observe(section);
};
