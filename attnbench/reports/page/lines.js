"use strict";
// Lines of variants: over places, epochs or tokens, with bands or bars, and crosses where memory was short.
(() => {
  const DASHES = ["", "7 3", "2 2.5", "8 3 2 3", "11 4"];

  page.lines = (plot) =>
    page.figure({ title: plot.title, note: plot.note, classes: "lines" }, (svg, width) => {
      const { box, sx, sy } = page.field(svg, plot, width);
      const seen = new Map();
      const made = plot.series.flatMap((one) => {
        if (!seen.has(one.group)) seen.set(one.group, []);
        const own = seen.get(one.group);
        if (!own.includes(one.variant)) own.push(one.variant);
        return series(svg, one, sx, sy, DASHES[own.indexOf(one.variant) % DASHES.length], box);
      });
      return made.concat((plot.rings || []).map((one) => crossing(svg, one, sx, sy)));
    });

  // Where a line falls below that of full attention.
  function crossing(svg, one, sx, sy) {
    const [x, y] = [sx(one.x), sy(one.y)];
    svg.append(page.svg("g", { class: "crossing", "data-group": one.group },
      page.svg("line", { x1: sx(one.low), x2: sx(one.high), y1: y, y2: y }),
      page.svg("circle", { cx: x, cy: y, r: 5 })));
    return { x, y, group: one.group, title: one.name, lines: [one.text], cells: [] };
  }

  function series(svg, one, sx, sy, dash, box) {
    const { color } = page.look(one.group);
    const made = page.svg("g", { class: "series", "data-group": one.group });
    svg.append(made);
    const there = one.x.map((_, i) => i).filter((i) => sx.inside(one.x[i]) && sy.inside(one.y[i]));
    if (one.low && !one.marked) made.append(band(one, there, sx, sy, color));
    const joined = one.path || there.map((i) => [one.x[i], one.y[i]]);
    if (joined.length > 1) {
      const path = joined.map(([x, y]) => `${sx(x).toFixed(1)},${sy(y).toFixed(1)}`).join("L");
      const given = { class: "line", d: `M${path}`, "stroke-dasharray": dash };
      made.append(page.svg("path", { ...given, look: { stroke: color } }));
    }
    const targets = there.map((i) => {
      const [x, y] = [sx(one.x[i]), sy(one.y[i])];
      if (one.marked) {
        if (one.low && one.low[i] !== null) {
          const bar = { class: "bar", x1: x, x2: x, y1: sy.held(one.low[i]), y2: sy.held(one.high[i]) };
          made.append(page.svg("line", { ...bar, look: { stroke: color } }));
        }
        made.append(page.marker(one.group, 4, { transform: `translate(${x},${y})` }));
      }
      const first = one.marked ? one.cells[i] : one.cells[0];
      const lines = [one.text[i], `at ${page.number(one.x[i])}`];
      return { x, y, group: one.group, title: one.name, lines, cells: one.marked ? [first] : one.cells, first };
    });
    for (const [value, cell] of one.lost || []) {
      const [x, y] = [sx(value), box.top + 8];
      made.append(page.svg("path", {
        class: "lost", d: "M-5,-5L5,5M-5,5L5,-5", transform: `translate(${x},${y})`, look: { stroke: color },
      }));
      const lines = ["out of memory", `at ${page.number(value)}`];
      targets.push({ x, y, group: one.group, title: one.name, lines, cells: [cell], first: cell });
    }
    return targets;
  }

  function band(one, there, sx, sy, color) {
    const known = there.filter((i) => one.low[i] !== null && one.high[i] !== null);
    const up = known.map((i) => `${sx(one.x[i]).toFixed(1)},${sy.held(one.high[i]).toFixed(1)}`);
    const down = known.map((i) => `${sx(one.x[i]).toFixed(1)},${sy.held(one.low[i]).toFixed(1)}`).reverse();
    const d = known.length ? `M${[...up, ...down].join("L")}Z` : "";
    return page.svg("path", { class: "area", d, look: { fill: color } });
  }
})();
