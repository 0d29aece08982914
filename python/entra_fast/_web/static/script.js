"use strict";
// Comfort only: every page works without this script.

// The answer of response_mode=form_post goes to the application; without a script, a button sends it.
document.querySelector("form[data-submit]")?.submit();

// A button beside each block that is worth copying.
async function copy(block) {
  const text = block.textContent;
  // Browsers have a clipboard for pages of this machine and of https only.
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  getSelection().selectAllChildren(block);
  if (!document.execCommand("copy")) throw new Error("not allowed");
}
for (const block of document.querySelectorAll("pre.copy")) {
  const button = document.createElement("button");
  const name = block.getAttribute("aria-label");
  button.type = "button";
  button.className = "secondary small copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy: ${name}`);
  const said = document.createElement("span");
  said.className = "skip";
  said.setAttribute("role", "status");
  button.addEventListener("click", async () => {
    try {
      await copy(block);
      button.textContent = "Copied";
      said.textContent = `${name} copied`;
    } catch {
      button.textContent = "Select and copy";
    }
    setTimeout(() => { button.textContent = "Copy"; said.textContent = ""; }, 2000);
  });
  const frame = document.createElement("div");
  frame.className = "copied";
  block.replaceWith(frame);
  frame.append(block, button, said);
}

// The log: fetch the same page again when something has happened, and take its entries.
const live = document.querySelector("[data-live]");
if (live) {
  let busy = false, again = false;
  const refresh = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const html = await (await fetch(location.href, { headers: { Accept: "text/html" } })).text();
      const fresh = new DOMParser().parseFromString(html, "text/html").getElementById("entries");
      const shown = document.getElementById("entries");
      // A reader in the middle of the list keeps it as it is.
      if (fresh && !shown.contains(document.activeElement)) shown.replaceWith(fresh);
      live.textContent = "Live: new requests appear here.";
    } catch {
      live.textContent = "Not connected. Trying again.";
    }
    await new Promise((resolve) => { setTimeout(resolve, 200); }); // a burst of requests is one update
    busy = false;
    if (again) { again = false; refresh(); }
  };
  const events = new EventSource(live.dataset.live);
  events.addEventListener("message", refresh);
  // Also after a reconnection: what happened in the meantime is on the page.
  events.addEventListener("open", refresh);
  events.addEventListener("error", () => { live.textContent = "Not connected. Trying again."; });
}

// The access map: the rules of the application under the pointer stand out.
const map = document.querySelector("svg.map");
if (map) {
  const mark = (event) => {
    const node = event.target.closest("[data-node]")?.dataset.node;
    map.classList.toggle("chosen", node !== undefined);
    for (const edge of map.querySelectorAll("[data-ends]")) {
      edge.classList.toggle("near", edge.dataset.ends.split(" ").includes(node));
    }
  };
  for (const kind of ["mouseover", "focusin", "mouseleave", "focusout"]) map.addEventListener(kind, mark);
}
