"use strict";
// Tables that sort by a click on a head, filter by text, and show long ones in pages.
(() => {
  const SIZE = 50;
  const LEADING = /^[<>±]?\s*([+\-\u2212]?[\d,]*\.?\d+(?:[eE][+-]?\d+)?)(?![\d.,]|\s+(?!of\b)[A-Za-z])/;

  // The number that a field begins with, such as 0.075 of "0.0750 [0.0706, 0.0793]"; null where
  // it begins with none, or with a count such as "2 oom".
  page.leading = (value) => {
    if (typeof value === "number") return value;
    if (typeof value === "boolean") return Number(value);
    const match = LEADING.exec(String(value ?? "").replaceAll("**", "").trim());
    return match ? Number(match[1].replaceAll(",", "").replace("\u2212", "-")) : null;
  };
  // A sheet's fields have stand-ins for stars and the like in names, as Python's `letters` puts them.
  const typed = (text) => text.replace(/[\ue000-\ue07f]/g, (one) => String.fromCharCode(one.charCodeAt(0) - 0xe000));
  const empty = (value) => value === null || value === undefined || value === "" || value === "\u2013";

  // Numbers before words, nothing and lines in parentheses last whichever way.
  function compared(a, b, sign) {
    if (a.last !== b.last) return a.last - b.last;
    if (a.number !== null && b.number !== null) return sign * (a.number - b.number) || a.place - b.place;
    if (a.number !== null || b.number !== null) return a.number !== null ? -1 : 1;
    return sign * a.text.localeCompare(b.text, "en", { numeric: true }) || a.place - b.place;
  }
  function sorted(source, places, { column, sign }) {
    const keys = places.map((place) => {
      const value = source.value(place, column);
      const last = empty(value) ? 1 : String(source.value(place, 0)).startsWith("(") ? 2 : 0;
      const number = source.words?.(column) ? null : page.leading(value);
      return { place, number, text: String(value ?? ""), last };
    });
    return keys.sort((a, b) => compared(a, b, sign)).map((key) => key.place);
  }

  // source: title, head, count, value(place, column), owner(place), starts, caption, latex, open(place),
  // marked (whether two stars around words make them bold).
  page.table = (source) => {
    const state = { column: -1, sign: 1, text: "", from: 0, order: [] };
    const found = page.el("span", { class: "found", role: "status" });
    const filter = page.el("input", {
      type: "search", placeholder: "Filter", "aria-label": `Filter ${source.title}`,
      oninput: (event) => { Object.assign(state, { text: event.currentTarget.value, from: 0 }); refreshed(); },
    });
    const heads = source.head.map((words, column) => head(words, column));
    const body = page.el("tbody");
    const pager = page.el("div", { class: "pager" });
    const texts = Array.from({ length: source.count }, () => null);
    const text = (place) => {
      const fields = source.head.map((_, column) => source.value(place, column) ?? "").join("\u0001");
      texts[place] ??= (source.marked ? typed(fields) : fields).toLowerCase();
      return texts[place];
    };

    function head(words, column) {
      const size = words.length > 14 ? "long" : null;
      const button = page.el("button", { type: "button", class: size, onclick: () => sortBy(column) }, words,
        page.el("span", { class: "way", "aria-hidden": "true" }));
      const given = { scope: "col", class: source.words?.(column) ? "words" : null };
      return page.el("th", { ...given, "aria-sort": "none" }, button);
    }
    function sortBy(column) {
      if (state.column === column && state.sign < 0) Object.assign(state, { column: -1, sign: 1 });
      else Object.assign(state, { sign: state.column === column ? -1 : 1, column });
      state.from = 0;
      heads.forEach((one, i) => {
        const way = i !== state.column ? "none" : state.sign > 0 ? "ascending" : "descending";
        one.setAttribute("aria-sort", way);
      });
      refreshed();
    }
    function refreshed() {
      const asked = state.text.toLowerCase().split(/\s+/).filter(Boolean);
      let places = Array.from({ length: source.count }, (_, place) => place);
      places = places.filter((place) =>
        page.kept(source.owner(place)) && asked.every((word) => text(place).includes(word)));
      state.order = state.column < 0 ? places : sorted(source, places, state);
      if (state.from >= state.order.length) state.from = 0;
      rendered();
    }
    function rendered() {
      const whole = state.order.length <= 1.4 * SIZE;
      const shown = whole ? state.order : state.order.slice(state.from, state.from + SIZE);
      page.show(body, shown.map(row));
      page.marked(body);
      found.textContent = state.order.length === source.count
        ? `${source.count.toLocaleString("en-GB")} rows`
        : `${state.order.length.toLocaleString("en-GB")} of ${source.count.toLocaleString("en-GB")} rows`;
      page.show(pager, whole ? [] : turning());
    }
    function turning() {
      const [from, count] = [state.from, state.order.length];
      const go = (to) => { state.from = to; rendered(); };
      const last = SIZE * Math.floor((count - 1) / SIZE);
      const button = (words, to, off) =>
        page.el("button", { type: "button", disabled: off, onclick: () => go(to) }, words);
      return [button("First", 0, from === 0), button("Previous", from - SIZE, from === 0),
        page.el("span", {}, `${from + 1} to ${Math.min(count, from + SIZE)}`),
        button("Next", from + SIZE, from === last), button("Last", last, from === last)];
    }
    function row(place) {
      const owner = source.owner(place);
      const start = state.column < 0 && !state.text && source.starts?.includes(place);
      const cells = source.head.map((_, column) => cell(place, column, owner));
      return page.el("tr", { "data-group": owner || null, class: start ? "start" : null }, cells);
    }
    function cell(place, column, owner) {
      const value = source.value(place, column);
      const shown = empty(value) ? "\u2013" : typeof value === "number" ? page.number(value) : String(value);
      const plain = source.marked ? bold(shown) : shown;
      if (column > 0) {
        const right = source.words?.(column) ? "words" : null;
        const wrong = source.bad?.(place, column) && shown !== "\u2013";
        return page.el("td", { class: right }, wrong ? page.el("span", { class: "wrong" }, plain) : plain);
      }
      const mark = owner
        ? page.el("button", {
          type: "button", class: "mark", "data-group": owner, "aria-pressed": page.picked.has(owner),
          "aria-label": `Highlight ${owner}`, title: `Highlight ${owner} everywhere`, onclick: () => page.pick(owner),
        }, page.swatch(owner))
        : null;
      const content = source.open
        ? page.el("button", { type: "button", class: "link", onclick: () => source.open(place) }, plain) : plain;
      return page.el("th", { scope: "row" }, mark, content);
    }
    const shownRows = () =>
      state.order.map((place) => source.head.map((_, column) => {
        const value = source.value(place, column);
        return source.marked && typeof value === "string" ? typed(value.replaceAll("**", "")) : value;
      }));
    page.onPick(() => { if (page.only || state.only) { state.only = page.only; refreshed(); } });
    refreshed();
    return page.el("div", { class: "table" },
      page.el("div", { class: "tools" }, filter, found, page.el("span", { class: "space" }),
        source.latex ? page.copyButton("Copy LaTeX", () => source.latex, `Copy ${source.title} as LaTeX`) : null,
        page.copyButton("Copy CSV", () => page.csv([source.head, ...shownRows()]), `Copy ${source.title} as CSV`)),
      page.el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": source.title },
        page.el("table", {}, page.el("thead", {}, page.el("tr", {}, heads)), body)),
      pager, source.caption ? page.el("p", { class: "caption" }, source.caption) : null);
  };
  function bold(text) {
    return text.split("**").map((part, i) => (i % 2 ? page.el("strong", {}, typed(part)) : typed(part)));
  }
})();
