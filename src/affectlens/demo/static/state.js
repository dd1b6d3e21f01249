// What is set on the page, and its form in the address. Nothing of the address is trusted.

const MODES = ["add", "clamp"];

export function number(text, low, high, fallback) {
  const value = text === null || String(text).trim() === "" ? NaN : Number(text);
  return Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : fallback;
}

export function whole(text, low, high, fallback) {
  return Math.round(number(text, low, high, fallback));
}

export function range(mode, limits) {
  return mode === "add" ? [-limits.max_share, limits.max_share] : [0, limits.max_clamp];
}

export function fresh(openings) {
  return { prompt: openings[0] ?? "", features: [], temperature: 0.8, seed: 0, tokens: 60 };
}

export function written(state, sae) {
  const query = new URLSearchParams();
  query.set("prompt", state.prompt);
  if (state.features.length) {
    query.set("f", state.features.map((f) => `${f.feature}:${f.mode}:${f.value}`).join(","));
    query.set("sae", sae.slice(0, 12));
  }
  query.set("t", String(state.temperature));
  query.set("seed", String(state.seed));
  query.set("n", String(state.tokens));
  return `?${query}`;
}

// Returns the state, and what of the address was left out, in words.
export function read(search, known) {
  const query = new URLSearchParams(search);
  const { limits, openings } = known;
  const state = fresh(openings);
  const left = [];
  const prompt = query.get("prompt");
  if (prompt !== null) state.prompt = prompt.slice(0, limits.max_prompt_chars);
  state.temperature = number(query.get("t"), 0, limits.max_temperature, state.temperature);
  state.seed = whole(query.get("seed"), 0, limits.max_seed, state.seed);
  state.tokens = whole(query.get("n"), 1, limits.max_tokens, state.tokens);
  const listed = (query.get("f") ?? "").split(",").filter((part) => part !== "");
  const sae = query.get("sae") ?? "";
  if (listed.length && !(sae && known.sae.startsWith(sae))) {
    left.push("its features are of another SAE, where the numbers mean something else");
    return [state, left];
  }
  for (const part of listed) {
    const feature = parsed(part, known);
    const twice = feature && state.features.some((f) => f.feature === feature.feature);
    if (!feature || twice || state.features.length >= limits.max_features) {
      left.push(`“${part.slice(0, 30)}” is no feature that can be turned`);
    } else {
      state.features.push(feature);
    }
  }
  return [state, left];
}

function parsed(part, known) {
  const match = /^(\d{1,9}):([a-z]+):(-?\d+(?:\.\d+)?)$/.exec(part);
  if (!match || !MODES.includes(match[2]) || Number(match[1]) >= known.d_sae) return null;
  const [low, high] = range(match[2], known.limits);
  return { feature: Number(match[1]), mode: match[2], value: number(match[3], low, high, 0) };
}
