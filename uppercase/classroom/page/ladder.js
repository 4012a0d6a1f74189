// The ladder: rows of text, and behind them one picture of all arrows. Time runs downward; a row
// is a moment, so that what takes long slants. Nothing here knows of the network.

const SVG = "http://www.w3.org/2000/svg";
const ROWS = 120; // arrows that are drawn: what one scrolls through, and what a phone draws in time
const PAUSE = 2; // seconds without anything that become a line saying so
const SHAFT = 1.64; // rem below the top of its row: under the text, above words that stand below it
const MARKS = ["lost", "dropped", "corrupted", "reordered", "duplicated", "delayed"];

export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

export function mark(name) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("class", `mark ${name}`);
  picture.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#${name}`);
  picture.append(use);
  return picture;
}

/** Seconds as minutes, seconds and thousandths. */
export function clock(seconds) {
  const all = Math.max(0, Math.round(seconds * 1000)) / 1000;
  return `${Math.floor(all / 60)}:${(all % 60).toFixed(3).padStart(6, "0")}`;
}

/** The rows of some arrows, by time: where each begins, where a slow one arrives, and pauses. */
function rowsOf(arrows) {
  const moments = [];
  for (const arrow of arrows) {
    moments.push({ at: arrow.begin, kind: arrow.way ? "leaves" : "note", arrow, key: `${arrow.serial}` });
    if (arrow.way && arrow.end > arrow.begin && !arrow.actions.includes("lost")) {
      moments.push({ at: arrow.end, kind: "arrives", arrow, key: `${arrow.serial}+` });
    }
  }
  const order = { arrives: 0, note: 1, leaves: 1 };
  moments.sort((a, b) => a.at - b.at || order[a.kind] - order[b.kind] || a.arrow.serial - b.arrow.serial);
  const rows = [];
  for (const moment of moments) {
    const before = rows.at(-1);
    if (before && moment.at - before.at > PAUSE) {
      const seconds = moment.at - before.at;
      rows.push({ at: moment.at, kind: "pause", seconds, key: `pause ${before.key}` });
    }
    rows.push(moment);
  }
  return rows;
}

/** Take what is drawn under no key of these off the page. */
function keepOnly(table, keys) {
  const known = new Set(keys);
  for (const [key, drawn] of table) {
    if (!known.has(key)) {
      drawn.remove();
      table.delete(key);
    }
  }
}

export class Ladder {
  constructor(list, picture) {
    this.list = list;
    this.picture = picture;
    this.rows = new Map();
    this.groups = new Map();
    this.lives = [0, 1].map(() => this.line("life"));
  }

  line(className) {
    const made = document.createElementNS(SVG, "line");
    made.setAttribute("class", className);
    this.picture.prepend(made);
    return made;
  }

  /** Draw arrows; `about` says of each client what its tag is and whether it is the reader's own. */
  draw(arrows, began, about) {
    const latest = arrows.slice(-ROWS);
    const wanted = rowsOf(latest);
    keepOnly(this.rows, wanted.map((row) => row.key));
    let place = this.list.firstElementChild;
    for (const row of wanted) {
      let item = this.rows.get(row.key);
      if (!item) {
        item = element("li", "fresh");
        this.rows.set(row.key, item);
      }
      this.fill(item, row, began, about);
      if (item === place) place = place.nextElementSibling;
      else this.list.insertBefore(item, place);
    }
    this.drawPicture(latest);
  }

  /** Write a row, unless it says that already. */
  fill(item, row, began, about) {
    const { arrow, kind } = row;
    const client = arrow && about(arrow.client);
    const state = JSON.stringify([kind, row.at, row.seconds, arrow, client]);
    if (item.state === state) return;
    item.state = state;
    const way = arrow && ["note", "request", "reply"][arrow.way];
    item.className = `${kind === "leaves" ? way : kind} ${item.className.includes("fresh") ? "fresh" : ""}`;
    const when = element("span", "when");
    when.append(element("span", "clock", clock(row.at - began)));
    if (kind === "pause") {
      const label = element("span", "label");
      label.append(element("span", "", `nothing for ${row.seconds.toFixed(1)} s`));
      item.replaceChildren(element("span", "when"), label);
      return;
    }
    if (kind === "arrives") {
      const said = element("span", "quiet", `${way} ${arrow.number || ""} of ${client.tag} arrives`);
      item.replaceChildren(when, said);
      return;
    }
    const tag = element("span", client.mine ? "tag mine" : "tag", client.tag);
    tag.title = arrow.client;
    when.append(tag);
    const label = element("span", "label");
    const words = element("span", "words");
    if (arrow.way) {
      label.append(element("span", "quiet", `${client.mine ? "your " : ""}${way} `));
      if (arrow.number) label.append(element("b", "", `${arrow.number}`));
      label.append(element("span", "", arrow.text));
      label.title = `${arrow.size} bytes`;
      if (arrow.words) words.append(fate(arrow));
    } else {
      label.append(element("span", "", arrow.words));
    }
    item.replaceChildren(when, label, words);
  }

  drawPicture(arrows) {
    const width = this.picture.clientWidth;
    // On paper, or in a window that is being resized, it is stretched as the rows are.
    this.picture.setAttribute("viewBox", `0 0 ${width} ${this.picture.clientHeight}`);
    this.rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    // All reading before all writing, so that the browser lays out once.
    const middles = new Map();
    let bottom = 0;
    for (const [key, item] of this.rows) {
      const [top, height] = [item.offsetTop - this.list.offsetTop, item.offsetHeight];
      middles.set(key, top + (key.endsWith("+") ? height / 2 : SHAFT * this.rem));
      bottom = Math.max(bottom, top + height);
    }
    this.lives.forEach((life, side) => {
      set(life, { x1: side * width, x2: side * width, y1: 0, y2: bottom + 8 });
    });
    const drawn = arrows.filter((arrow) => arrow.way);
    keepOnly(this.groups, drawn.map((arrow) => arrow.serial));
    for (const arrow of drawn) this.drawArrow(arrow, middles, width);
  }

  drawArrow(arrow, middles, width) {
    const top = middles.get(`${arrow.serial}`);
    const low = middles.get(`${arrow.serial}+`) ?? top + this.rem * 0.3;
    const [from, to] = arrow.way === 1 ? [0, width] : [width, 0];
    const shown = `${top} ${low} ${from} ${to} ${this.rem} ${arrow.actions}`;
    let group = this.groups.get(arrow.serial);
    if (group?.shown === shown) return;
    if (!group) {
      group = document.createElementNS(SVG, "g");
      this.groups.set(arrow.serial, group);
      this.picture.append(group);
    }
    group.shown = shown;
    group.setAttribute("class", MARKS.filter((name) => arrow.actions.includes(name)).join(" "));
    const lost = arrow.actions.includes("lost");
    const [x, y] = lost ? [(from + to) / 2, (top + low) / 2] : [to, low];
    const paths = [path("shaft", `M${from} ${top}L${x} ${y}`)];
    const size = this.rem * 0.42;
    if (lost) {
      paths.push(path("cross", `M${x - size} ${y - size}l${2 * size} ${2 * size}m0 ${-2 * size}l${-2 * size} ${2 * size}`));
    } else {
      const angle = Math.atan2(y - top, x - from);
      const [a, b] = [0.42, -0.42].map((turn) => [
        x - 2 * size * Math.cos(angle + turn),
        y - 2 * size * Math.sin(angle + turn),
      ]);
      paths.push(path("head", `M${a}L${x} ${y}L${b}`));
    }
    if (arrow.actions.includes("corrupted")) {
      const [mx, my] = [(from + x) / 2, (top + y) / 2];
      const half = size * 1.4;
      paths.push(path("cross", `M${mx + half / 3} ${my - half}l${-half * 0.7} ${half}h${half * 0.8}l${-half * 0.7} ${half}`));
    }
    if (arrow.actions.includes("dropped")) {
      paths.push(path("cross", `M${x} ${y - 1.5 * size}v${3 * size}`));
    }
    group.replaceChildren(...paths);
  }
}

function fate(arrow) {
  const marks = MARKS.filter((name) => arrow.actions.includes(name));
  const made = element("span", `fate ${marks[0] ?? ""}`);
  made.append(...marks.map(mark), element("span", "", arrow.words));
  return made;
}

function set(shape, attributes) {
  for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
}

function path(className, d) {
  const made = document.createElementNS(SVG, "path");
  set(made, { class: className, d });
  return made;
}
