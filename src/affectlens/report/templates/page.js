(() => {
  "use strict";
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  all("[data-needs-script]").forEach((node) => { node.hidden = false; });

  const sort = (table, index, button) => {
    const down = button.getAttribute("aria-sort") !== "descending";
    all("th", table).forEach((th) => th.removeAttribute("aria-sort"));
    all("th button", table).forEach((b) => b.removeAttribute("aria-sort"));
    button.setAttribute("aria-sort", down ? "descending" : "ascending");
    button.closest("th").setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (body) => {
      const number = parseFloat(body.dataset.keys.split(" ")[index]);
      return Number.isNaN(number) ? -Infinity : number;
    };
    const bodies = all("tbody", table).sort((a, b) => (down ? value(b) - value(a) : value(a) - value(b)));
    bodies.forEach((body) => table.append(body));
  };
  all("table.features").forEach((table) => {
    all("th button", table).forEach((button) => {
      button.addEventListener("click", () => sort(table, Number(button.dataset.key), button));
    });
  });

  const onlyConfirmed = document.getElementById("only-confirmed");
  const ofEmotion = document.getElementById("of-emotion");
  const ofKind = document.getElementById("of-kind");
  const wanted = document.getElementById("wanted");
  const status = document.getElementById("filter-status");
  const filter = () => {
    const text = wanted.value.trim().toLowerCase();
    let shown = 0;
    all("#features details.contrast").forEach((block) => {
      let here = 0;
      const outside = ofEmotion.value !== "" && block.dataset.contrast !== ofEmotion.value;
      all("tbody", block).forEach((body) => {
        const match = !outside && (!onlyConfirmed.checked || body.dataset.confirmed === "yes") &&
          (!ofKind || ofKind.value === "" || body.dataset.kind === ofKind.value) &&
          (text === "" || body.textContent.toLowerCase().includes(text));
        body.hidden = !match;
        here += match ? 1 : 0;
      });
      const narrowed = text !== "" || ofEmotion.value !== "" || (ofKind && ofKind.value !== "");
      block.hidden = narrowed && here === 0;
      if (narrowed && here > 0) { block.open = true; }
      shown += here;
    });
    status.textContent = `${shown} shown`;
  };
  if (wanted) {
    wanted.addEventListener("input", filter);
    [onlyConfirmed, ofEmotion, ofKind].forEach((field) => field && field.addEventListener("change", filter));
  }
  const links = new Map(all("#contents a").map((link) => [link.getAttribute("href").slice(1), link]));
  const here = new IntersectionObserver((entries) => {
    entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id).setAttribute("aria-current", "true");
    });
  }, { rootMargin: "-15% 0px -80% 0px" });
  all("main > section[id]").filter((part) => links.has(part.id)).forEach((part) => here.observe(part));
  // A folded part opens when a link leads into it.
  const unfold = () => {
    const part = location.hash && document.getElementById(location.hash.slice(1));
    for (let fold = part && part.closest("details"); fold; fold = fold.parentElement.closest("details")) { fold.open = true; }
  };
  addEventListener("hashchange", unfold);
  unfold();

  let closed = [];
  addEventListener("beforeprint", () => {
    // Tables that fill dozens of pages stay closed on paper; they lie beside the page as CSV.
    closed = all("details:not([open]):not(.quiet)");
    closed.forEach((node) => { node.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((node) => { node.open = false; }));
})();
