"use strict";
// What all scripts of the page share: its data, ways to make elements, and what is picked at the moment.
const page = {};
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  page.data = JSON.parse(document.getElementById("data").textContent);
  page.groups = new Map(page.data.groups.map((group, place) => [group.name, { ...group, place }]));

  function fill(made, given, children) {
    for (let [name, value] of Object.entries(given || {})) {
      if (name.startsWith("aria-")) value = String(value);
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") made.addEventListener(name.slice(2), value);
      else if (name === "look") for (const [key, one] of Object.entries(value)) made.style.setProperty(key, one);
      else made.setAttribute(name, value === true ? "" : String(value));
    }
    made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
    return made;
  }
  // Text goes in as text nodes, never as HTML: what rows say can be anything.
  page.el = (name, given, ...children) => fill(document.createElement(name), given, children);
  page.svg = (name, given, ...children) => fill(document.createElementNS(SVG, name), given, children);
  page.show = (node, ...children) => node.replaceChildren(...children.flat(Infinity).filter(Boolean));

  // Columns are packed as one value, as numbered words, or as each value.
  const cells = page.data.cells;
  page.columns = new Map(cells.columns.map((column) => [column.name, column]));
  page.unpacked = (column, place) => {
    if ("one" in column) return column.one;
    if ("each" in column) return column.each[place];
    return column.at[place] < 0 ? null : column.words[column.at[place]];
  };
  page.value = (place, name) => {
    const column = page.columns.get(name);
    return column ? page.unpacked(column, place) : null;
  };
  page.owner = (place) => page.unpacked(cells.owners, place);
  let byId = null;
  page.placeOf = (id) => {
    if (!byId) {
      byId = new Map();
      for (let place = 0; place < cells.n; place++) byId.set(page.value(place, "id"), place);
    }
    return byId.has(id) ? byId.get(id) : null;
  };

  // Picks: names of mechanisms. Elements of one carry it as `data-group`; who draws anew asks `page.marked`.
  page.picked = new Set();
  page.only = false;
  const listeners = [];
  page.onPick = (listener) => listeners.push(listener);
  page.kept = (group) => !page.only || !page.picked.size || page.picked.has(group);
  page.marked = (root) => {
    for (const node of root.querySelectorAll("[data-group]")) {
      const chosen = page.picked.has(node.dataset.group);
      node.classList.toggle("picked", chosen);
      if (node.hasAttribute("aria-pressed")) node.setAttribute("aria-pressed", chosen);
    }
  };
  function changed() {
    document.body.classList.toggle("picking", page.picked.size > 0);
    for (const listener of listeners) listener();
    page.marked(document);
  }
  page.pick = (group) => {
    if (!page.groups.has(group)) return;
    if (!page.picked.delete(group)) page.picked.add(group);
    changed();
  };
  page.unpick = () => {
    page.picked.clear();
    changed();
  };
  page.setOnly = (only) => {
    page.only = only;
    changed();
  };
})();
