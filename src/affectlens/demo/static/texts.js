// The two texts: tokens shaded by activation, one at a time inspected by mouse or arrow keys.
// Model text enters the page as text nodes only; what would be invisible is spelled out.

// C0 and C1 controls but tab and newline, marks of direction, invisible fillers, lone surrogates.
const HIDDEN = /([\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff])/;

const NEAR_END = 40;

export function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

const spelled = (char) => `U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

export function drawn(text) {
  return text.split(HIDDEN).map((part) => (HIDDEN.test(part) ? `⟨${spelled(part)}⟩` : part)).join("");
}

function fill(node, text) {
  for (const part of text.split(HIDDEN)) {
    if (part === "") continue;
    node.append(HIDDEN.test(part) ? element("span", spelled(part), "code") : part);
  }
}

export class Text {
  constructor(side, describe, level) {
    this.box = document.getElementById(`text-${side}`);
    this.detail = document.getElementById(`detail-${side}`);
    this.describe = describe;
    this.level = level;
    this.clear();
    this.box.addEventListener("pointerover", (event) => {
      const span = event.target.closest(".tok");
      if (span) this.inspect(this.spans.indexOf(span));
    });
    this.box.addEventListener("keydown", (event) => this.step(event));
  }

  clear() {
    this.spans = [];
    this.tokens = [];
    this.here = -1;
    this.read = 0;
    this.box.replaceChildren();
    this.detail.textContent = "";
  }

  opening(texts, acts) {
    texts.forEach((text, k) => this.add(text, "tok opening", acts[k]));
    this.read = this.tokens.length;
  }

  add(text, kind = "tok", values = undefined) {
    const span = element("span", "", kind);
    fill(span, text);
    this.tokens.push({ text, values });
    this.spans.push(span);
    const { box } = this;
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_END;
    box.append(span);
    if (atEnd) box.scrollTop = box.scrollHeight;
    this.shade(this.tokens.length - 1);
  }

  more(text) {
    if (text && this.spans.length) fill(this.spans.at(-1), text);
  }

  known(values) {
    if (this.read >= this.tokens.length) return;
    this.tokens[this.read].values = values;
    this.shade(this.read);
    this.read += 1;
  }

  shade(index) {
    const token = this.tokens[index];
    const level = token.values ? this.level(token.values) : 0;
    const span = this.spans[index];
    span.style.setProperty("--a", String(0.55 * Math.min(1, Math.max(0, level))));
    span.title = this.describe(token);
    if (index === this.here) this.detail.textContent = span.title;
  }

  reshade() {
    this.tokens.forEach((_, index) => this.shade(index));
  }

  inspect(index) {
    if (index < 0 || index >= this.spans.length) return;
    this.spans[this.here]?.classList.remove("here");
    this.here = index;
    this.spans[index].classList.add("here");
    this.spans[index].scrollIntoView({ block: "nearest" });
    this.detail.textContent = this.spans[index].title;
  }

  step(event) {
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (way === undefined || !this.spans.length) return;
    event.preventDefault();
    this.inspect(Math.min(this.spans.length - 1, Math.max(0, this.here + way)));
  }
}
