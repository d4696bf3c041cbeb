/* Refresh a page of locks in place, and select all of a page. Without this script the page works,
   too: there is a link to refresh it. Texts are the server's, which knows the language. */
(() => {
  "use strict";

  const controls = document.querySelector("[data-distlock-refresh]");
  const live = document.getElementById("distlock-live");
  if (!controls || !live) return;

  const failure = controls.querySelector(".distlock-failure");
  const announcement = controls.querySelector("[role=status]");
  const asOf = controls.querySelector("time");
  const pause = controls.querySelector("button");
  const interval = Number(controls.dataset.distlockRefresh) * 1000;
  const LONGEST = 60000;
  let delay = interval;
  let timer = 0;
  let running = null;

  /* Change an element into the other one, and keep what the user has done to it: an open menu, the
     text in a field. Rows are the same if their keys are. Nothing is moved, since that
     would lose the focus: locks stay in their order. */
  function update(from, to) {
    if (from.hasAttribute("data-keep")) return;
    for (const { name } of [...from.attributes]) {
      if (!to.hasAttribute(name) && name !== "open") from.removeAttribute(name);
    }
    for (const { name, value } of to.attributes) {
      if (from.getAttribute(name) !== value && name !== "open") from.setAttribute(name, value);
    }
    updateChildren(from, to);
  }

  function updateChildren(from, to) {
    let at = from.firstChild;
    for (const wanted of [...to.childNodes]) {
      const same = find(at, wanted);
      while (same && at !== same) at = remove(at);
      if (!same) {
        from.insertBefore(document.importNode(wanted, true), at);
        continue;
      }
      if (same.nodeType === Node.ELEMENT_NODE) update(same, wanted);
      else if (same.nodeValue !== wanted.nodeValue) same.nodeValue = wanted.nodeValue;
      at = same.nextSibling;
    }
    while (at) at = remove(at);
  }

  const kind = (node) => `${node.nodeName} ${node.className ?? ""} ${node.id ?? ""}`;

  /* A text is the next node or a new one: to look further would drop the elements before it. */
  function find(at, wanted) {
    if (wanted.nodeType === Node.TEXT_NODE) return at?.nodeType === Node.TEXT_NODE ? at : null;
    const key = wanted.dataset?.key;
    for (let node = at; node; node = node.nextSibling) {
      if (key === undefined ? kind(node) === kind(wanted) : node.dataset?.key === key) return node;
    }
    return null;
  }

  function remove(node) {
    const next = node.nextSibling;
    node.remove();
    return next;
  }

  /* If what had the focus is gone, focus what is nearest: the row that has taken its place. */
  function keepFocus(change) {
    const focused = document.activeElement;
    const row = focused?.closest?.("[data-key]");
    const place = row ? [...row.parentNode.children].indexOf(row) : -1;
    const isTick = focused?.type === "checkbox";
    const wasInside = live.contains(focused);
    change();
    if (!wasInside || focused.isConnected) return;
    const rows = live.querySelectorAll("[data-key]");
    const nearest = rows[Math.min(place, rows.length - 1)];
    const next = nearest?.querySelector(isTick ? "input" : "a") ?? nearest?.querySelector("a");
    (next ?? pause).focus();
  }

  function show(fresh) {
    const before = live.dataset.summary;
    keepFocus(() => update(live, fresh));
    for (const tick of ticks()) tick.checked = selected.has(tick.value);
    count();
    failure.hidden = true;
    asOf.textContent = live.dataset.asOf;
    controls.dataset.refreshes = Number(controls.dataset.refreshes ?? 0) + 1;
    if (live.dataset.summary !== before) announcement.textContent = live.dataset.summary;
  }

  function fail(text) {
    const told = text.replace("{time}", live.dataset.asOf);
    if (failure.hidden) announcement.textContent = told;
    failure.textContent = told;
    failure.hidden = false;
  }

  async function refresh() {
    clearTimeout(timer);
    running?.abort();
    const request = (running = new AbortController());
    const timeout = setTimeout(() => request.abort(), LONGEST);
    const began = performance.now();
    try {
      const response = await fetch(location.href, {
        headers: { "X-Distlock-Refresh": "1" },
        cache: "no-store",
        signal: request.signal,
      });
      const text = await response.text();
      if (request !== running || isPaused()) return;
      const fresh = new DOMParser()
        .parseFromString(text, "text/html")
        .getElementById("distlock-live");
      if (response.ok && fresh) {
        show(fresh);
        delay = Math.max(interval, 5 * (performance.now() - began));
      } else {
        const isSignedOut = response.redirected || response.status === 403;
        fail(isSignedOut ? controls.dataset.signedOut : controls.dataset.failed);
        delay = Math.min(2 * delay, LONGEST);
      }
    } catch {
      if (request !== running || isPaused()) return;
      fail(controls.dataset.failed);
      delay = Math.min(2 * delay, LONGEST);
    } finally {
      clearTimeout(timeout);
    }
    timer = setTimeout(refresh, delay);
  }

  const isPaused = () => document.hidden || pause.getAttribute("aria-pressed") === "true";

  function pauseOrGoOn() {
    clearTimeout(timer);
    if (isPaused()) running?.abort();
    else refresh();
  }

  /* Which locks are selected, as they were granted: also while the store doesn't answer. */
  const selected = new Set();
  const ticks = () => [...live.querySelectorAll("input[name=selected][type=checkbox]")];

  function remember() {
    for (const tick of ticks()) {
      if (tick.checked) selected.add(tick.value);
      else selected.delete(tick.value);
    }
    count();
  }

  function count() {
    const all = live.querySelector(".distlock-select-all");
    if (!all) return;
    const number = ticks().filter((tick) => tick.checked).length;
    const box = all.querySelector("input");
    all.hidden = false;
    box.checked = number > 0 && number === ticks().length;
    box.indeterminate = number > 0 && !box.checked;
    live.querySelector(".distlock-count").textContent = number ? `(${number})` : "";
  }

  live.addEventListener("change", (event) => {
    if (event.target.closest(".distlock-select-all")) {
      for (const tick of ticks()) tick.checked = event.target.checked;
    }
    remember();
  });
  pause.addEventListener("click", () => {
    const isPressed = pause.getAttribute("aria-pressed") === "true";
    pause.setAttribute("aria-pressed", String(!isPressed));
    pauseOrGoOn();
  });
  document.addEventListener("visibilitychange", pauseOrGoOn);
  pause.hidden = false;
  remember();
  if (!isPaused()) timer = setTimeout(refresh, interval);
})();
