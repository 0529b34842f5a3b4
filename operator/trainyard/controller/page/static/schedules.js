// Schedules: when they start next, what they started last, who is champion.
import { h, problem, show } from "./dom.js";
import { key, listing } from "./listing.js";
import { follow, get, Gone } from "./server.js";
import { moment, state, when } from "./words.js";

const linked = (namespace, name) => (name ? h("a", { href: `/runs/${namespace}/${name}` }, name) : "");

export function schedules() {
  return listing({
    kind: "schedule", title: "Schedules", none: "No schedules yet.", heads: ["Schedule", "State", "When", "Next", "Last", "Last run", ""],
    cells: (row) => [h("td", {}, row.schedule ?? ""), h("td", { title: moment(row.next) }, when(row.next)), h("td", { title: moment(row.last) }, when(row.last)),
      h("td", {}, linked(row.namespace, row.lastRun?.name), row.lastRun?.state ? h("div", { class: "quiet" }, row.lastRun.state) : "")],
  });
}

export async function schedule(namespace, name) {
  const runs = new Map();
  let detail, from;
  function draw() {
    const [kind, word] = state(detail);
    const mine = [...runs.values()].filter((row) => row.namespace === namespace && row.schedule === name).sort((a, b) => (b.created ?? "").localeCompare(a.created ?? ""));
    document.title = `${name} · ${word}`;
    show(h("h1", {}, name, " ", h("span", { class: "state", data: { kind } }, word)), h("p", { class: "quiet" }, [namespace, detail.schedule, detail.timeZone].filter(Boolean).join(" · ")),
      h("div", { class: "now" }, h("div", { class: "why" }, detail.message ?? ""), h("dl", { class: "figures" },
        [["Next", detail.next], ["Last", detail.last], ["Last success", detail.status.lastSuccessfulTime]].filter(([, t]) => t).map(([label, time]) => h("div", {}, h("dt", {}, label), h("dd", {}, `${when(time)} (${moment(time)})`))),
        Object.entries(detail.runs ?? {}).map(([label, count]) => h("div", {}, h("dt", {}, label), h("dd", {}, count))))),
      detail.triggers.length ? [h("h2", {}, "Triggers"), h("table", {}, h("tbody", {}, detail.triggers.map((t) => h("tr", {}, h("td", { class: "name" }, t.name), h("td", {}, t.failing ? "cannot be read" : t.pending ? "due" : "quiet"), h("td", {}, when(t.lastCheckTime)), h("td", { class: "why" }, t.message ?? "")))))] : null,
      h("h2", {}, "Runs"), mine.length ? h("table", {}, h("tbody", {}, mine.map((row) => h("tr", {}, h("td", { class: "name" }, linked(namespace, row.name)), h("td", {}, h("span", { class: "state", data: { kind: state(row)[0] } }, row.state)), h("td", {}, row.verdict ?? ""), h("td", {}, when(row.created)), h("td", { class: "why" }, row.message ?? ""))))) : h("p", { class: "quiet" }, "None is kept."));
  }
  async function load() {
    const [found, board] = await Promise.all([get(`/api/schedules/${namespace}/${name}`), get("/api/board")]);
    detail = found;
    from = board.id;
    runs.clear();
    board.runs.forEach((row) => runs.set(key(row), row));
    draw();
  }
  try {
    await load();
  } catch (error) {
    if (!(error instanceof Gone)) throw error;
    return void show(h("h1", {}, name), problem(`${error.message}.`));
  }
  follow({}, {
    lines: (news) => {
      const touched = news.runs.some((row) => row.schedule === name) || news.schedules.some((row) => key(row) === `${namespace}/${name}`) || news.gone.length;
      news.runs.forEach((row) => runs.set(key(row), row));
      if (touched) load();
    },
    reset: load,
  }, from);
}
