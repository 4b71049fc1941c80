"use strict";
// Puts the page together: head, bar of sections and mechanisms, then the sections of every sweep.
(() => {
  const { data } = page;
  const several = data.reports.length > 1;
  const main = document.getElementById("main");

  page.show(document.getElementById("head"),
    page.el("p", { class: "brand" }, "attnbench",
      data.anonymous ? page.el("span", { class: "tag" }, "anonymous") : null),
    page.el("h1", {}, several ? `${data.reports.length} sweeps` : data.title),
    page.el("p", { class: "question" }, several ? data.title : data.reports[0].question));
  page.show(main, data.reports.flatMap((report) => [page.overview(report, several), page.figures(report),
    ...page.lineSections(report), page.sheets(report)]), page.failures(), page.allCells());

  const links = [...main.querySelectorAll("section[data-nav]")]
    .map((section) => page.el("a", { href: `#${section.id}` }, section.querySelector("h2").firstChild.textContent));
  const only = page.el("button", {
    type: "button", class: "only", "aria-pressed": "false", onclick: () => page.setOnly(!page.only),
  }, "Only these");
  const clear = page.el("button", { type: "button", class: "clear", onclick: () => page.unpick() }, "Clear");
  page.show(document.getElementById("bar"),
    several ? null : page.el("div", { class: "links" }, links),
    page.el("div", { class: "legend", role: "group", "aria-label": "Mechanisms: press one to highlight it everywhere" },
      data.groups.map((group) => page.chip(group.name)), only, clear));
  page.onPick(() => only.setAttribute("aria-pressed", page.only));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && page.picked.size && !document.querySelector("dialog[open]")) page.unpick();
  });
  document.getElementById("foot").textContent =
    "Numbers and texts are those of summary.md; all digits stand in rows.csv. This page needs no network.";
  document.body.dataset.ready = "yes";
})();
