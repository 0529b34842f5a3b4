// The list of runs: one row each, changed in place, so that a thousand of them stay readable while they move.
import { h, show } from "./dom.js";
import { follow, get } from "./server.js";
import { number, since, state } from "./words.js";

const COLUMNS = [
  ["Run", "name"], ["State", ""], ["Progress", "number"], ["Step", "number wide"], ["Loss", "number"], ["ETA", "number"],
  ["Node", "wide"], ["Age", "number"], ["What happens, or why it waits", "why"],
];
const SORTS = {
  newest: (a, b) => (b.created ?? "").localeCompare(a.created ?? ""),
  name: (a, b) => key(a).localeCompare(key(b)),
  state: (a, b) => a.state.localeCompare(b.state) || SORTS.newest(a, b),
};

export const key = (row) => `${row.namespace}/${row.name}`;

export async function lines(query) {
  const rows = new Map(), elements = new Map(), chosen = new Set();
  const filter = { q: query.get("q") ?? "", state: query.get("state") ?? "", namespace: query.get("namespace") ?? "", sort: query.get("sort") ?? "newest" };

  const body = h("tbody");
  const count = h("span", { class: "quiet", "aria-live": "polite" });
  const compare = h("button", { type: "button", disabled: true, onclick: () => go(`/compare?runs=${[...chosen].map(encodeURIComponent).join(",")}`) }, "Compare");
  const search = h("input", { type: "search", name: "q", value: filter.q, placeholder: "Filter: name, model, message ( / )", "aria-label": "Filter", oninput: (e) => narrow("q", e.target.value) });
  const states = h("select", { "aria-label": "State", onchange: (e) => narrow("state", e.target.value) });
  const namespaces = h("select", { "aria-label": "Namespace", onchange: (e) => narrow("namespace", e.target.value) });
  const sorts = h("select", { "aria-label": "Order", onchange: (e) => narrow("sort", e.target.value) }, Object.keys(SORTS).map((name) => h("option", { value: name, selected: name === filter.sort }, `by ${name === "newest" ? "age" : name}`)));

  function go(path) {
    history.pushState(null, "", path);
    dispatchEvent(new PopStateEvent("popstate"));
  }

  function narrow(name, value) {
    filter[name] = value;
    const said = Object.entries(filter).filter(([n, v]) => v && !(n === "sort" && v === "newest"));
    history.replaceState(null, "", said.length ? `/?${new URLSearchParams(said)}` : "/");
    arrange();
  }

  function fits(row) {
    const words = filter.q.toLowerCase().split(/\s+/).filter(Boolean);
    const text = `${key(row)} ${row.state} ${row.model ?? ""} ${row.method ?? ""} ${row.node ?? ""} ${row.schedule ?? ""} ${row.message ?? ""}`.toLowerCase();
    return (!filter.state || row.state === filter.state) && (!filter.namespace || row.namespace === filter.namespace) && words.every((word) => text.includes(word));
  }

  function options(select, values, all, now) {
    const known = [...new Set([...values, now].filter(Boolean))].sort();
    const said = known.join("\n");
    if (select.dataset.said === said) return;
    select.dataset.said = said;
    select.replaceChildren(h("option", { value: "" }, all), ...known.map((v) => h("option", { value: v, selected: v === now }, v)));
  }

  function draw(row) {
    const [kind, word] = state(row);
    const name = key(row);
    const box = h("input", {
      type: "checkbox", "aria-label": `Compare ${name}`, checked: chosen.has(name),
      onchange: (e) => { e.target.checked ? chosen.add(name) : chosen.delete(name); compare.disabled = chosen.size < 2; },
    });
    return h("tr", { data: { run: name } },
      h("td", { class: "name" }, box, " ", h("a", { href: `/runs/${name}` }, row.name), h("div", { class: "quiet" }, row.namespace)),
      h("td", {}, h("span", { class: "state", data: { kind } }, word), row.verdict && h("div", { class: "quiet" }, row.verdict)),
      h("td", { class: "number" }, row.progress ?? ""),
      h("td", { class: "number wide" }, row.step ?? ""),
      h("td", { class: "number" }, number(row.loss)),
      h("td", { class: "number" }, row.eta ?? ""),
      h("td", { class: "wide" }, row.node ?? ""),
      h("td", { class: "number", title: row.created }, since(row.created)),
      h("td", { class: "why" }, row.message ?? ""));
  }

  function put(row) {
    const name = key(row), old = elements.get(name), fresh = draw(row);
    rows.set(name, row);
    elements.set(name, fresh);
    if (old?.isConnected) {
      const focused = old.contains(document.activeElement) ? document.activeElement.tagName : "";
      old.replaceWith(fresh);
      if (focused) fresh.querySelector(focused)?.focus();
    }
  }

  function arrange() {
    const shown = [...rows.values()].filter(fits).sort(SORTS[filter.sort] ?? SORTS.newest);
    body.replaceChildren(...shown.map((row) => elements.get(key(row))));
    count.textContent = shown.length === rows.size ? `${rows.size} runs` : `${shown.length} of ${rows.size} runs`;
    options(states, [...rows.values()].map((row) => row.state), "all states", filter.state);
    options(namespaces, [...rows.values()].map((row) => row.namespace), "all namespaces", filter.namespace);
    empty.hidden = rows.size > 0;
  }

  const empty = h("p", { class: "quiet", hidden: true }, "No runs yet. kubectl apply -f examples/quickstart/trainingrun.yaml starts one.");
  const head = h("tr", {}, COLUMNS.map(([name, kind]) => h("th", { class: kind, scope: "col" }, name)));
  async function load() {
    const board = await get("/api/board");
    rows.clear();
    board.runs.forEach(put);
    for (const name of elements.keys()) if (!rows.has(name)) elements.delete(name);
    arrange();
    return board.id;
  }

  const from = await load();
  show(h("div", { class: "filters" }, search, states, namespaces, sorts, compare, count), h("div", { class: "scroll" }, h("table", {}, h("thead", {}, head), body)), empty);
  document.title = "Runs · Trainyard";
  follow({}, {
    lines: (news) => {
      let moved = false;
      for (const row of news.runs) {
        moved ||= rows.get(key(row))?.state !== row.state || !fits(row) || Boolean(filter.q);
        put(row);
      }
      for (const [kind, namespace, name] of news.gone) {
        if (kind === "run") { moved = true; rows.delete(`${namespace}/${name}`); elements.delete(`${namespace}/${name}`); }
      }
      if (moved) arrange();
    },
    reset: load,
  }, from);
}
