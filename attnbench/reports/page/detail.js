"use strict";
// Where a number comes from: one cell with its seed, code, machine and data, and all else that its row says.
(() => {
  const box = document.getElementById("detail");
  const FIRST = [
    ["id", "cell"], ["sweep", "sweep"], ["kind", "kind"], ["variant", "variant"], ["seed", "seed"],
    ["code.commit", "commit"], ["code.dirty", "uncommitted changes"], ["code.fingerprint", "code fingerprint"],
    ["code.entries", "fingerprint of its own files"], ["data.hash", "data hash"], ["host.name", "host"],
    ["host.device", "processor"], ["device", "device"], ["dtype", "numbers"], ["host.driver", "driver"],
    ["host.cuda", "CUDA"], ["host.cudnn", "cuDNN"], ["host.torch", "torch"], ["host.python", "Python"],
    ["host.system", "system"], ["started", "started"], ["finished", "finished"], ["wall_s", "wall time [s]"],
  ];
  const GROUPS = [
    ["result.", "What came out"], ["task.", "Task"], ["model.", "Model"], ["mechanism.", "Mechanism"],
    ["site.", "Site"], ["equal.", "Made equal"], ["cost.", "What it cost"], ["host.", "Machine and libraries"],
    ["data.", "Data"], ["code.", "Code"], ["", "Further"],
  ];
  const { tries, tracebacks, n } = page.data.cells;
  const ABSENT = "not noted";

  function table(pairs) {
    return page.el("table", { class: "facts" }, page.el("tbody", {}, pairs.map(([name, value]) =>
      page.el("tr", {}, page.el("th", { scope: "row" }, name), page.el("td", {}, String(value))))));
  }
  const known = (value) => value !== null && value !== undefined && value !== "";
  const full = (value) => (typeof value === "number" ? page.number(value) : value);

  function provenance(place) {
    const always = new Set(["seed", "code.commit", "code.fingerprint", "data.hash", "host.torch"]);
    const pairs = FIRST.map(([name, words]) => [words, page.value(place, name), name])
      .filter(([, value, name]) => known(value) || (always.has(name) && page.value(place, "kind") === "train"))
      .map(([words, value]) => [words, known(value) ? value : ABSENT]);
    return [...pairs, ["attempts", tries[place] ?? ABSENT]];
  }
  function further(place, named) {
    const done = new Set([...named, "status", "error"]);
    return GROUPS.flatMap(([start, words]) => {
      const pairs = [];
      for (const name of page.columns.keys()) {
        if (!name.startsWith(start) || done.has(name)) continue;
        const value = page.value(place, name);
        done.add(name);
        if (known(value)) pairs.push([name.slice(start.length), full(value)]);
      }
      if (!pairs.length) return [];
      return [page.el("details", { open: start === "result." }, page.el("summary", {}, words), table(pairs))];
    });
  }
  function siblings(cells, place) {
    const price = page.placeOf(page.value(place, "cost_id"));
    const all = [...new Set([...cells, ...(price === null ? [] : [price])])];
    if (all.length < 2) return null;
    const given = { class: "siblings", role: "group", "aria-label": "Cells of this variant" };
    return page.el("div", given, all.map((one) => {
      const kind = page.value(one, "kind");
      const seed = page.value(one, "seed");
      const words = kind === "train" || kind === "trial" ? `seed ${seed}` : kind;
      return page.el("button", {
        type: "button", "aria-pressed": one === place, onclick: () => filled(cells, one),
      }, words);
    }));
  }
  function filled(cells, place) {
    const owner = page.owner(place);
    const status = page.value(place, "status");
    const error = page.value(place, "error");
    page.show(box,
      page.el("div", { class: "detail-head" },
        page.el("h2", { id: "detail-title" }, owner ? page.swatch(owner) : null,
          page.value(place, "variant") || page.value(place, "id")),
        page.el("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => box.close() }, "×")),
      siblings(cells, place),
      page.el("p", {}, page.el("span", { class: `status ${status === "ok" ? "ok" : "wrong"}` }, status),
        owner ? page.chip(owner, `Highlight ${owner}`) : null),
      error ? page.el("p", { class: "wrong" }, error) : null,
      tracebacks[place] ? page.el("pre", { class: "traceback" }, tracebacks[place]) : null,
      page.el("h3", {}, "Provenance"), table(provenance(place)), further(place, FIRST.map(([name]) => name)),
      page.el("p", { class: "quiet" }, "Numbers have six digits here; rows.csv has them all."));
    page.marked(box);
    box.scrollTop = 0;
  }
  // Opens the cell `first`, or the first of the cells, with buttons to the others.
  page.open = (cells, first) => {
    const place = first ?? cells[0];
    if (place === undefined || place >= n) return;
    filled(cells, place);
    if (!box.open) box.showModal();
  };
  box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
})();
