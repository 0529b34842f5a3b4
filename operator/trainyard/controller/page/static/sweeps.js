// Sweeps: their trials in the order of their values, and each value over each parameter.
import { h, problem, show } from "./dom.js";
import { key, listing } from "./listing.js";
import { follow, get, Gone } from "./server.js";
import { number, since, state } from "./words.js";

const SVG = "http://www.w3.org/2000/svg", WIDTH = 300, HEIGHT = 150, EDGE = 12;

export function sweeps() {
  return listing({
    kind: "sweep", title: "Sweeps", none: "No sweeps yet.", heads: ["Sweep", "State", "Best", "Trials", "Metric", "Algorithm", "Age", ""],
    cells: (row) => [row.best?.value ?? "", row.trials ?? "", row.metric ?? "", row.algorithm ?? "", since(row.created)].map((text) => h("td", {}, text)),
  });
}

// Ended ones by value, then stopped ones by rung and value, then the others by number.
function ranked(trials, direction) {
  const sign = direction === "Maximize" ? -1 : 1, value = (t) => (t.value === undefined ? Infinity : sign * t.value);
  const place = (t) => [t.state === "Succeeded" ? 0 : 1, t.state === "Succeeded" ? 0 : -(t.rung ?? 0), value(t), t.number];
  return [...trials].sort((a, b) => { const x = place(a), y = place(b), at = x.findIndex((one, i) => one !== y[i]); return at < 0 ? 0 : x[at] < y[at] ? -1 : 1; });
}

// One dot a trial: its value over its value of a parameter. Texts stand side by side in the order of the table.
function plot(parameter, trials, best) {
  const measured = trials.filter((t) => t.value !== undefined && t.assignments?.[parameter.name] !== undefined);
  if (measured.length < 2) return null;
  const given = measured.map((t) => t.assignments[parameter.name]), numeric = given.every((text) => text.trim() !== "" && Number.isFinite(Number(text)));
  const words = [...new Set(given)], scale = (text) => (!numeric ? words.indexOf(text) : parameter.log ? Math.log10(Number(text)) : Number(text));
  const spread = (all, size) => { const low = Math.min(...all), high = Math.max(...all); return (x) => EDGE + ((x - low) / (high - low || 1)) * (size - 2 * EDGE); };
  const x = spread(given.map(scale), WIDTH), y = spread(measured.map((t) => Number(t.value)), HEIGHT);
  const svg = document.createElementNS(SVG, "svg");
  for (const [name, value] of Object.entries({ viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "dots", role: "img", "aria-label": `Value of each trial over ${parameter.name}` })) svg.setAttribute(name, value);
  measured.forEach((trial, at) => {
    const dot = document.createElementNS(SVG, "circle"), title = document.createElementNS(SVG, "title");
    title.textContent = `${trial.run}: ${given[at]}, ${trial.value} (${trial.state})`;
    for (const [name, value] of Object.entries({ cx: x(scale(given[at])), cy: HEIGHT - y(Number(trial.value)), r: trial.run === best ? 6 : 4 })) dot.setAttribute(name, value);
    dot.dataset.state = trial.run === best ? "best" : trial.state;
    dot.append(title);
    svg.append(dot);
  });
  const ends = numeric ? [Math.min(...given.map(Number)), Math.max(...given.map(Number))].map((n) => number(n)) : [words[0], words.at(-1)];
  return h("figure", {}, svg, h("figcaption", { class: "quiet" }, `${parameter.name}: ${ends[0]} to ${ends[1]}${numeric && parameter.log ? ", logarithmic" : ""}`));
}

export async function sweep(namespace, name) {
  let detail, from;
  function draw() {
    const [kind, word] = state(detail), trials = ranked(detail.table, detail.direction), names = detail.parameters.map((p) => p.name);
    document.title = `${name} · ${word}`;
    show(h("h1", {}, name, " ", h("span", { class: "state", data: { kind } }, word)),
      h("p", { class: "quiet" }, [namespace, detail.algorithm, `${detail.direction} ${detail.metric}`, detail.asha.rungs && `${detail.asha.rungs} rungs from step ${detail.asha.minimumSteps}`].filter(Boolean).join(" · ")),
      h("div", { class: "now" }, h("div", { class: "why" }, detail.message ?? ""), h("dl", { class: "figures" }, Object.entries(detail.counts).map(([label, count]) => h("div", {}, h("dt", {}, label), h("dd", {}, count))))),
      h("div", { class: "plots" }, detail.parameters.map((parameter) => plot(parameter, trials, detail.best?.run))),
      h("h2", {}, "Trials"), trials.length ? h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Run", "State", detail.metric, "Rung", ...names, ""].map((t) => h("th", {}, t)))),
        h("tbody", {}, trials.map((t) => h("tr", {}, h("td", { class: "name" }, t.gone ? t.run : h("a", { href: `/runs/${namespace}/${t.run}` }, t.run)), h("td", {}, h("span", { class: "state", data: { kind: state(t)[0] } }, t.state)),
          h("td", {}, number(t.value)), h("td", {}, t.rung ?? ""), names.map((n) => h("td", {}, t.assignments?.[n] ?? "")), h("td", { class: "why" }, t.message ?? "")))))) : h("p", { class: "quiet" }, "None yet."));
  }
  async function load() {
    const [found, board] = await Promise.all([get(`/api/sweeps/${namespace}/${name}`), get("/api/board")]);
    detail = found;
    from = board.id;
    draw();
  }
  try {
    await load();
  } catch (error) {
    if (!(error instanceof Gone)) throw error;
    return void show(h("h1", {}, name), problem(`${error.message}.`));
  }
  follow({}, { lines: (news) => { if (news.sweeps.some((row) => key(row) === `${namespace}/${name}`)) load(); }, reset: load }, from);
}
