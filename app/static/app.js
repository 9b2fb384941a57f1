// What works better with JavaScript. Hooks are data-* attributes only; every page works without this file.
"use strict";

// Copy: the button appears only where it can work.
function offerCopying(root) {
  for (const button of root.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard && !document.execCommand;
  }
}

async function copy(button) {
  const field = document.getElementById(button.dataset.copy);
  const words = button.textContent;
  field.select();
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(field.value);
  } else {
    document.execCommand("copy"); // plain http in a lab has no clipboard API
  }
  button.textContent = button.dataset.done;
  setTimeout(() => { button.textContent = words; }, 2000);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) {
    copy(button);
  }
});

// Keys: a link that names one is followed by it, from anywhere but a field. They can be switched off.
const KEYS = "keys-are-off";

document.addEventListener("keydown", (event) => {
  const taken = event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || localStorage.getItem(KEYS);
  if (!taken && !event.target.closest("input, select, textarea, dialog, .xterm")) {
    document.querySelector(`a[aria-keyshortcuts="${CSS.escape(event.key)}"]`)?.click();
  }
});

function offerKeys(button) {
  const show = () => { button.textContent = localStorage.getItem(KEYS) ? button.dataset.on : button.dataset.off; };
  button.addEventListener("click", () => {
    if (localStorage.getItem(KEYS)) localStorage.removeItem(KEYS);
    else localStorage.setItem(KEYS, "1");
    show();
  });
  show();
  button.hidden = false;
}

// The time zone: the browser's is offered where it is not the one that pages are in.
function offerZone(root) {
  const hint = root.querySelector("[data-zone]");
  const choices = hint && document.getElementById(hint.dataset.zone);
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const known = choices && [...choices.options].some((option) => option.value === zone);
  if (known && zone !== (choices.value || hint.dataset.lab)) {
    const button = hint.querySelector("button");
    hint.querySelector("span").textContent = zone;
    button.addEventListener("click", () => {
      choices.value = zone;
      hint.hidden = true;
      choices.focus();
    });
    hint.hidden = false;
  }
}

// Focus: to what the server marks (an error summary, the line about what was just done).
function focusMarked(root) {
  const marked = root.matches?.("[data-focus]") ? root : root.querySelector("[data-focus]");
  if (marked) {
    marked.focus();
  }
}

// The same form is not sent twice by an impatient click.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || event.defaultPrevented) {
    return;
  }
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "1";
  setTimeout(() => { delete form.dataset.sent; }, 4000);
});
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) {
    delete form.dataset.sent;
  }
});

// What renews itself by the clock stands still while nobody looks, and from "Pause" until "Go on".
let paused = false;
for (const button of document.querySelectorAll("[data-pause]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    [button.textContent, button.dataset.other] = [button.dataset.other, button.textContent];
  });
}
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target.matches("[data-live]") && (paused || document.hidden)) {
    event.preventDefault();
  }
});

// htmx: what renews itself never takes a button away between the finger's down and up: the click would be lost. It
// comes round again.
document.addEventListener("htmx:beforeSwap", (event) => {
  const { requestConfig, target } = event.detail;
  if (requestConfig.verb === "get" && !requestConfig.triggeringEvent && target.querySelector("a:active, button:active, summary:active, label:active")) {
    event.detail.shouldSwap = false;
  }
});

// htmx: when what had the focus is swapped away (in the target, or out of band), its successor gets it, or else the
// part that came in its place: never the page's top. Who had it elsewhere, or nowhere, is left alone: polling must not
// move anybody.
let lost = null;
document.addEventListener("htmx:beforeSwap", () => {
  const active = document.activeElement;
  lost = active && active !== document.body
    ? {
      element: active, tag: active.tagName, text: active.textContent, href: active.getAttribute("href"),
      part: active.parentElement.closest("[id]")?.id,
    }
    : null;
});
document.addEventListener("htmx:afterSettle", (event) => {
  offerCopying(event.target);
  focusMarked(event.target);
  if (lost && !lost.element.isConnected && (document.activeElement || document.body) === document.body) {
    heirOf(lost, event.target).focus({ preventScroll: true });
  }
  lost = null;
});

function heirOf({ element, tag, text, href, part }, target) {
  const same = element.id && document.getElementById(element.id);
  const place = (part && document.getElementById(part)) || target;
  const others = [...place.getElementsByTagName(tag)];
  const alike = others.find((other) => href && other.getAttribute("href") === href)
    || others.find((other) => text.trim() && other.textContent === text);
  const heir = same || alike || place;
  if (!heir.matches("a[href], button, input, select, textarea, summary, [tabindex]")) {
    heir.tabIndex = -1;
  }
  return heir;
}

// htmx: nothing that failed is swapped in; a sentence says so instead, until something works again.
const alertBox = document.getElementById("alert");
function say(text) {
  alertBox.textContent = text;
  alertBox.hidden = false;
}
document.addEventListener("htmx:sendError", () => say(alertBox.dataset.lost));
document.addEventListener("htmx:timeout", () => say(alertBox.dataset.lost));
document.addEventListener("htmx:responseError", () => say(alertBox.dataset.failed));
document.addEventListener("htmx:afterOnLoad", (event) => {
  if (event.detail.successful) {
    alertBox.hidden = true;
  }
});

offerCopying(document);
offerZone(document);
document.querySelectorAll("[data-keys]").forEach(offerKeys);
focusMarked(document);
