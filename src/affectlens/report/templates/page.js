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
  const wanted = document.getElementById("wanted");
  const status = document.getElementById("filter-status");
  const filter = () => {
    const text = wanted.value.trim().toLowerCase();
    let shown = 0;
    all("details.contrast").forEach((block) => {
      let here = 0;
      all("tbody", block).forEach((body) => {
        const match = (!onlyConfirmed.checked || body.dataset.confirmed === "yes") &&
          (text === "" || body.textContent.toLowerCase().includes(text));
        body.hidden = !match;
        here += match ? 1 : 0;
      });
      if (text !== "") { block.open = here > 0; }
      shown += here;
    });
    status.textContent = `${shown} shown`;
  };
  if (wanted) {
    wanted.addEventListener("input", filter);
    onlyConfirmed.addEventListener("change", filter);
  }
  let closed = [];
  addEventListener("beforeprint", () => {
    // Tables that fill dozens of pages stay closed on paper; they lie beside the page as CSV.
    closed = all("details:not([open]):not(.quiet)");
    closed.forEach((node) => { node.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((node) => { node.open = false; }));
})();
