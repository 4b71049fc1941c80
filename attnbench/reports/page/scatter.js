"use strict";
// Quality against a cost: a point for each variant with intervals of both, and the front of them.
(() => {
  const MANY = 400; // points above which single seeds are not drawn

  page.scatter = (plot, setting) =>
    page.figure({ title: plot.title, note: plot.note, classes: "scatter" }, (svg, width) => {
      const { box, sx, sy } = page.field(svg, plot, width);
      for (const [name, level] of plot.levels) {
        svg.append(page.svg("line", { class: "level", x1: box.left, x2: box.right, y1: sy(level), y2: sy(level) }),
          page.svg("text", { class: "tick", x: box.right, y: sy(level) - 4, "text-anchor": "end" }, name));
      }
      if (plot.front.length > 1) {
        const path = plot.front.map(([x, y]) => `${sx(x).toFixed(1)},${sy(y).toFixed(1)}`).join("L");
        svg.append(page.svg("path", { class: "front", d: `M${path}` }));
      }
      const seeds = plot.placed.length <= MANY;
      return plot.placed.map((one) => point(svg, { ...setting.points[one.at], ...one, extra: one.hint }, sx, sy, seeds,
        setting.points[one.at].hint));
    });

  function point(svg, one, sx, sy, seeds, hint) {
    const { color } = page.look(one.group);
    const [mean, low, high] = one.y;
    const [middle, first, third] = one.x;
    const [x, y] = [sx(middle), sy(mean)];
    const made = page.svg("g", { class: "point", "data-group": one.group });
    for (const [, value] of seeds ? one.seeds : []) {
      made.append(page.svg("circle", { class: "seed faint", cx: x, cy: sy(value), r: 1.7, look: { fill: color } }));
    }
    const bar = (given) => page.svg("line", { class: "bar", look: { stroke: color }, ...given });
    if (low !== null) made.append(bar({ x1: x, x2: x, y1: sy.held(low), y2: sy.held(high) }));
    if (first !== null && first < third) made.append(bar({ y1: y, y2: y, x1: sx.held(first), x2: sx.held(third) }));
    made.append(page.marker(one.group, 4.6, { hollow: one.hollow, transform: `translate(${x},${y})` }));
    if (one.chance) made.append(page.svg("text", { class: "tick", x: x + 7, y: y - 6 }, one.chance));
    svg.append(made);
    return { x, y, group: one.group, title: one.variant, lines: [...hint, ...one.extra], cells: one.cells };
  }
})();
