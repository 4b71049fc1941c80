"use strict";
// A figure: its card, axes and small print, hints at the pointer and by keyboard, and what a click opens.
(() => {
  const NEAR = 26; // pixels within which a point answers to the pointer
  const hint = document.getElementById("hint");

  page.hint = (target, x, y) => {
    page.show(hint,
      page.el("strong", {}, target.group ? page.swatch(target.group) : null, target.title),
      target.lines.map((line) => page.el("div", {}, line)),
      target.cells?.length ? page.el("div", { class: "quiet" }, "Click for where this comes from") : null);
    hint.hidden = false;
    const { width, height } = hint.getBoundingClientRect();
    const left = x + 16 + width > window.innerWidth ? x - 16 - width : x + 16;
    const top = y + 14 + height > window.innerHeight ? y - 14 - height : y + 14;
    hint.style.left = `${Math.max(4, left)}px`;
    hint.style.top = `${Math.max(4, top)}px`;
  };
  page.noHint = () => { hint.hidden = true; };

  function nearest(targets, x, y) {
    let [found, least] = [null, NEAR * NEAR];
    for (const one of targets) {
      if (page.only && !page.kept(one.group)) continue;
      const far = (one.x - x) ** 2 + (one.y - y) ** 2 + (one.behind ? 9 : 0);
      if (far < least) [found, least] = [one, far];
    }
    return found;
  }

  // draw(svg, width) fills the drawing, sets its height and returns the points that answer.
  page.figure = ({ title, note, classes }, draw) => {
    const words = `${title}. Arrow keys go from point to point, Enter opens one, H highlights its mechanism.`;
    const svg = page.svg("svg", { class: "plot", tabindex: 0, role: "application", "aria-label": words });
    const extra = page.el("div", { class: "pager" });
    const card = page.el("figure", { class: `card plot-card ${classes || ""}` },
      page.el("h4", {}, title), svg, extra, note ? page.el("figcaption", {}, note) : null);
    let [targets, at, width] = [[], -1, 0];
    const redraw = () => {
      const now = Math.floor(svg.getBoundingClientRect().width || card.clientWidth - 32);
      if (now < 40) return;
      width = now;
      svg.replaceChildren();
      targets = draw(svg, width, extra, redraw);
      const names = [...new Set(targets.map((one) => one.group))];
      card.dataset.drawn = names.length;
      svg.append(page.svg("circle", { class: "ring", r: 8, visibility: "hidden" }));
      at = -1;
      page.marked(svg);
    };
    const ringed = (one) => {
      const ring = svg.querySelector(".ring");
      ring.setAttribute("visibility", one ? "visible" : "hidden");
      if (one) ring.setAttribute("transform", `translate(${one.x},${one.y})`);
    };
    const told = (one, x, y) => {
      ringed(one);
      if (one) page.hint(one, x, y);
      else page.noHint();
      svg.classList.toggle("answers", Boolean(one));
    };
    const under = (event) => {
      const box = svg.getBoundingClientRect();
      return nearest(targets, event.clientX - box.left, event.clientY - box.top);
    };
    svg.addEventListener("pointermove", (event) => told(under(event), event.clientX, event.clientY));
    svg.addEventListener("pointerleave", () => told(null));
    svg.addEventListener("blur", () => told(null));
    svg.addEventListener("click", (event) => {
      if (event.target.closest(".name")) return;
      const one = under(event);
      if (one) opened(one);
    });
    function opened(one) {
      page.noHint();
      if (one.cells?.length) page.open(one.cells, one.first);
      else if (one.group) page.pick(one.group);
    }
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step && targets.length) {
        const means = targets.filter((one) => !one.behind);
        const order = means.length ? means : targets;
        at = (at + step + order.length) % order.length;
        const box = svg.getBoundingClientRect();
        told(order[at], box.left + order[at].x, box.top + order[at].y);
        event.preventDefault();
      } else if (event.key === "Escape") told(null);
      else if (at >= 0) {
        const order = targets.some((one) => !one.behind) ? targets.filter((one) => !one.behind) : targets;
        if (event.key === "Enter") {
          event.preventDefault(); // or it would press the button that gets the focus
          opened(order[at]);
        }
        if (event.key === "h" || event.key === "H") page.pick(order[at].group);
      }
    });
    new ResizeObserver(() => {
      if (Math.abs(Math.floor(svg.getBoundingClientRect().width) - width) > 1) redraw();
    }).observe(card);
    page.onPick(() => { if (card.isConnected && page.redrawn.has(card)) redraw(); });
    return card;
  };
  page.redrawn = new Set(); // cards whose content depends on what is picked

  // Grid, ticks and words of both axes; box holds left, right, top and bottom.
  page.axes = (svg, box, x, y, sx, sy) => {
    const wide = box.right - box.left;
    const across = page.ticks(x, Math.max(3, Math.floor(wide / 52)));
    const words = page.tickWords(x, across);
    for (const [i, value] of across.entries()) {
      const at = sx(value + (x.shift || 0));
      svg.append(page.svg("line", { class: "grid", x1: at, x2: at, y1: box.top, y2: box.bottom }),
        page.svg("text", { class: "tick", x: at, y: box.bottom + 15, "text-anchor": "middle" }, words[i]));
    }
    const up = y ? page.ticks(y, 7) : [];
    const upWords = y ? page.tickWords(y, up) : [];
    for (const [i, value] of up.entries()) {
      const at = sy(value + (y.shift || 0));
      svg.append(page.svg("line", { class: "grid", x1: box.left, x2: box.right, y1: at, y2: at }),
        page.svg("text", { class: "tick", x: box.left - 7, y: at + 3.5, "text-anchor": "end" }, upWords[i]));
    }
    const named = (axis) => `${axis.label}${axis.log ? ", logarithmic" : ""}`;
    svg.append(page.svg("line", { class: "frame", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
      page.svg("text", { class: "label", x: (box.left + box.right) / 2, y: box.bottom + 33, "text-anchor": "middle" },
        named(x)));
    if (y) {
      svg.append(page.svg("line", { class: "frame", x1: box.left, x2: box.left, y1: box.top, y2: box.bottom }),
        page.svg("text", { class: "label", x: 4, y: 13 }, named(y)));
    }
  };
  // The box between the axes of a figure that has both, and the scales of them.
  page.field = (svg, plot, width) => {
    const height = Math.max(250, Math.min(370, 0.62 * width));
    const box = { left: 60, right: width - 14, top: 26, bottom: height - 42 };
    page.sized(svg, width, height);
    const sx = page.scale(plot.x, box.left, box.right);
    const sy = page.scale(plot.y, box.bottom, box.top);
    page.axes(svg, box, plot.x, plot.y, sx, sy);
    return { box, sx, sy };
  };

  page.sized = (svg, width, height) => {
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.style.setProperty("height", `${height}px`);
  };
})();
