// The emotion readout of both texts as bars on one axis, wide enough for both.

import { element } from "./texts.js";

const LEAST = 1;
const LABELS = { all: "any emotion" };

const shown = (value) => (value === null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`);

export class Bars {
  constructor(names) {
    this.body = document.querySelector("#bars tbody");
    this.names = names;
    this.draw(names.map((name) => ({ name, values: [null, null] })));
  }

  clear() {
    this.draw(this.names.map((name) => ({ name, values: [null, null] })));
  }

  draw(rows) {
    const largest = Math.max(LEAST, ...rows.flatMap((row) => row.values.map((v) => Math.abs(v ?? 0))));
    this.body.replaceChildren(...rows.map((row) => this.row(row, largest)));
  }

  row({ name, values }, largest) {
    const made = element("tr");
    const head = element("th", LABELS[name] ?? name);
    head.scope = "row";
    const axis = element("span", "", "axis");
    axis.setAttribute("aria-hidden", "true");
    ["default", "steered"].forEach((side, k) => {
      const width = (50 * Math.abs(values[k] ?? 0)) / largest;
      const bar = element("span", "", `bar k-${side}`);
      bar.style.setProperty("width", `${width}%`);
      bar.style.setProperty("left", `${values[k] < 0 ? 50 - width : 50}%`);
      axis.append(bar);
    });
    const cell = element("td", "", "wide");
    cell.append(axis);
    made.append(head, element("td", shown(values[0])), element("td", shown(values[1])), cell);
    return made;
  }
}
