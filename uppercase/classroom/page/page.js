// The page: what the server tells, put into text. Nothing that came from the network becomes
// markup: all of it is set as textContent, and the page's policy forbids the other way.

import { Ladder, element, mark } from "./ladder.js";

const KEPT = 2000; // arrows in memory, of all clients, so that one client's can be picked out
const CLIENTS = 500; // clients in memory, as the service keeps them
const ROWS = 300; // clients in the table: more are counted in the totals only
const PATIENCE = 5000; // milliseconds until a line that was sent counts as unanswered
const GESTURE = 1000; // milliseconds for which a wheel, a finger or a key goes on scrolling
const RETRY = 4000; // milliseconds until a refused stream is tried again
const SILENCE = 25000; // milliseconds without the server's sign of life, which comes each 10 s
const COLUMNS = ["lost", "duplicated", "corrupted", "delayed", "reordered", "dropped"];
const WELL = ["closed finished", "closed answered"];

const at = (id) => document.getElementById(id);
const ladder = new Ladder(at("rows"), at("arrows"));
const page = { you: "", edition: 0, services: [], counts: [], open: 0, only: "", follows: true, fresh: 0, mine: new Map(), sent: null };
let wanted = false;

const service = () => page.services[page.open];

/** A, B, ... Z, AA, AB: what a client is called across the hall. */
function tag(serial) {
  let letters = "";
  for (let rest = serial; rest > 0; rest = Math.floor((rest - 1) / 26)) {
    letters = String.fromCharCode(65 + ((rest - 1) % 26)) + letters;
  }
  return letters;
}

const number = new Intl.NumberFormat("en");

function listen() {
  const events = new EventSource("events");
  let timer = 0;
  const wait = (milliseconds) => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      lose();
      events.close();
      listen();
    }, milliseconds);
  };
  wait(SILENCE);
  for (const [name, act] of Object.entries({ hello: greet, frame: take, still: () => {} })) {
    events.addEventListener(name, (event) => {
      wait(SILENCE);
      act(JSON.parse(event.data));
    });
  }
  events.addEventListener("error", () => {
    lose();
    wait(RETRY);
  });
}

function lose() {
  say("state", "connection lost, trying again");
  at("state").dataset.state = "lost";
}

function greet(told) {
  // A server of another version has another script, and may tell other things.
  if (page.edition && told.edition !== page.edition) return location.reload();
  // Who was slow is greeted again, and is the client that it was; who comes back is a new one, and
  // may find other services.
  if (told.you !== page.you) Object.assign(page, { mine: new Map(), sent: null });
  Object.assign(page, { you: told.you, edition: told.edition, counts: told.counts, address: told.address, code: told.code });
  page.services = told.services.map((each) => ({ ...each, clientsBy: new Map(), arrowsBy: new Map(), pace: [] }));
  page.open = Math.min(page.open, page.services.length - 1);
  told.services.forEach((each, index) => merge(page.services[index], each));
  at("state").dataset.state = "live";
  show();
  announce(told.watchers);
}

function take(told) {
  told.services.forEach((each, index) => merge(page.services[index], each));
  page.fresh += told.services[page.open].arrows.length;
  announce(told.watchers);
  later();
}

function announce(watchers) {
  const draining = service().phase === "draining" ? ", the service is stopping" : "";
  // A status is read out, so it changes only where it matters.
  say("state", `live${draining}`);
  at("state").title = `${watchers} watching`;
}

function merge(known, told) {
  Object.assign(known, { totals: told.totals, addresses: told.addresses, phase: told.phase, met: told.met });
  known.pace.push([told.seen, told.shown]);
  known.pace = known.pace.slice(-20);
  for (const [serial, peer, state, ...counts] of told.clients) {
    known.clientsBy.delete(peer);
    known.clientsBy.set(peer, { serial, peer, state, counts });
  }
  bound(known.clientsBy, CLIENTS);
  for (const [serial, client, begin, end, way, nth, text, size, actions, words] of told.arrows) {
    known.arrowsBy.set(serial, { serial, client, begin, end, way, number: nth, text, size, actions, words });
  }
  bound(known.arrowsBy, KEPT);
  if (page.sent) tellFate();
}

/** Forget what came into a table first. */
function bound(table, most) {
  for (const key of table.keys()) {
    if (table.size <= most) break;
    table.delete(key);
  }
}

/** Draw once for all that came since the last picture. */
function later() {
  if (wanted) return;
  wanted = true;
  requestAnimationFrame(() => {
    wanted = false;
    // Whom the service has forgotten nobody can look at.
    if (!service().clientsBy.has(page.only)) page.only = "";
    showTotals();
    showClients();
    showSample();
    showKeyPlace();
    if (page.follows) showTimeline();
    else say("fresh", `${page.fresh} new`);
  });
}

function show() {
  showServices();
  showFacts();
  showColumns();
  at("send").hidden = !service().sends;
  at("key").hidden = !service().has_key;
  if (service().has_key) fetchKey();
  later();
}

function say(id, text) {
  const place = at(id);
  if (place.textContent !== text) place.textContent = text;
}

function showServices() {
  at("services").hidden = page.services.length < 2;
  at("services").replaceChildren(
    ...page.services.map((each, index) => {
      const button = element("button", "", each.name);
      button.type = "button";
      button.setAttribute("aria-pressed", index === page.open);
      button.addEventListener("click", () => {
        page.open = index;
        choose("");
        show();
        at("services").children[index].focus();
      });
      return button;
    }),
  );
}

function showFacts() {
  const lab = service().lab.map(([name, value]) => `${name} ${value.replaceAll("both:", "both ways ")}`);
  const facts = [
    [service().protocol, [service().addresses.map((each) => each.replace(/^\S+ /, "")).join(", ")]],
    ["transform", [service().transform]],
    ["lab", lab.length ? lab : ["off"]],
  ];
  at("facts").replaceChildren(
    ...facts.map(([name, values]) => {
      const group = element("div");
      const value = element("dd");
      value.append(...values.map((text) => element("span", name === "lab" ? "chip" : "", `${text} `)));
      group.append(element("dt", "", name), value);
      return group;
    }),
  );
  document.title = `${service().name}: live`;
}

function showTotals() {
  const totals = service().totals;
  const sum = (begins) =>
    Object.entries(totals).reduce((all, [name, count]) => all + (begins(name) ? count : 0), 0);
  let tiles;
  if (service().protocol === "UDP") {
    const lost = (totals["lab-request lost"] ?? 0) + (totals["lab-reply lost"] ?? 0);
    tiles = [
      ["received", totals.received],
      ["answered", totals.answered, share(totals.answered, totals.received)],
      ["lost by the lab", lost, share(lost, totals.received), "lost"],
      ["dropped for real", sum((name) => name.startsWith("dropped "))],
    ];
  } else {
    const ended = sum((name) => name.startsWith("closed "));
    const well = WELL.reduce((all, name) => all + (totals[name] ?? 0), 0);
    tiles = [
      ["connections", totals.opened ?? 0],
      ["open now", totals.connections_open],
      ["ended well", well],
      ["ended otherwise", ended - well + sum((name) => name.startsWith("refused "))],
    ];
  }
  const shown = JSON.stringify(tiles);
  if (at("totals").shown === shown) return;
  at("totals").shown = shown;
  at("totals").replaceChildren(
    ...tiles.map(([name, count, part, className]) => {
      const tile = element("div", count ? className ?? "" : "");
      tile.append(element("dt", "", name), element("dd", "", number.format(count)));
      if (part) tile.append(element("dd", "share", part));
      return tile;
    }),
  );
}

function share(part, whole) {
  return whole ? `${((100 * part) / whole).toFixed(1)} %` : "";
}

function showSample() {
  const pace = service().pace;
  const [seen, shown] = [0, 1].map((each) => pace.at(-1)[each] - pace[0][each]);
  const what = service().protocol === "UDP" ? "datagrams" : "events";
  const sampled = seen > shown;
  at("sample").toggleAttribute("data-sampled", sampled);
  say("sample", sampled ? `1 of ${Math.round(seen / Math.max(shown, 1)) || 1} ${what} drawn, all counted` : `all ${what} drawn`);
}

function showTimeline() {
  const all = [...service().arrowsBy.values()].filter((arrow) => !page.only || arrow.client === page.only);
  all.sort((a, b) => a.begin - b.begin || a.serial - b.serial);
  ladder.draw(all, service().began, (peer) => {
    const client = service().clientsBy.get(peer);
    return { tag: client ? tag(client.serial) : "?", mine: page.mine.get(page.open) === peer };
  });
  at("nothing").hidden = all.length > 0;
  if (!all.length) showNothing();
  const only = service().clientsBy.get(page.only);
  say("whose", only ? `client ${tag(only.serial)} (${page.only})` : "all clients");
  say("left-end", only ? `Client ${tag(only.serial)}` : "Clients");
  page.fresh = 0;
  say("fresh", "");
  at("timeline").scrollTop = at("timeline").scrollHeight;
}

function showNothing() {
  if (page.only) return say("nothing", "None of its arrows is among the last, which are kept.");
  const [, protocol, place] = (service().addresses[0] ?? "").match(/^(\S+) (.*)$/) ?? [];
  const option = { UDP: "-u ", TLS: "--tls ", UNIX: "--unix " }[protocol] ?? "";
  const code = element("code", "", `uppercase send ${option}${place ?? ""}`);
  at("nothing").replaceChildren("Nothing has come yet. To send something:", code);
}

function showColumns() {
  const heads = [["client", element("span", "", "client")], ["in", element("span", "", "in")], ["out", element("span", "", "out")]];
  for (const name of COLUMNS) {
    const head = element("span");
    head.append(mark(name), element("span", "quiet", name));
    heads.push([name, head]);
  }
  at("columns").replaceChildren(
    ...heads.map(([name, head]) => {
      const cell = element("th");
      cell.scope = "col";
      cell.title = { in: "received from the client", out: "sent to the client" }[name] ?? name;
      cell.append(head);
      return cell;
    }),
  );
  at("clients").replaceChildren();
}

function showClients() {
  const clients = [...service().clientsBy.values()].sort((a, b) => a.serial - b.serial).slice(-ROWS);
  const places = ["received", "answered", ...COLUMNS].map((name) => page.counts.indexOf(name));
  // A column in which nobody has anything would take the room of the others.
  const always = service().protocol === "UDP" ? 3 : 2;
  const used = places.map((place, index) => index < always || clients.some((each) => each.counts[place]));
  const body = at("clients");
  const known = new Map([...body.children].map((row) => [row.serial, row]));
  const rows = clients.map((client) => {
    const row = known.get(client.serial) ?? makeRow(client);
    known.delete(client.serial);
    fillRow(row, client, places, used);
    return row;
  });
  // A row that stays is not moved: it would lose the focus, and a click that has begun.
  known.forEach((row) => row.remove());
  rows.forEach((row, index) => body.children[index] === row || body.insertBefore(row, body.children[index]));
  [...at("columns").children].slice(1).forEach((cell, index) => (cell.hidden = !used[index]));
  say("met", `${number.format(service().met)} so far`);
  at("everyone").setAttribute("aria-pressed", !page.only);
}

function makeRow(client) {
  const row = element("tr");
  row.serial = client.serial;
  const head = element("th");
  head.scope = "row";
  const button = element("button");
  button.type = "button";
  button.title = "show this client alone";
  // Where there is little room it is broken before the port.
  const [, host, port] = client.peer.match(/^(.*?)(:[^:]*)?$/);
  const peer = element("span", "peer", host);
  peer.append(element("wbr"), port ?? "");
  button.append(element("span", "tag", tag(client.serial)), peer, element("span", "about"));
  button.addEventListener("click", () => choose(page.only === client.peer ? "" : client.peer));
  head.append(button);
  row.append(head, ...["in", "out", ...COLUMNS].map(() => element("td")));
  return row;
}

function fillRow(row, client, places, used) {
  const [head, ...cells] = row.children;
  const button = head.firstChild;
  button.setAttribute("aria-pressed", page.only === client.peer);
  const mine = page.mine.get(page.open) === client.peer;
  button.firstChild.className = mine ? "tag mine" : "tag";
  const about = [mine && "you", client.state !== "open" && client.state].filter(Boolean).join(", ");
  if (button.lastChild.textContent !== about) button.lastChild.textContent = about;
  cells.forEach((cell, index) => {
    const count = client.counts[places[index]];
    cell.hidden = !used[index];
    cell.className = count ? COLUMNS[index - 2] ?? "" : "zero";
    const text = count ? number.format(count) : "·";
    if (cell.textContent !== text) cell.textContent = text;
  });
}

function choose(peer) {
  page.only = peer;
  page.follows = true;
  at("follow").setAttribute("aria-pressed", true);
  if (service().has_key && service().per_client) fetchKey();
  later();
}

async function fetchKey() {
  const client = service().clientsBy.get(page.only)?.serial ?? 0;
  const answer = await fetch(`key?service=${page.open}&client=${client}`).catch(() => ({ ok: false }));
  const lines = answer.ok ? await answer.json() : [];
  const why = answer.ok ? "Each client has its own: choose one." : "It cannot be had; is the service still there?";
  say("key-note", lines.length ? "" : why);
  at("key-lines").replaceChildren(...lines.map((line) => element("li", "", line)));
  showKeyPlace();
}

/** Mark how far the chosen client has come. */
function showKeyPlace() {
  const client = service().clientsBy.get(page.only || page.mine.get(page.open));
  const come = client ? client.counts[page.counts.indexOf("number")] : -1;
  const lines = at("key-lines");
  [...lines.children].forEach((line, index) => {
    line.className = come < 0 ? "" : index < come ? "past" : index === come ? "next" : "";
    line.ariaCurrent = line.className === "next" ? "step" : null;
  });
  const next = lines.querySelector(".next");
  if (next && next !== page.next) lines.scrollTop = next.offsetTop - lines.clientHeight / 2;
  page.next = next;
}

async function send(event) {
  event.preventDefault();
  const line = at("line").value;
  // After a long silence numbers begin again, and what was drawn before is not about this line.
  const since = Math.max(0, ...service().arrowsBy.keys());
  say("sent", "sending");
  try {
    const answer = await fetch(`send?watcher=${page.you}&service=${page.open}`, { method: "POST", body: line });
    if (!answer.ok) return say("sent", (await answer.text()).trim());
    const told = await answer.json();
    if (told.client) {
      page.mine.set(page.open, told.client);
      page.sent = { ...told, since, service: page.open, until: performance.now() + PATIENCE };
      setTimeout(() => page.sent && tellFate(), PATIENCE + 100);
      say("sent", `sent as datagram ${told.number}`);
      tellFate();
      // What became of it may have been drawn before it was known to be ours.
      later();
    } else {
      say("sent", told.error || `answered: ${told.reply}`);
    }
  } catch {
    say("sent", "it could not be sent; is the service still there?");
  }
  at("line").select();
}

/** Say what became of the datagram that was sent last. */
function tellFate() {
  const { client, number: nth, since, service: index, until } = page.sent;
  const mine = [...page.services[index].arrowsBy.values()].filter(
    (arrow) => arrow.serial > since && arrow.client === client && arrow.number === nth,
  );
  const reply = mine.find((arrow) => arrow.way === 2 && !arrow.actions.includes("lost"));
  const lost = mine.find((arrow) => arrow.actions.includes("lost") || arrow.actions.includes("dropped"));
  const over = performance.now() > until;
  if (!reply && !lost && !over) return;
  const result = reply ? [`answered: ${reply.text}`, reply.words].filter(Boolean).join(", ") : lost ? lost.words : "no reply so far";
  say("sent", `datagram ${nth} of ${nameOf(client)}: ${result}`);
  if (reply || over) page.sent = null;
}

function nameOf(peer) {
  const client = service().clientsBy.get(peer);
  return client ? tag(client.serial) : peer;
}

function join() {
  const code = at("code");
  code.hidden = !page.code;
  if (page.code) {
    code.src = "qr.svg";
    code.alt = `QR code of ${page.address}`;
  }
  say("address", page.address);
  say(
    "joining-note",
    page.address
      ? page.code ? "" : "For a code to photograph: pip install 'twisted-uppercase[page]'"
      : "Only this machine can open it. Start the service with --page=tcp:8080:interface=0.0.0.0 to open it to others.",
  );
  at("joining").showModal();
}

function remember(name, value) {
  try {
    localStorage.setItem(`uppercase ${name}`, value);
  } catch {
    // A browser that keeps nothing asks again next time.
  }
}

function recall(name) {
  try {
    return localStorage.getItem(`uppercase ${name}`) ?? "";
  } catch {
    return "";
  }
}

function setSize(size) {
  document.documentElement.dataset.size = size;
  at("size").setAttribute("aria-pressed", size === "large");
  remember("size", size);
  if (service()) later();
}

const darkness = matchMedia("(prefers-color-scheme: dark)");

function setTheme(theme) {
  page.theme = theme;
  document.documentElement.dataset.theme = theme || (darkness.matches ? "dark" : "light");
  say("theme", `Theme: ${theme || "auto"}`);
  remember("theme", theme);
}

at("send").addEventListener("submit", send);
at("join").addEventListener("click", join);
at("everyone").addEventListener("click", () => choose(""));
at("size").addEventListener("click", () => setSize(document.documentElement.dataset.size === "large" ? "" : "large"));
at("theme").addEventListener("click", () => {
  const themes = ["", "light", "dark"];
  setTheme(themes[(themes.indexOf(page.theme) + 1) % themes.length]);
});
at("follow").addEventListener("click", () => {
  page.follows = !page.follows;
  at("follow").setAttribute("aria-pressed", page.follows);
  later();
});
// Who scrolls back wants to read: nothing moves until asked to follow again. That is so while the
// scrollbar is held, or just after a gesture; otherwise a new layout has scrolled.
for (const gesture of ["wheel", "touchmove", "keydown"]) {
  at("timeline").addEventListener(gesture, () => (page.gesture = performance.now()), { passive: true });
}
at("timeline").addEventListener("scroll", () => {
  const view = at("timeline");
  const back = view.scrollTop + view.clientHeight < view.scrollHeight - 8;
  const meant = view.matches(":active") || performance.now() - page.gesture < GESTURE;
  if (page.follows && back && meant) at("follow").click();
}, { passive: true });
new ResizeObserver(() => service() && page.follows && later()).observe(at("timeline"));

darkness.addEventListener("change", () => setTheme(page.theme));
setSize(recall("size"));
setTheme(recall("theme"));
listen();
