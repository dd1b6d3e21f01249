(() => {
  "use strict";
  const pages = Array.from(document.querySelectorAll("section.fp"));
  if (pages.length === 0) { return; }
  const fold = (page) => page.querySelector("details");
  const summary = (page) => page.querySelector("summary");

  const show = (page, focus) => {
    fold(page).open = true;
    page.scrollIntoView({ block: "start" });
    if (focus) { summary(page).focus({ preventScroll: true }); }
  };
  const named = () => {
    const page = location.hash.startsWith("#feature-") && document.getElementById(location.hash.slice(1));
    return page && page.matches("section.fp") ? page : null;
  };
  const follow = (focus) => {
    const page = named();
    if (page) { show(page, focus); }
  };
  addEventListener("hashchange", () => follow(true));
  // A link to the page that the address already names changes no hash.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#feature-']");
    if (link && link.getAttribute("href") === location.hash) { follow(true); }
  });
  follow(false);

  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input, textarea, select")) { return; }
    const page = event.target.closest("section.fp");
    const step = { n: 1, p: -1 }[event.key];
    if (!page || !step) { return; }
    const next = pages[pages.indexOf(page) + step];
    if (next) {
      event.preventDefault();
      history.replaceState(null, "", `#${next.id}`);
      show(next, true);
    }
  });

  const all = document.getElementById("fp-all");
  if (all) {
    all.addEventListener("click", () => {
      const open = all.getAttribute("aria-pressed") !== "true";
      all.setAttribute("aria-pressed", String(open));
      all.textContent = open ? "Close all" : "Open all";
      pages.forEach((page) => { fold(page).open = open; });
    });
  }

  // Touch and keyboard have no tooltips: a tapped token says its activation where the peak stands.
  document.addEventListener("click", (event) => {
    const token = event.target.closest(".fp-places mark");
    if (!token) { return; }
    const said = token.closest("li").lastElementChild;
    said.textContent = `“${token.textContent.trim()}” ${token.title}`;
  });

  const status = document.getElementById("fp-status");
  const copy = async (pre, button) => {
    let done = false;
    try {
      await navigator.clipboard.writeText(pre.textContent);
      done = true;
    } catch {
      // Where the page may not write to the clipboard the code is marked, ready for Ctrl+C.
      getSelection().selectAllChildren(pre);
      pre.focus();
    }
    button.textContent = done ? "Copied" : "Marked: press Ctrl+C";
    if (status) { status.textContent = done ? "Code copied." : "Code marked."; }
    setTimeout(() => { button.textContent = "Copy"; }, 2500);
  };
  const equip = (page) => {
    page.querySelectorAll(".fp-code").forEach((box) => {
      if (box.querySelector("button")) { return; }
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Copy";
      button.setAttribute("aria-label", `Copy: ${box.querySelector("h5").textContent}`);
      button.addEventListener("click", () => copy(box.querySelector("pre"), button));
      box.querySelector("h5").after(button);
    });
  };
  pages.forEach((page) => {
    if (fold(page).open) { equip(page); }
    fold(page).addEventListener("toggle", () => equip(page));
  });
})();
