"use strict";
// The sections of a sweep: what is complete and what cannot be said, figures, tables, failures, all cells.
(() => {
  const DRAW = { strips: page.strips, scatter: page.scatter, lines: page.lines };
  const LINES = [
    ["efficiency", "Cost over tokens"], ["atlas", "Distance from full attention"], ["curves", "Curves over places"],
    ["trainings", "Trainings"],
  ];
  const SHOWN = 6; // figures of a section that are drawn at once
  const plural = (count, word) => `${count.toLocaleString("en-GB")} ${word}${count === 1 ? "" : "s"}`;

  function tile(count) {
    const width = `${(100 * count.ok) / Math.max(1, count.asked)}%`;
    const share = page.el("span", { class: "share", look: { width } });
    return page.el("div", { class: count.ok === count.asked ? "tile" : "tile gap" },
      page.el("b", {}, count.ok.toLocaleString("en-GB")),
      page.el("i", {}, ` of ${count.asked.toLocaleString("en-GB")}`),
      page.el("span", {}, `${count.kind} ok`), page.el("span", { class: "bar-of" }, share),
      count.others ? page.el("span", { class: "wrong" }, count.others) : null);
  }
  function notes(report) {
    const told = report.notes.map((note) => page.el("li", {}, note));
    if (told.length) return page.el("ul", { class: "notes" }, told);
    const whole = report.counts.every((count) => count.ok === count.asked);
    return page.el("p", {}, whole ? "Every cell that was asked is here and ok, of one code and one set of data."
      : "The rows are of one code and one set of data. What is not ok stands under Failures.");
  }
  page.overview = (report, several) => {
    const verdicts = report.verdicts.map(([setting, sentence]) =>
      page.el("li", {}, report.verdicts.length > 1 ? page.el("b", {}, `${setting}: `) : null, sentence));
    const facts = report.facts.map(([name, value]) => [page.el("dt", {}, name), page.el("dd", {}, value)]);
    return page.el("section", { class: "overview", "aria-label": `Overview of ${report.sweep}` },
      several ? [page.el("h2", {}, report.sweep), page.el("p", { class: "question" }, report.question)] : null,
      page.el("div", { class: "tiles" }, report.counts.map(tile), report.scope.map((one) =>
        page.el("div", { class: "tile" }, page.el("b", {}, one.count.toLocaleString("en-GB")),
          page.el("span", {}, one.words)))),
      page.el("div", { class: "halves" },
        verdicts.length
          ? page.el("div", { class: "card" }, page.el("h3", {}, "What the data can rank"), page.el("ul", {}, verdicts))
          : null,
        page.el("div", { class: "card" }, page.el("h3", {}, "What to know about the rows"),
          notes(report), page.el("dl", {}, facts))));
  };

  // Two columns of figures: each goes to the one that is shorter so far.
  const tall = (plot, setting) => (plot.kind === "strips" ? 130 + 20 * Math.min(48, setting.points.length) : 460);
  function placed(grid, plots, setting) {
    const columns = [page.el("div"), page.el("div")];
    const heights = [0, 0];
    for (const plot of plots) {
      const to = heights[0] <= heights[1] ? 0 : 1;
      heights[to] += tall(plot, setting);
      columns[to].append(DRAW[plot.kind](plot, setting));
    }
    grid.append(...columns.filter((column) => column.firstChild));
  }

  page.figures = (report) => {
    const settings = report.settings.filter((setting) => setting.points.length);
    if (!settings.length) return null;
    const grid = page.el("div", { class: "grid-of-plots" });
    const buttons = settings.map((setting, i) =>
      page.el("button", { type: "button", "aria-pressed": i === 0, onclick: () => chosen(i) }, setting.name));
    function chosen(at) {
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", i === at));
      grid.replaceChildren();
      placed(grid, settings[at].plots, settings[at]);
    }
    chosen(0);
    return page.section("Figures", report, [
      settings.length > 1 ? page.el("div", { class: "choice", role: "group", "aria-label": "Setting" }, buttons) : null,
      grid,
    ], settings.length > 1 ? null : settings[0].name);
  };
  page.lineSections = (report) => LINES.flatMap(([name, words]) => {
    const plots = report.lines[name];
    if (!plots.length) return [];
    const grid = page.el("div", { class: "grid-of-plots" });
    placed(grid, plots.slice(0, SHOWN));
    const rest = plots.slice(SHOWN);
    const more = page.el("button", {
      type: "button", class: "more", onclick: () => { placed(grid, rest); more.remove(); },
    }, `Show ${plural(rest.length, "further figure")}`);
    return [page.section(words, report, [grid, rest.length ? more : null])];
  });

  page.section = (words, report, children, about) => {
    const several = page.data.reports.length > 1;
    const id = `${words} ${report ? report.sweep : ""}`.replace(/[^A-Za-z0-9]+/g, "-").toLowerCase();
    return page.el("section", { id, "data-nav": words }, page.el("h2", {}, words,
      several && report ? page.el("small", {}, report.sweep) : about ? page.el("small", {}, about) : null), children);
  };

  const shut = (title, open, make) => {
    const inside = page.el("div");
    const summary = page.el("summary", {}, page.el("h3", {}, title));
    const made = page.el("details", { class: "card sheet", open }, summary, inside);
    const fill = () => { if (made.open && !inside.firstChild) inside.append(make()); };
    made.addEventListener("toggle", fill);
    window.addEventListener("beforeprint", () => { made.open = true; fill(); });
    fill();
    return made;
  };
  page.sheets = (report) => page.section("Tables", report, report.sheets.map((sheet, i) =>
    shut(sheet.title, i < 4, () => page.table({
      title: sheet.title, head: sheet.head, count: sheet.rows.length, caption: sheet.caption, latex: sheet.latex,
      value: (place, column) => sheet.rows[place][column], owner: (place) => sheet.owners[place], starts: sheet.starts,
      marked: true, bad: (place, column) => sheet.head[column] === "not ok",
    }))));

  const NUMBERS = ["seed", "wall_s"];
  function cellTable(title, places, columns) {
    return page.table({
      title, head: columns.map(([, words]) => words), count: places.length,
      value: (at, column) => {
        const [name] = columns[column];
        const value = page.value(places[at], name);
        if (name.startsWith("result.") && page.value(places[at], "status") !== "ok") return null; // nobody may read it
        if (name === "id" || name === "code.commit") return value && value.slice(0, 10);
        return value;
      },
      owner: (at) => page.owner(places[at]), open: (at) => page.open([places[at]]),
      words: (column) => !NUMBERS.includes(columns[column][0]) && !/^(result|cost)\./.test(columns[column][0]),
      bad: (at, column) => columns[column][0] === "status" && page.value(places[at], "status") !== "ok",
    });
  }
  const everywhere = (keep) => Array.from({ length: page.data.cells.n }, (_, place) => place).filter(keep);

  page.failures = () => {
    const places = everywhere((place) => page.value(place, "status") !== "ok");
    const columns = [["id", "cell"], ["status", "status"], ["kind", "kind"], ["variant", "variant"], ["seed", "seed"],
      ["error", "reason"]].filter(([name]) => name === "error" || page.columns.has(name));
    const none = "No cell failed: none ran out of memory or time, diverged, raised or is missing.";
    return page.section("Failures", null, [places.length
      ? page.el("div", { class: "card sheet" }, cellTable("Cells that are not ok", places, columns))
      : page.el("p", { class: "card none" }, none)]);
  };
  page.allCells = () => {
    const columns = [["id", "cell"], ...page.data.cells.shown];
    const told = "A click on a cell opens its provenance: seed, commit, code, data, host, libraries, attempts.";
    return page.section("Cells", null, [page.el("div", { class: "card sheet" },
      cellTable("All cells", everywhere(() => true), columns), page.el("p", { class: "caption" }, told))]);
  };
})();
