"use strict";
// Copies text; where a browser forbids it, the text stands selected in a field to copy by hand.
(() => {
  function byHand(text) {
    const field = page.el("textarea", { readonly: true, rows: 12, class: "by-hand", "aria-label": "Text to copy" });
    field.value = text;
    const close = page.el("button", { type: "button", onclick: () => box.close() }, "Close");
    const box = page.el("dialog", { class: "copy-box" },
      page.el("p", {}, "This browser does not let a page copy. The text is selected: copy it with Ctrl-C."),
      field, close);
    box.addEventListener("close", () => box.remove());
    document.body.append(box);
    box.showModal();
    field.select();
  }

  page.copy = async (text, button) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      byHand(text);
      return;
    }
    const words = button.textContent;
    button.textContent = "Copied";
    button.classList.add("done");
    setTimeout(() => {
      button.textContent = words;
      button.classList.remove("done");
    }, 1200);
  };
  page.copyButton = (words, text, about) =>
    page.el("button", {
      type: "button", class: "copy", "aria-label": about, onclick: (event) => page.copy(text(), event.currentTarget),
    }, words);
  page.csv = (rows) => {
    const field = (value) => {
      const text = value === null || value === undefined ? "" : String(value);
      return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    return rows.map((row) => `${row.map(field).join(",")}\n`).join("");
  };
})();
