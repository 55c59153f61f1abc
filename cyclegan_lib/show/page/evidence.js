// Part 3: every run of the experiments as a dot, and the surgery's curves. All numbers come from the tables.
"use strict";
cyclegan.parts.evidence = function (section, data) {
  const {svg} = cyclegan;
  const {named, part} = cyclegan.finder(section);
  const colourOf = arm => (/^instance(?!_)|it stays/.test(arm) ? "var(--instance)" : /^none|taken out/.test(arm) ? "var(--none)" : "var(--A)");
  const unique = values => [...new Set(values)], there = unique(data.rows.map(row => row.experiment));
  const experiments = unique([...Object.keys(data.experiments), ...there]).filter(name => there.includes(name));
  const experiment = () => experiments[named("experiment").selectedIndex];
  const score = () => data.scores[named("score").selectedIndex];

  function drawDots() {
    const {column, name, floor} = score(), rows = data.rows.filter(row => row.experiment === experiment());
    const arms = unique(rows.map(row => row.arm)), chart = part("dots"), width = chart.clientWidth || 640, step = 46;
    const most = Math.max(...rows.map(row => row[column]), floor ? rows[0][floor] : 0) * 1.05;
    const place = value => 6 + value / most * (width - 20), bottom = arms.length * step + 34, shapes = [];
    arms.forEach((arm, i) => {
      const y = 34 + i * step;
      shapes.push(svg("text", {x: 6, y}, data.arms[arm] || arm), svg("path", {d: `M6 ${y + 16}H${width - 14}`, stroke: "var(--line)"}));
      for (const row of rows.filter(row => row.arm === arm)) {
        const isChosen = named("seed").value === "all" || Number(named("seed").value) === row.seed;
        shapes.push(svg("circle", {cx: place(row[column]), cy: y + 16 + (row.seed % 3 - 1) * 5, r: isChosen ? 7 : 4, fill: colourOf(arm), opacity: isChosen ? 0.85 : 0.25},
          svg("title", {}, `seed ${row.seed}: ${row[column].toFixed(3)}`)));
      }
    });
    if (floor) shapes.push(...floorLine(place(rows[0][floor]), 18, bottom, rows[0][floor]));
    chart.setAttribute("viewBox", `0 0 ${width} ${bottom + 40}`);
    chart.replaceChildren(...shapes, svg("text", {x: 6, y: bottom + 18, class: "tick"}, "0"),
      svg("text", {x: width - 14, y: bottom + 18, "text-anchor": "end", class: "tick"}, most.toFixed(2)),
      svg("text", {x: 6, y: bottom + 36}, name));
    const chosen = rows.filter(row => named("seed").value === "all" || Number(named("seed").value) === row.seed);
    part("dots-say").textContent = arms.map(arm => {
      const values = chosen.filter(row => row.arm === arm).map(row => row[column]);
      if (!values.length) return "";
      const [low, high] = [Math.min(...values), Math.max(...values)].map(value => value.toFixed(3));
      return `${data.arms[arm] || arm}: ${low === high ? low : low + " to " + high}. `;
    }).join("");
  }

  function floorLine(x, top, bottom, value) {
    return [svg("path", {d: `M${x} ${top}V${bottom}`, stroke: "var(--floor)", "stroke-dasharray": "6 4", "stroke-width": 2}),
      svg("text", {x, y: top - 5, "text-anchor": "middle"}, `floor ${value.toFixed(3)}`)];
  }

  /** The surgery: steps after the cut across, cycle_A up. The slider moves along the recorded steps. */
  function drawCurves() {
    const runs = data.curves, chart = part("curves"), width = chart.clientWidth || 640, high = 280, left = 40, cut = data.cut, floor = data.rows[0].floor_A;
    const steps = runs[0].points.map(([step]) => step).filter(step => step >= cut), now = steps[named("step").value];
    const [first, last] = [cut - 200, steps[steps.length - 1]], most = 0.45;
    const x = step => left + (step - first) / (last - first) * (width - left - 12), y = value => 20 + (1 - value / most) * (high - 20);
    // Until the cut both runs are one; at the cut the loss is measured with the layer, and then without it.
    const pointsOf = run => [...runs.find(other => other.arm === "it stays" && other.seed === run.seed).points.filter(
      ([step]) => step <= cut), ...run.points.filter(([step]) => step >= cut)].filter(([step]) => step >= first);
    const shapes = runs.map(run => svg("path", {fill: "none", stroke: colourOf(run.arm), "stroke-width": 2,
      d: "M" + pointsOf(run).map(([step, value]) => `${x(step).toFixed(1)} ${y(Math.min(value, most)).toFixed(1)}`).join("L")}));
    const dots = runs.map(run => [run, run.points.find(([step]) => step === now)[1]]);
    shapes.push(...dots.map(([run, value]) => svg("circle", {cx: x(now), cy: y(value), r: 6, fill: colourOf(run.arm)})));
    shapes.push(svg("path", {d: `M${left} ${y(floor)}H${width - 12}`, stroke: "var(--floor)", "stroke-dasharray": "6 4", "stroke-width": 2}),
      svg("text", {x: width - 12, y: y(floor) + 18, "text-anchor": "end"}, `floor ${floor.toFixed(3)}`),
      svg("path", {d: `M${x(cut)} 20V${high}`, stroke: "var(--soft)"}), svg("text", {x: x(cut) + 4, y: 14, "text-anchor": "middle"}, "the cut"));
    const ticks = [-200, 0, 100, 200, 300, 400, 500].map(step => svg("text", {x: x(cut + step), y: high + 18, "text-anchor": "middle", class: "tick"},
      String(step).replace("-", "\u2212")));
    ticks.push(...[0, 0.1, 0.2, 0.3, 0.4].map(value => svg("text", {x: 0, y: y(value) + 5, class: "tick"}, value.toFixed(1))));
    chart.setAttribute("viewBox", `0 0 ${width} ${high + 44}`);
    chart.replaceChildren(...ticks, ...shapes, svg("text", {x: left, y: high + 40}, "steps after the cut; up: cycle loss of A"));
    part("step").textContent = now - cut;
    const range = arm => dots.filter(([run]) => run.arm === arm).map(([, value]) => value.toFixed(3)).join(", ");
    part("curves-say").textContent = `The layer taken out: ${range("taken out")} (green). It stays: ${range("it stays")} (orange).`;
    named("step").max = steps.length - 1;
  }

  named("experiment").append(...experiments.map(name => new Option(data.experiments[name] || name)));
  named("score").append(...data.scores.map(({name}) => new Option(name)));
  named("seed").append(new Option("all"), ...unique(data.rows.map(row => row.seed)).sort().map(seed => new Option(seed)));
  for (const name of ["experiment", "score", "seed"]) named(name).addEventListener("input", drawDots);
  named("step").addEventListener("input", drawCurves);
  new ResizeObserver(() => { drawDots(); drawCurves(); }).observe(section);
};
