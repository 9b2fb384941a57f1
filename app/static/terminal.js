// A machine's terminal: a ticket from the portal, then a WebSocket to the host's agent.
"use strict";

(() => {
  const nonce = document.currentScript.nonce;
  // xterm.js makes style elements and style attributes; the page's policy wants a nonce on the first and allows the
  // second only through the object model.
  const make = document.createElement.bind(document);
  document.createElement = (name, ...rest) => {
    const made = make(name, ...rest);
    if (String(name).toLowerCase() === "style") {
      made.nonce = nonce;
    }
    return made;
  };
  const set = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function setAttribute(name, value) {
    if (name === "style") {
      this.style.cssText = value;
    } else {
      set.call(this, name, value);
    }
  };

  const form = document.getElementById("terminal-form");
  const state = document.getElementById("terminal-state");
  const again = document.getElementById("terminal-again");
  const place = document.getElementById("terminal");
  const words = form.dataset;
  const shell = new Terminal({ cursorBlink: true, fontSize: 14, scrollback: 5000, screenReaderMode: true, linkHandler: null });
  const fit = new FitAddon.FitAddon();
  let socket = null;

  function say(code, over) {
    state.textContent = words[code] || words.lost;
    again.hidden = !over;
  }

  function size() {
    return { columns: shell.cols, rows: shell.rows };
  }

  function tell(what) {
    if (socket?.readyState === WebSocket.OPEN) {
      socket.send(JSON.stringify(what));
    }
  }

  async function ticket() {
    const answer = await fetch(form.action, { method: "POST", body: new FormData(form), headers: { Accept: "application/json" } });
    if (!answer.ok) {
      throw new Error(String(answer.status));
    }
    return (await answer.json()).ticket;
  }

  function hear(message) {
    if (typeof message.data === "string") {
      const told = JSON.parse(message.data);
      say(told.state, told.state !== "open");
      if (told.state === "open") {
        shell.focus();
      }
      return;
    }
    const bytes = new Uint8Array(message.data);
    shell.write(bytes, () => tell({ shown: bytes.length })); // the machine waits for what is not shown yet
  }

  async function open() {
    say("opening", false);
    shell.reset();
    let key = "";
    try {
      key = await ticket();
    } catch {
      say("refused", true);
      return;
    }
    socket = new WebSocket(words.url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => tell({ ticket: key, ...size() });
    socket.onmessage = hear;
    socket.onclose = () => {
      socket = null;
      if (again.hidden) {
        say("lost", true);
      }
    };
  }

  function type(text) {
    if (socket?.readyState !== WebSocket.OPEN) {
      return;
    }
    const bytes = new TextEncoder().encode(text);
    for (let at = 0; at < bytes.length; at += 32768) { // a frame has 64 KiB at most
      socket.send(bytes.slice(at, at + 32768));
    }
  }

  shell.loadAddon(fit);
  shell.open(place);
  fit.fit();
  shell.onData(type);
  shell.onResize(() => tell(size()));
  shell.attachCustomKeyEventHandler((event) => {
    if (event.ctrlKey && event.shiftKey && event.code === "KeyQ") {
      document.getElementById("terminal-back").focus();
      return false;
    }
    return true;
  });
  window.addEventListener("resize", () => fit.fit());
  again.addEventListener("click", open);
  open();
})();
