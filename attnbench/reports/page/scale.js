"use strict";
// Axes: from numbers to places, and which numbers stand beside them.
(() => {
  const SUBS = [[0.8, [1, 1.5, 2, 3, 5, 7]], [2.2, [1, 2, 5]], [Infinity, [1]]];

  page.scale = (axis, from, to) => {
    const shift = axis.shift || 0; // what the axis starts from, such as a floor that no number can go below
    const turn = axis.log ? Math.log10 : Number;
    const [low, high] = [turn(axis.low), turn(axis.high)];
    const place = (value) => from + ((turn(value - shift) - low) / (high - low || 1)) * (to - from);
    const [near, far] = [Math.min(from, to), Math.max(from, to)];
    // Bars that go on beyond the frame end there, as do those down to zero on a logarithmic axis.
    place.held = (value) => {
      const at = axis.log && !(value > shift) ? from : place(value);
      return Math.min(far, Math.max(near, at));
    };
    place.inside = (value) => value !== null && (!axis.log || value > shift);
    return place;
  };

  page.ticks = (axis, most) => {
    const found = axis.log ? powers(axis) : steps(axis, most);
    const step = Math.ceil(found.length / most);
    return found.filter((_, i) => i % step === 0);
  };
  function powers({ low, high }) {
    const span = Math.log10(high) - Math.log10(low);
    const subs = SUBS.find(([until]) => span < until)[1];
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const sub of subs) found.push(Number((sub * 10 ** power).toPrecision(6)));
    }
    return found.filter((value) => value >= low && value <= high);
  }
  function steps({ low, high }, most) {
    const rough = (high - low) / Math.max(2, most);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) {
      found.push(Number((i * step).toPrecision(10)));
    }
    return found;
  }

  // Words for the ticks of an axis, with as many decimals as the finest of them needs.
  page.tickWords = (axis, ticks) => {
    if (axis.log || ticks.some((value) => Math.abs(value) >= 1e4)) return ticks.map(page.number);
    const places = Math.max(...ticks.map((value) => (String(value).split(".")[1] || "").length));
    const digits = { minimumFractionDigits: Math.min(places, 12), maximumFractionDigits: 12 };
    return ticks.map((value) => value.toLocaleString("en-GB", digits));
  };
  page.number = (value) => {
    const size = Math.abs(value);
    for (const [unit, word] of [[1e12, "T"], [1e9, "G"], [1e6, "M"]]) {
      if (size >= unit) return `${Number((value / unit).toPrecision(4))} ${word}`;
    }
    return value.toLocaleString("en-GB", { maximumSignificantDigits: 6 });
  };
})();
