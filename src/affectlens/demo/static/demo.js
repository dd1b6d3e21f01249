// The page: waits for the model, keeps state and address in step, and shows two texts as they come.

import { Bars } from "./bars.js";
import { python } from "./code.js";
import { Features } from "./features.js";
import { number, read, whole, written } from "./state.js";
import { Refused, asked, stream } from "./stream.js";
import { Text, drawn, element } from "./texts.js";

const get = (id) => document.getElementById(id);
const POLL_MS = 500;
const NARROW = "(max-width: 860px)";
const page = { known: null, state: null, features: null, texts: [], bars: null, stop: null, traced: [] };

function say(text) {
  get("status").textContent = text;
}

function complain(text) {
  get("problem").textContent = text;
  get("problem").hidden = text === "";
}

async function untilReady() {
  for (;;) {
    const status = await asked("/api/status");
    if (status.state === "ready") return status;
    if (status.state !== "loading") throw new Refused(status.message);
    say(`Loading the model: ${Math.round(status.seconds)} s`);
    await new Promise((done) => setTimeout(done, POLL_MS));
  }
}

async function start() {
  try {
    const status = await untilReady();
    page.known = await asked("/api/run");
    await prepare();
    say(`Ready. The model took ${status.seconds.toFixed(1)} s to load.`);
  } catch (error) {
    say("Not ready.");
    complain(error instanceof Refused ? error.message : "The server cannot be reached; is it still running?");
  }
}

async function prepare() {
  const { known } = page;
  get("about").textContent = `${known.model}, ${known.hook}, ${known.d_sae.toLocaleString("en")} features of the SAE in “${known.run}”`;
  const [state, left] = read(location.search, known);
  page.state = state;
  page.bars = new Bars(known.readout);
  if (known.no_readout) get("bars-note").textContent = `There is no readout: ${known.no_readout}`;
  page.texts = ["default", "steered"].map((side) => new Text(side, describe, level));
  page.features = new Features(known, state, changed);
  if (!location.search) page.features.suggest();
  await page.features.learn(state.features.map((f) => f.feature));
  fill();
  listen();
  page.features.draw();
  get("generate").disabled = false;
  changed(false);
  if (left.length) complain(`Of the link, this was left out: ${left.join("; ")}.`);
}

function fill() {
  const { known, state } = page;
  get("prompt").value = state.prompt;
  get("prompt").maxLength = known.limits.max_prompt_chars;
  Object.assign(get("temperature"), { max: known.limits.max_temperature, value: state.temperature });
  Object.assign(get("seed"), { max: known.limits.max_seed, value: state.seed });
  Object.assign(get("tokens"), { max: known.limits.max_tokens, value: state.tokens });
  get("openings").replaceChildren(...known.openings.map((text) => {
    const button = element("button", text);
    button.type = "button";
    button.addEventListener("click", () => {
      get("prompt").value = text;
      taken();
    });
    const item = element("li");
    item.append(button);
    return item;
  }));
}

function taken() {
  const { limits } = page.known;
  page.state.prompt = get("prompt").value;
  page.state.temperature = number(get("temperature").value, 0, limits.max_temperature, 0.8);
  page.state.seed = whole(get("seed").value, 0, limits.max_seed, 0);
  page.state.tokens = whole(get("tokens").value, 1, limits.max_tokens, 60);
  changed();
}

function changed(address = true) {
  if (address) history.replaceState(null, "", written(page.state, page.known.sae));
  get("code").textContent = python(page.state, page.known, page.features);
  // What is shown keeps the features it was written with.
  if (!page.stop && !page.texts[0].tokens.length) shades(page.state.features);
}

function shades(turned) {
  const select = get("shade");
  const before = select.value;
  page.traced = turned.map((f) => f.feature);
  const options = page.traced.map((feature, k) => new Option(`feature ${feature}`, String(k)));
  if (options.length > 1) options.unshift(new Option("the strongest chosen feature", "most"));
  if (!options.length) options.push(new Option("no feature is chosen", ""));
  select.replaceChildren(...options);
  if (options.some((option) => option.value === before)) select.value = before;
}

function level(values) {
  const levels = values.map((value, k) => value / (page.features.card(page.traced[k]).max_active || value || 1));
  const wanted = get("shade").value;
  return wanted === "most" ? Math.max(...levels, 0) : (levels[Number(wanted)] ?? 0);
}

function describe({ text, values }) {
  const name = `“${drawn(text)}”`;
  if (values === undefined) return name;
  if (values === null) return `${name}: masked, not read and not edited (first token or norm outlier)`;
  const parts = values.map((value, k) => {
    const top = page.features.card(page.traced[k]).max_active;
    const share = top ? ` (${Math.round((100 * value) / top)} % of its largest)` : "";
    return `feature ${page.traced[k]}: ${value.toFixed(2)}${share}`;
  });
  return [name, ...parts].join(" · ");
}

function listen() {
  get("form").addEventListener("submit", (event) => {
    event.preventDefault();
    generate();
  });
  for (const id of ["prompt", "temperature", "seed", "tokens"]) get(id).addEventListener("change", taken);
  get("prompt").addEventListener("input", taken);
  get("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    generate();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && page.stop) halt();
  });
  get("stop").addEventListener("click", halt);
  get("shade").addEventListener("change", () => page.texts.forEach((text) => text.reshade()));
  get("share").addEventListener("click", share);
}

async function share() {
  changed();
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link is copied. It opens this page on the same run, and writes nothing until asked.");
  } catch {
    say("The browser does not let this page copy; the link stands in the address bar.");
  }
}

function halt() {
  page.stop?.abort();
}

function busy(on) {
  get("stop").disabled = !on;
  get("generate").textContent = on ? "Generate anew" : "Generate";
}

async function generate() {
  if (!page.known || get("generate").disabled) return;
  const before = page.stop;
  before?.abort();
  taken();
  complain("");
  fill();
  const own = new AbortController();
  page.stop = own;
  shades(page.state.features);
  page.texts.forEach((text) => text.clear());
  page.bars.clear();
  busy(true);
  say("Asked…");
  // On a phone the texts lie below the settings.
  if (matchMedia(NARROW).matches) get("results").scrollIntoView();
  const { prompt, features, temperature, seed, tokens } = page.state;
  const body = { prompt, features, temperature, seed, max_tokens: tokens, sae: page.known.sae };
  try {
    await stream(body, own.signal, (event) => page.stop === own && handle(event));
  } catch (error) {
    if (page.stop === own) failed(error);
  }
  if (page.stop !== own) return;
  page.stop = null;
  busy(false);
  changed();
}

function failed(error) {
  if (error.name === "AbortError") say("Stopped. The readout needs finished texts.");
  else {
    say("Nothing more was written.");
    complain(error instanceof Refused ? error.message : "The connection was lost; is the server still running?");
  }
}

const HANDLERS = {
  queued: ({ place }) => say(`Waiting for the model, place ${place} in the queue.`),
  started: () => say("Writing…"),
  prompt: ({ tokens, acts }) => page.texts.forEach((text) => text.opening(tokens, acts)),
  step: ({ tokens, acts }) => page.texts.forEach((text, k) => {
    if (acts[k] !== null) text.known(acts[k].values);
    if (tokens[k] !== null) text.add(tokens[k]);
  }),
  written: (event) => {
    page.texts.forEach((text, k) => text.more(event.rest[k]));
    page.summary = summary(event);
    say("Reading the texts…");
  },
  readout: ({ bars, why }) => {
    if (bars) page.bars.draw(bars);
    else get("bars-note").textContent = `There is no readout of these texts: ${why}`;
  },
  done: () => say(page.summary),
  error: ({ message }) => {
    say("Nothing more was written.");
    complain(message);
  },
};

function handle(event) {
  HANDLERS[event.type]?.(event);
}

function summary({ n_tokens: n, seconds, share }) {
  const edit = share > 0 ? `The edit was ${(100 * share).toFixed(0)} % as long as the residual, on average.` : "Nothing was edited.";
  return `Done: ${n[0]} and ${n[1]} tokens in ${seconds.toFixed(1)} s. ${edit}`;
}

start();
