// A live list of schedules or sweeps: read once, then told what changes.
import { h, show } from "./dom.js";
import { follow, get } from "./server.js";
import { state } from "./words.js";

export const key = (row) => `${row.namespace}/${row.name}`;

// `cells(row)` are those between the state and the message; `heads` names all columns.
export async function listing({ kind, title, heads, none, cells }) {
  const plural = `${kind}s`, rows = new Map(), body = h("tbody"), empty = h("p", { class: "quiet", hidden: true }, none);
  function arrange() {
    body.replaceChildren(...[...rows.values()].sort((a, b) => key(a).localeCompare(key(b))).map((row) => {
      const [mark, word] = state(row);
      return h("tr", {},
        h("td", { class: "name" }, h("a", { href: `/${plural}/${key(row)}` }, row.name), h("div", { class: "quiet" }, row.namespace)),
        h("td", {}, h("span", { class: "state", data: { kind: mark } }, word)), cells(row), h("td", { class: "why" }, row.message ?? ""));
    }));
    empty.hidden = rows.size > 0;
  }
  async function load() {
    const board = await get("/api/board");
    rows.clear();
    board[plural].forEach((row) => rows.set(key(row), row));
    arrange();
    return board.id;
  }
  const from = await load();
  document.title = `${title} · Trainyard`;
  show(h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, heads.map((t) => h("th", {}, t)))), body)), empty);
  follow({}, {
    lines: (news) => {
      news[plural].forEach((row) => rows.set(key(row), row));
      news.gone.filter(([what]) => what === kind).forEach(([, namespace, name]) => rows.delete(`${namespace}/${name}`));
      if (news[plural].length || news.gone.length) arrange();
    },
    reset: load,
  }, from);
}
