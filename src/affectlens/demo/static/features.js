// Choosing and turning features: presets of the run, search, and one card with a slider for each.

import { range } from "./state.js";
import { asked } from "./stream.js";
import { drawn, element } from "./texts.js";

const KINDS = {
  contextual: "confirmed, and every test that takes the words away leaves the effect standing",
  lexical: "confirmed, but shown to follow the words",
  mixed: "confirmed, but the tests disagree or cannot tell",
  unsupported: "not confirmed on the scenes kept aside, so there is no effect to explain",
};
const STRONG = 0.4;
const FIRST = { mode: "add", value: 0.3 };
const WAIT_MS = 250;

export const label = (name) => (name === "all" ? "any emotion" : name);
const number = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
const quoted = (tokens) => tokens.map((token) => `“${drawn(token).trim() || "␣"}”`).join(" ");

export class Features {
  constructor(known, state, changed) {
    this.known = known;
    this.state = state;
    this.changed = changed;
    this.cards = new Map(known.cards.map((card) => [card.feature, card]));
    this.listenToContrasts();
    this.listenToSearch();
  }

  card(feature) {
    return this.cards.get(feature) ?? { feature, max_active: null, firing_rate: null, fires_on: [], promotes: [], findings: [] };
  }

  async learn(features) {
    const missing = features.filter((feature) => !this.cards.has(feature));
    if (!missing.length) return;
    this.keep((await asked(`/api/features?ids=${missing.join(",")}`)).cards);
  }

  keep(cards) {
    cards.forEach((card) => this.cards.set(card.feature, card));
    return cards;
  }

  listenToContrasts() {
    const select = document.getElementById("contrast");
    select.replaceChildren(...this.known.presets.map((preset) => {
      const option = element("option", label(preset.contrast));
      option.value = preset.contrast;
      return option;
    }));
    select.disabled = !this.known.presets.length;
    select.addEventListener("change", () => this.drawPresets());
  }

  listenToSearch() {
    const search = document.getElementById("search");
    let timer = 0;
    search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.find(search.value), WAIT_MS);
    });
    search.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      clearTimeout(timer);
      this.find(search.value);
    });
    document.getElementById("random").addEventListener("click", async () => {
      const draw = Math.floor(Math.random() * 1e8);
      const [card] = this.keep(await this.ask(`/api/features?random=${draw}`));
      if (card) this.toggle(card.feature, true);
    });
  }

  async ask(path) {
    const note = document.getElementById("hits-note");
    try {
      const { cards, n } = await asked(path);
      note.textContent = n > cards.length ? `${n} features; the first ${cards.length} are shown` : "";
      return cards;
    } catch (error) {
      note.textContent = error.message;
      return [];
    }
  }

  async find(words) {
    const wanted = words.trim();
    const cards = wanted ? this.keep(await this.ask(`/api/features?q=${encodeURIComponent(wanted)}`)) : [];
    const note = document.getElementById("hits-note");
    if (!wanted) note.textContent = "";
    else if (!cards.length && !note.textContent) note.textContent = "No feature of this run has such tokens; any number works.";
    this.hits = cards.map((card) => card.feature);
    this.drawHits();
  }

  toggle(feature, on) {
    const there = this.state.features.some((f) => f.feature === feature);
    const wanted = on ?? !there;
    if (wanted === there) return;
    if (!wanted) {
      this.state.features = this.state.features.filter((f) => f.feature !== feature);
    } else if (this.state.features.length < this.known.limits.max_features) {
      this.state.features.push({ ...FIRST, feature });
    } else {
      document.getElementById("hits-note").textContent = `At most ${this.known.limits.max_features} features are turned at once; remove one first.`;
      return;
    }
    this.draw();
    this.changed();
  }

  // What a page that is opened without a link begins with, so that its first text is steered.
  suggest() {
    const { presets } = this.known;
    const preset = presets.find((p) => p.contrast !== "all" && p.by_output.length) ?? presets[0];
    if (!preset) return;
    document.getElementById("contrast").value = preset.contrast;
    this.state.features.push({ ...FIRST, feature: preset.by_output[0] ?? preset.by_input[0] });
  }

  draw() {
    this.drawPresets();
    this.drawHits();
    const list = document.getElementById("chosen");
    list.replaceChildren(...this.state.features.map((turned) => this.turnable(turned)));
    document.getElementById("none").hidden = this.state.features.length > 0;
  }

  drawPresets() {
    const wanted = document.getElementById("contrast").value;
    const preset = this.known.presets.find((p) => p.contrast === wanted);
    const lists = { "by-input": preset?.by_input ?? [], "by-output": preset?.by_output ?? [] };
    for (const [id, features] of Object.entries(lists)) {
      this.chips(document.getElementById(id), features, wanted);
      if (!features.length) document.getElementById(id).append(element("li", id === "by-output" ? "this run holds no screen of outputs" : "none", "note"));
    }
    document.getElementById("verdict").textContent = preset ? preset.clamp || "This run did not test what clamping them does." : "";
  }

  drawHits() {
    this.chips(document.getElementById("hits"), this.hits ?? [], "");
  }

  chips(list, features, contrast) {
    list.replaceChildren(...features.map((feature) => {
      const card = this.card(feature);
      const button = element("button", `#${feature} `);
      button.type = "button";
      button.dataset.feature = String(feature);
      const words = card.fires_on.length ? quoted(card.fires_on.slice(0, 3)) : card.promotes.length ? `→ ${quoted(card.promotes.slice(0, 3))}` : "";
      button.append(element("span", words, "words"));
      button.title = card.fires_on.length ? "tokens that it fires on" : "tokens that its direction promotes";
      const finding = card.findings.find((f) => f.contrast === contrast);
      if (finding) button.append(badge(finding));
      button.setAttribute("aria-pressed", String(this.state.features.some((f) => f.feature === feature)));
      button.addEventListener("click", () => {
        const again = () => list.querySelector(`[data-feature="${feature}"]`)?.focus();
        this.toggle(feature);
        again();
      });
      const item = element("li");
      item.append(button);
      return item;
    }));
  }

  turnable(turned) {
    const card = this.card(turned.feature);
    const item = element("li");
    item.append(this.head(card, turned), this.slider(card, turned), about(card));
    return item;
  }

  head(card, turned) {
    const head = element("div", "", "card-head");
    const name = element("strong", `Feature ${card.feature}`);
    card.findings.slice(0, 1).forEach((finding) => name.append(badge(finding)));
    const remove = element("button", "Remove");
    remove.type = "button";
    remove.setAttribute("aria-label", `Remove feature ${card.feature}`);
    remove.addEventListener("click", () => {
      this.toggle(turned.feature, false);
      document.querySelector("#chosen button, #search").focus();
    });
    head.append(name, remove);
    return head;
  }

  slider(card, turned) {
    const box = element("div");
    const row = element("div", "", "turn");
    const mode = element("select");
    mode.setAttribute("aria-label", `What is done to feature ${card.feature}`);
    for (const [value, text] of [["add", "add"], ["clamp", "clamp"]]) {
      const option = element("option", text);
      option.value = value;
      option.disabled = value === "clamp" && card.max_active === null;
      mode.append(option);
    }
    const slide = element("input");
    slide.type = "range";
    slide.step = "0.05";
    slide.setAttribute("aria-label", `Strength of feature ${card.feature}`);
    const output = element("output");
    const unit = element("p", "", "note unit");
    const show = () => {
      const [low, high] = range(turned.mode, this.known.limits);
      Object.assign(slide, { min: low, max: high, value: turned.value });
      mode.value = turned.mode;
      const said = meaning(card, turned);
      output.textContent = said.short;
      slide.setAttribute("aria-valuetext", said.short);
      unit.textContent = said.long;
      unit.classList.toggle("far", said.far);
    };
    slide.addEventListener("input", () => {
      turned.value = Number(Number(slide.value).toFixed(4));
      show();
      this.changed();
    });
    mode.addEventListener("change", () => {
      turned.mode = mode.value;
      turned.value = mode.value === "add" ? 0.3 : 1;
      show();
      this.changed();
    });
    show();
    row.append(mode, slide, output);
    box.append(row, unit);
    return box;
  }
}

function badge(finding) {
  const kind = finding.kind || (finding.confirmed ? "confirmed" : "not confirmed");
  const made = element("span", kind, `badge ${Object.hasOwn(KINDS, kind) ? kind : ""}`);
  made.title = `${label(finding.contrast)}: ${KINDS[kind] ?? (finding.confirmed ? "held on the scenes kept aside" : "did not hold on the scenes kept aside")}`;
  return made;
}

function meaning(card, turned) {
  const value = turned.value;
  if (turned.mode === "add") {
    const far = Math.abs(value) > STRONG;
    const what = value === 0 ? "Nothing is added." : `Its direction is ${value < 0 ? "taken away" : "added"} at every token, ${number(Math.abs(value))} of the residual’s norm long.`;
    return { short: number(value), long: far ? `${what} Above ${STRONG} texts often break.` : what, far };
  }
  const held = `Its activation is held at ${number(value * card.max_active, 1)} at every token.`;
  if (value === 0) return { short: "0 × max", long: "Its activation is held at 0 at every token: the feature is ablated.", far: false };
  const place = value > 1 ? ` That is more than it ever reached on held-out text (${number(card.max_active, 1)}).` : ` Its largest on held-out text was ${number(card.max_active, 1)}.`;
  return { short: `${number(value)} × max`, long: held + place, far: value > 1 };
}

function about(card) {
  const more = element("details");
  more.append(element("summary", "What the run knows of it"));
  const lines = [];
  if (card.firing_rate !== null) lines.push(`Fires on ${(100 * card.firing_rate).toFixed(2)} % of held-out tokens${card.max_active === null ? "" : `, at most ${number(card.max_active, 1)}`}.`);
  if (card.fires_on.length) lines.push(`Most of its activation lies on ${quoted(card.fires_on)}.`);
  if (card.promotes.length) lines.push(`Its direction promotes ${quoted(card.promotes)} (logit lens).`);
  for (const f of card.findings) lines.push(`${label(f.contrast)}: ${f.kind || (f.confirmed ? "confirmed" : "not confirmed")}. ${f.why}`);
  if (!card.findings.length) lines.push("The search did not retain it for any emotion, so no class is known. That is not evidence that it carries none.");
  more.append(...lines.map((line) => element("p", line, "note")));
  return more;
}
