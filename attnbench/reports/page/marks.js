"use strict";
// Markers: one shape and colour for each mechanism, the same as in the printed figures.
(() => {
  const round = (value) => Math.round(value * 100) / 100;
  const closed = (points) => `M${points.map((point) => point.map(round).join(",")).join("L")}Z`;
  function ring(count, radius, turn, inner) {
    const points = [];
    const steps = inner ? 2 * count : count;
    for (let i = 0; i < steps; i++) {
      const angle = turn + (2 * Math.PI * i) / steps;
      const far = inner && i % 2 ? inner : radius;
      points.push([far * Math.sin(angle), -far * Math.cos(angle)]);
    }
    return closed(points);
  }
  function cross(radius, thick, turn) {
    const t = thick * radius;
    const arms = [[-t, -radius], [t, -radius], [t, -t], [radius, -t], [radius, t], [t, t], [t, radius], [-t, radius],
      [-t, t], [-radius, t], [-radius, -t], [-t, -t]];
    const [c, s] = [Math.cos(turn), Math.sin(turn)];
    return closed(arms.map(([x, y]) => [c * x - s * y, s * x + c * y]));
  }
  const SHAPES = {
    o: (r) => `M${-r},0A${r},${r} 0 1 0 ${r},0A${r},${r} 0 1 0 ${-r},0Z`,
    s: (r) => ring(4, 1.25 * r, Math.PI / 4),
    D: (r) => ring(4, 1.25 * r, 0),
    "^": (r) => ring(3, 1.3 * r, 0),
    v: (r) => ring(3, 1.3 * r, Math.PI),
    "<": (r) => ring(3, 1.3 * r, -Math.PI / 2),
    ">": (r) => ring(3, 1.3 * r, Math.PI / 2),
    p: (r) => ring(5, 1.2 * r, 0),
    h: (r) => ring(6, 1.15 * r, 0),
    "*": (r) => ring(5, 1.45 * r, 0, 0.6 * r),
    P: (r) => cross(1.1 * r, 0.38, 0),
    X: (r) => cross(1.15 * r, 0.38, Math.PI / 4),
  };
  const NONE = { color: "#777777", marker: "o" };
  page.look = (group) => page.groups.get(group) || NONE;
  page.shape = (group, radius) => (SHAPES[page.look(group).marker] || SHAPES.o)(radius);

  // A marker in the middle of (0, 0); hollow where a measurement is in doubt.
  page.marker = (group, radius, given) => {
    const { color } = page.look(group);
    const { hollow, ...rest } = given || {};
    const fill = hollow ? "var(--paper)" : color;
    return page.svg("path", { d: page.shape(group, radius), class: "marker", look: { fill, "--hue": color }, ...rest });
  };
  page.swatch = (group) =>
    page.svg("svg", { class: "swatch", viewBox: "-8 -8 16 16", width: 14, height: 14, "aria-hidden": "true" },
      page.marker(group, 5.2));

  // A button that picks a mechanism everywhere.
  page.chip = (group, words) =>
    page.el("button", {
      type: "button", class: "chip", "data-group": group, "aria-pressed": page.picked.has(group),
      title: `Highlight ${group} everywhere`, onclick: () => page.pick(group),
    }, page.swatch(group), page.el("span", {}, words ?? group));
})();
