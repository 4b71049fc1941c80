"use strict";
// Every variant on a line of its own: its seeds, its mean and interval, and what became of the others.
(() => {
  const [ROW, TWO, MOST] = [20, 36, 48]; // pixels of a line, of one below its name, and lines of a page

  page.strips = (plot, setting) => {
    let first = 0;
    const card = page.figure({ title: plot.title, note: plot.note, classes: "strips" }, (svg, width, extra, redraw) => {
      const kept = setting.points.map((point, place) => ({ point, place })).filter((one) => page.kept(one.point.group));
      if (first >= kept.length) first = 0;
      const shown = kept.slice(first, first + MOST);
      pager(extra, kept.length, () => first, (to) => { first = to; redraw(); });
      return drawn(svg, width, plot, shown.map((one) => one.point));
    });
    page.redrawn.add(card);
    return card;
  };

  // The width of a name as the browser sets it, and a name cut to a width.
  const brush = document.createElement("canvas").getContext("2d");
  function measured(text) {
    brush.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    return brush.measureText(text).width;
  }
  function shortened(text, most) {
    if (measured(text) <= most) return text;
    let letters = text.length;
    while (letters > 4 && measured(`${text.slice(0, letters)}…`) > most) letters--;
    return `${text.slice(0, letters)}…`;
  }

  function pager(extra, count, at, go) {
    if (count <= MOST) return page.show(extra);
    const [from, to] = [at() + 1, Math.min(count, at() + MOST)];
    return page.show(extra,
      page.el("button", { type: "button", disabled: from === 1, onclick: () => go(at() - MOST) }, "Earlier"),
      page.el("span", {}, `${from} to ${to} of ${count} variants, in the order of the table`),
      page.el("button", { type: "button", disabled: to === count, onclick: () => go(at() + MOST) }, "Later"));
  }

  function drawn(svg, width, plot, points) {
    const narrow = width < 560;
    const row = narrow ? TWO : ROW;
    const longest = Math.max(40, ...points.map((point) => measured(point.variant)));
    const left = narrow ? 10 : Math.min(30 + longest, 0.54 * width);
    const right = width - (narrow ? 40 : 52);
    const box = { left, right, top: 6, bottom: 10 + row * points.length };
    page.sized(svg, width, box.bottom + 44);
    const sx = page.scale(plot.x, box.left + 4, box.right - 4);
    page.axes(svg, box, plot.x, null, sx, null);
    for (const [name, level] of plot.levels) {
      svg.append(page.svg("line", { class: "level", x1: sx(level), x2: sx(level), y1: box.top, y2: box.bottom },
        page.svg("title", {}, `${name} ${level}`)));
    }
    return points.flatMap((point, i) => {
      const y = box.top + 4 + row * i + (narrow ? 27 : row / 2);
      if (i && points[i - 1].group !== point.group) {
        const edge = box.top + 4 + row * i;
        svg.append(page.svg("line", { class: "rule", x1: narrow ? 0 : 0, x2: width, y1: edge, y2: edge }));
      }
      return line(svg, point, { y, narrow, left, right: box.right, width, sx });
    });
  }

  function line(svg, point, { y, narrow, left, right, width, sx }) {
    const { color } = page.look(point.group);
    const at = narrow ? y - 14 : y;
    const short = shortened(point.variant, narrow ? width - 60 : left - 26);
    const name = page.svg("g", {
      class: "name", tabindex: -1, role: "button", "aria-label": `Highlight ${point.group}`,
      onclick: () => page.pick(point.group),
    }, page.svg("title", {}, `${point.variant}: highlight ${point.group} everywhere`),
    page.svg("text", { x: narrow ? 22 : left - 22, y: at + 3.5, "text-anchor": narrow ? "start" : "end" }, short));
    const mark = page.marker(point.group, 4.2, { transform: `translate(${narrow ? 12 : left - 12},${at})` });
    const made = page.svg("g", { class: "strip", "data-group": point.group }, name, mark);
    const targets = [];
    const [mean, low, high] = point.y;
    const target = (value, more) => ({
      x: sx(value), y, group: point.group, title: point.variant, lines: point.hint, cells: point.cells, ...more,
    });
    if (mean !== null) {
      if (low !== null) {
        const [x1, x2] = [sx.held(low), sx.held(high)];
        made.append(page.svg("line", { class: "band", x1, x2, y1: y, y2: y, look: { stroke: color } }));
      }
      for (const [seed, value] of point.seeds) {
        made.append(page.svg("circle", { class: "seed", cx: sx(value), cy: y, r: 2.6, look: { fill: color } }));
        const cell = point.cells.find((place) => page.value(place, "seed") === seed);
        const lines = [`seed ${seed}: ${value}`, ...point.hint];
        targets.push(target(value, { lines, first: cell, behind: true }));
      }
      made.append(page.svg("line", { class: "mean", x1: sx(mean), x2: sx(mean), y1: y - 6, y2: y + 6 }));
      targets.push(target(mean));
    } else {
      made.append(page.svg("text", { class: "wrong", x: left + 8, y: y + 3.5 }, point.trouble || "no result yet"));
      targets.push({ ...target(0), x: left + 30, y });
    }
    const wrong = point.trouble && mean !== null ? ` ${point.trouble}` : "";
    const given = { class: point.whole ? "count" : "count wrong", x: right + 6, y: y + 3.5 };
    made.append(page.svg("text", given, point.count,
      page.svg("title", {}, `${point.count} seeds${wrong}`)));
    svg.append(made);
    return targets;
  }
})();
