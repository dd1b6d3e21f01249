// What the page does, as lines of Python that give the same steered text.

const quoted = (text) => JSON.stringify(text);
const tuple = (items) => `(${items.join(", ")}${items.length === 1 ? "," : ""})`;

export function python(state, known, features) {
  const adds = state.features.filter((f) => f.mode === "add" && f.value !== 0);
  const clamps = state.features.filter((f) => f.mode === "clamp");
  const edits = [];
  if (clamps.length) {
    const values = clamps.map((f) => Number((f.value * (features.card(f.feature).max_active ?? 0)).toFixed(4)));
    edits.push(`al.Clamp(${tuple(clamps.map((f) => f.feature))}, ${tuple(values)})`);
  }
  if (adds.length) edits.push(`al.AddLatents(${tuple(adds.map((f) => f.feature))}, ${tuple(adds.map((f) => f.value))})`);
  const call = `lm.generate(
    ${quoted(state.prompt)},
    max_new_tokens=${state.tokens}, temperature=${state.temperature}, top_p=${known.limits.top_p}, seed=0, streams=[${state.seed}],
)`;
  const start = `import affectlens as al

lm = al.load_model(${quoted(known.model)})
sae = al.load_sae("RUN/sae")  # the run's folder
`;
  if (!edits.length) return `${start}print(${call})`;
  return `${start}with al.applied(lm, sae, [${edits.join(", ")}]):
    print(${call.replaceAll("\n", "\n    ")})`;
}
