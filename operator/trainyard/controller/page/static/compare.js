// Several runs over one axis.
import { chart } from "./chart.js";
import { h, problem, show } from "./dom.js";
import { get, unfollow } from "./server.js";
import { number } from "./words.js";

const MOST = 12;

export async function compare(query) {
  unfollow();
  const places = (query.get("runs") ?? "").split(",").map(decodeURIComponent).filter((p) => /^[^/]+\/[^/]+$/.test(p)).slice(0, MOST);
  document.title = "Compare · Trainyard";
  if (places.length < 2) return void show(problem("Choose two runs or more in the list, then press Compare."));
  const found = await Promise.all(places.map((place) => get(`/api/runs/${place}/curves`).then((curves) => ({ place, curves }), (error) => ({ place, error }))));
  const runs = found.filter((each) => each.curves);
  const names = [...new Set(runs.flatMap(({ curves }) => curves.points.flatMap((point) => Object.keys(point.values))))].sort();
  const holder = h("div");
  let drawn;
  function draw(metric) {
    drawn?.remove();
    drawn = chart(metric, runs.map((each) => each.place));
    holder.replaceChildren(drawn.element);
    drawn.draw(runs.map(({ curves }) => new Map(curves.points.filter((p) => Number.isFinite(p.values[metric])).map((p) => [p.step, p.values[metric]]))));
    table.replaceChildren(...runs.map(({ place, curves }) => {
      const values = curves.points.map((p) => p.values[metric]).filter(Number.isFinite);
      return h("tr", {}, h("td", { class: "name" }, h("a", { href: `/runs/${place}` }, place)), h("td", { class: "number" }, number(values.at(-1))), h("td", { class: "number" }, number(values.length ? Math.min(...values) : null)), h("td", { class: "number" }, number(values.length ? Math.max(...values) : null)));
    }));
    query.set("metric", metric);
    history.replaceState(null, "", `/compare?${query}`);
  }
  const wanted = query.get("metric") ?? "loss";
  const table = h("tbody");
  const select = h("select", { "aria-label": "Metric", onchange: (e) => draw(e.target.value) }, names.map((n) => h("option", { value: n, selected: n === wanted }, n)));
  show(h("h1", {}, "Compare"), found.filter((each) => each.error).map((each) => problem(`${each.place}: ${each.error.message}`)),
    names.length ? [h("div", { class: "filters" }, select), holder, h("table", {}, h("thead", {}, h("tr", {}, ["Run", "Last", "Least", "Most"].map((t, i) => h("th", { class: i ? "number" : "" }, t)))), table)] : problem("None of these runs has numbers yet."));
  if (names.length) draw(names.includes(wanted) ? wanted : names[0]);
  return { restyle: () => drawn?.again(), leave: () => drawn?.remove() };
}
