"use strict";
// Follows the page's own URL, and puts what is new in place.
(() => {
  const $ = (what, root = document) => root.querySelector(what);
  const all = (what, root = document) => [...root.querySelectorAll(what)];
  const say = $("#say"), main = $("main");
  let timer, running, busy, failures = 0, said = 0;

  function tell(text) {
    if (say.textContent === text) return;
    say.textContent = text;
    said = Date.now();
  }

  async function refresh() {
    if (running) return;
    clearTimeout(timer);
    if (!document.hidden && !busy) {
      running = true;
      try {
        const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout?.(8000) });
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        if (!answer.ok || !$("#where", page)) throw new Error();
        if (!busy) update(page);
        failures = 0;
      } catch {
        if (++failures > 1 && !busy) tell("Not connected. We keep trying.");
      }
      running = false;
    }
    wait();
  }

  function wait() {
    const every = $("#where").dataset.every;
    timer = setTimeout(refresh, 1000 * (failures ? Math.min(every, 5) : every));
  }

  function update(page) {
    const state = root => $("#where", root).dataset.state + $(".state", root).textContent;
    const radios = root => all("[name=exit]", root).map(el => el.value).join();
    const changed = state(page) !== state(document);
    if (changed || radios(page) !== radios(document)) replace(page);
    else renew(page);
    if (changed) tell($(".state").textContent);
    else if (failures > 1 || Date.now() - said > 6000) tell("");
  }

  // All of <main> but an alert. What the user chose, typed or focused stays.
  function replace(page) {
    const focus = document.activeElement;
    const mine = all("input:not([type=hidden])", main)
      .filter(el => el.type === "radio" ? el.checked && !el.defaultChecked : el.value !== el.defaultValue);
    for (const el of all("main > :not([role=alert])")) el.remove();
    main.append(...all("main > :not([role=alert])", page));
    for (const el of all("input:not(:disabled)", main)) {
      const old = mine.find(old => old.name === el.name && (el.type !== "radio" || old.value === el.value));
      if (old) [el.value, el.checked] = [old.value, old.checked];
    }
    if (!focus || focus.isConnected) return;
    const same = all(focus.localName + ":not(:disabled)", main).find(el => el.textContent === focus.textContent &&
      ["name", "value", "href"].every(key => el[key] === focus[key]));
    (same || $("h1")).focus({ preventScroll: true });
  }

  // Only the parts that are marked, and what is known of each server.
  function renew(page) {
    const focus = document.activeElement;
    $("#where").dataset.every = $("#where", page).dataset.every;
    for (const part of all("[data-live]", page)) {
      const old = document.getElementById(part.id);
      if (old.innerHTML !== part.innerHTML && !old.contains(focus)) old.replaceChildren(...part.childNodes);
    }
    const fresh = all("[name=exit]", page);
    all("[name=exit]").forEach((old, n) => {
      $("i", old.parentNode).textContent = $("i", fresh[n].parentNode).textContent;
      old.disabled = fresh[n].disabled && !old.checked && old !== focus;
    });
    for (const old of all("[name=token]")) old.value = $("[name=token]", page).value;
  }

  // One submit at a time.
  function ready() {
    if (!busy) return;
    clearTimeout(busy.timer);
    busy.button.replaceChildren(...busy.text);
    busy.button.removeAttribute("aria-disabled");
    busy = null;
    tell("");
  }
  document.addEventListener("submit", event => {
    if (busy) return event.preventDefault();
    const button = event.submitter || $("button", event.target);
    busy = { button, text: [...button.childNodes], timer: setTimeout(ready, 30000) };
    button.setAttribute("aria-disabled", "true");
    button.textContent = "Working...";
    tell("Working...");
  });

  addEventListener("pageshow", event => { ready(); if (event.persisted) refresh(); });
  document.addEventListener("visibilitychange", refresh);
  const alert = $("main > [role=alert]");
  if (alert) alert.focus();
  wait();
})();
