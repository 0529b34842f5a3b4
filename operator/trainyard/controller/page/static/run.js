// One run: how it stands and why, its curves, its attempts, what came of it, and what to type next.
import { chart } from "./chart.js";
import { h, problem, show } from "./dom.js";
import { follow, get, Gone } from "./server.js";
import { bytes, duration, moment, number, since, state } from "./words.js";

// Title, values in it, how they are written. A chart is there as soon as one of its values is.
const CHARTS = [
  ["Loss", ["loss", "eval_loss"], {}],
  ["Reward", ["reward", "rewards/margins", "rewards/accuracies", "kl"], {}],
  ["Accuracy", ["accuracy", "exact_accuracy", "eval_accuracy", "mean_token_accuracy"], {}],
  ["Learning rate", ["learning_rate"], {}],
  ["Gradient norm", ["grad_norm"], {}],
  ["Tokens per second", ["tokens_per_second", "tokensPerSecond"], {}],
  ["Samples per second", ["samples_per_second"], {}],
  ["Memory", ["memory_bytes", "memoryBytes"], { format: bytes }],
  ["GPU memory, GB", ["gpu_memory_allocated_gb"], {}],
  ["GPU utilisation, %", ["gpu_utilization_percent"], {}],
];

const figure = (name, value) => (value === undefined || value === null || value === "" ? null : h("div", {}, h("dt", {}, name), h("dd", {}, value)));
const KINDS = { checkpoint: "checkpoint", restart: "restart", "out-of-memory": "made smaller to fit into memory", step: "next step of the run" };
const heading = (titles) => h("thead", {}, h("tr", {}, titles.map(([title, kind]) => h("th", { class: kind, scope: "col" }, title))));
const command = (text) => h("pre", {}, h("code", {}, text));

export async function run(namespace, name) {
  const place = `${namespace}/${name}`;
  const legend = h("ul", { class: "key" });
  const head = h("div"), charts = h("div", { class: "charts" }), rest = h("div");
  const curves = { points: [], marks: [] }, drawn = new Map();
  let waiting, last = 0, gone = false;

  function series(value) {
    return new Map(curves.points.filter((point) => Number.isFinite(point.values[value])).map((point) => [point.step, point.values[value]]));
  }

  function draw() {
    for (const [title, values, options] of CHARTS) {
      const there = values.filter((value) => curves.points.some((point) => Number.isFinite(point.values[value])));
      if (!there.length) continue;
      const known = drawn.get(title);
      if (known?.names.join() === there.join()) { known.chart.draw(there.map(series)); continue; }
      const made = chart(title, there, { ...options, marks: () => curves.marks });
      if (known) { known.chart.element.replaceWith(made.element); known.chart.remove(); } else charts.append(made.element);
      drawn.set(title, { names: there, chart: made });
      made.draw(there.map(series));
    }
    none.hidden = drawn.size > 0;
    const kinds = drawn.size ? Object.keys(KINDS).filter((kind) => curves.marks.some((mark) => mark.kind === kind)) : [];
    legend.replaceChildren(...kinds.map((kind) => h("li", {}, h("i", { data: { kind } }), `${KINDS[kind]} (${curves.marks.filter((mark) => mark.kind === kind).map((mark) => mark.step).slice(-6).join(", ")})`)));
  }

  let frame;
  const drawSoon = () => { frame ??= requestAnimationFrame(() => { frame = undefined; draw(); }); };

  function gates(evaluation) {
    const rows = (evaluation?.gates ?? []).map((gate) => h("tr", {},
      h("td", {}, gate.metric), h("td", {}, h("span", { class: "state", data: { kind: gate.verdict === "Promote" ? "good" : gate.verdict === "Reject" ? "bad" : "wait" } }, gate.verdict)),
      h("td", { class: "number" }, number(gate.value)), h("td", { class: "number" }, number(gate.reference)), h("td", { class: "number" }, number(gate.gain)),
      h("td", { class: "number" }, Array.isArray(gate.interval) ? gate.interval.map((v) => number(v)).join(" to ") : gate.interval ?? ""), h("td", { class: "number" }, number(gate.n)), h("td", { class: "why" }, gate.message ?? "")));
    if (rows.length) return [h("h2", {}, "Gates"), h("div", { class: "scroll" }, h("table", {}, heading([["Metric"], ["Verdict"], ["Value", "number"], ["Against", "number"], ["Gain", "number"], ["Interval", "number"], ["n", "number"], [""]]), h("tbody", {}, rows)))];
    if (!evaluation?.metrics?.length) return [];
    const before = new Map((evaluation.baseline ?? []).map((m) => [m.name, m.value]));
    return [h("h2", {}, "Evaluation"), h("table", {}, heading([["Metric"], ["Trained", "number"], ["Before", "number"]]),
      h("tbody", {}, evaluation.metrics.map((m) => h("tr", {}, h("td", {}, m.name), h("td", { class: "number" }, number(m.value)), h("td", { class: "number" }, number(before.get(m.name))))))), evaluation.message && h("p", { class: "quiet" }, evaluation.message)];
  }

  function money(cost, which) {
    return cost?.[which] === undefined ? null : `${Number(cost[which]).toFixed(2)} ${cost.currency ?? ""}`.trim();
  }

  function exported(exports) {
    if (!exports?.length) return [];
    return [h("h2", {}, "Exports"), h("div", { class: "scroll" }, h("table", {}, heading([["Export"], ["State"], ["Where"], ["Version"], [""]]),
      h("tbody", {}, exports.map((each) => h("tr", {}, h("td", { class: "name" }, each.name, h("div", { class: "quiet" }, each.target ?? "")), h("td", {}, each.state), h("td", {}, each.uri ? h("code", {}, each.uri) : ""), h("td", {}, each.version ?? ""),
        h("td", { class: "why" }, each.message ?? "", use(each) && command(use(each))))))))];
  }

  // The command to use what was exported.
  function use(each) {
    if (!each.uri) return "";
    if (each.target === "ollama") return `ollama run ${each.uri.split("/").at(-1)}`;
    if (each.target === "s3") return `aws s3 cp --recursive ${each.uri} model/`;
    if (each.target === "hub") return `hf download ${each.uri.replace("hf://", "")}`;
    return "";
  }

  function attempts(steps) {
    const rows = (steps ?? []).flatMap((step) => step.attempts.map((a) => h("tr", {},
      h("td", {}, step.name), h("td", { class: "number" }, a.number), h("td", {}, a.reason ?? a.state, a.counted ? " (counted)" : ""), h("td", { class: "wide" }, a.node ?? ""),
      h("td", { class: "number wide" }, a.firstStep === undefined ? "" : `${a.firstStep} to ${a.lastStep ?? "…"}`), h("td", { title: a.startTime }, a.completionTime ? duration((Date.parse(a.completionTime) - Date.parse(a.startTime)) / 1000) : since(a.startTime)),
      h("td", { class: "why" }, a.message ?? "", a.lastLogLines?.length ? h("details", {}, h("summary", {}, "last log lines"), h("pre", {}, a.lastLogLines.join("\n"))) : null))));
    return rows.length ? [h("h2", {}, "Attempts"), h("div", { class: "scroll" }, h("table", {}, heading([["Step"], ["#", "number"], ["Ended"], ["Node", "wide"], ["Steps", "number wide"], ["Took"], [""]]), h("tbody", {}, rows)))] : [];
  }

  function next(detail) {
    const mine = `-n ${namespace} ${name}`, ended = Boolean(detail.completed);
    const lines = ended ? [] : [`trainyard logs -f ${mine}`, detail.spec.suspend ? `trainyard resume ${mine}` : `trainyard stop ${mine}     # checkpoint, then the GPU is free`];
    if (detail.state !== "Succeeded" && !ended) lines.push(`trainyard explain ${mine}`);
    if (detail.state === "Failed") lines.push(`trainyard explain ${mine}`, `kubectl describe trainingrun ${mine}`);
    if (detail.state === "Succeeded") lines.push(`trainyard download ${mine} model`);
    return [h("h2", {}, "Next"), command(lines.join("\n"))];
  }

  function fill(detail) {
    const status = detail.status, live = status.trainerStatus ?? {}, [kind, word] = state(detail);
    const metrics = new Map((live.metrics ?? []).map((m) => [m.name, m.value]));
    document.title = `${detail.progress ? `${detail.progress} · ` : ""}${name} · ${word}`;
    head.replaceChildren(...[
      h("h1", {}, name, " ", h("span", { class: "state", data: { kind } }, word)),
      h("p", { class: "quiet" }, [namespace, detail.method, detail.model, detail.schedule && `schedule ${detail.schedule}`].filter(Boolean).join(" · ")),
      h("div", { class: "now" },
        h("div", { class: "why", id: "why" }, status.message ?? "The operator has not looked yet."),
        live.progressPercentage !== undefined && h("progress", { max: 100, value: live.progressPercentage, "aria-label": "Progress" }),
        h("dl", { class: "figures" },
          figure("Progress", detail.progress), figure("Step", detail.step), figure("Time left", detail.eta), figure("Loss", number(metrics.get("loss") ?? detail.loss)),
          figure("Tokens/s", number(metrics.get("tokens_per_second") ?? metrics.get("tokensPerSecond"))), figure("Node", detail.node), figure("Running for", status.startTime && (status.completionTime ? duration((Date.parse(status.completionTime) - Date.parse(status.startTime)) / 1000) : since(status.startTime))),
          figure("Checkpoint", status.checkpoint && `step ${status.checkpoint.step}`), figure("Restarts", status.restarts || null), figure("GPU hours", status.cost?.gpuHours), figure("Cost", money(status.cost, "actual")), figure("Disruptions", status.disruptions), figure("Saved", money(status.cost, "saved")), figure("Cost in the end", money(status.cost, "estimated")))),
      status.failure && problem([h("strong", {}, status.failure.reason), ": ", status.failure.message, status.failure.hint && h("div", {}, status.failure.hint)]),
    ].flat().filter(Boolean));
    const facts = { ...status.effective, ...status.provenance };
    rest.replaceChildren(...[
      gates(status.evaluation), exported(status.exports), attempts(status.steps), next(detail),
      h("h2", {}, "Made from"), h("dl", { class: "figures" }, figure("Base", detail.spec.base), detail.spec.datasets.map((d) => figure(`Dataset ${d.name}`, d.address ?? "inline")), figure("Records", number(status.dataset?.records)), figure("Tokens", number(status.dataset?.tokens)), figure("Data digest", status.dataset?.digest?.slice(0, 12)), figure("Asked for", moment(detail.created))),
      Object.keys(detail.spec.training).length ? h("details", {}, h("summary", {}, "Settings"), h("dl", { class: "figures" }, Object.entries({ ...detail.spec.training, ...facts }).map(([k, v]) => figure(k, String(v))))) : null,
    ].flat(9).filter(Boolean));
  }

  async function load() {
    waiting = undefined;
    last = Date.now();
    try {
      fill(await get(`/api/runs/${place}`));
    } catch (error) {
      if (!(error instanceof Gone)) throw error;
      gone = true;
      head.replaceChildren(h("h1", {}, name), problem(`${error.message}.`));
    }
  }
  const loadSoon = () => { if (!gone) waiting ??= setTimeout(load, Math.max(0, 1500 - (Date.now() - last))); };

  async function loadCurves() {
    const all = await get(`/api/runs/${place}/curves`).catch((error) => { if (error instanceof Gone) return { points: [], marks: [] }; throw error; });
    curves.points = all.points;
    curves.marks = all.marks;
    draw();
  }

  const none = h("p", { class: "quiet" }, "No numbers yet: the first come with the first step.");
  show(head, h("h2", {}, "Curves"), none, charts, legend, rest);
  const board = get("/api/board");
  await load();
  if (gone) return;
  await loadCurves();
  follow({ run: place }, {
    lines: (news) => news.runs.some((row) => row.namespace === namespace && row.name === name) && loadSoon(),
    reset: loadSoon,
    point: (point) => { curves.points.push(point); if (curves.points.length > 4000) loadCurves(); else drawSoon(); },
    mark: (mark) => { curves.marks.push(mark); drawSoon(); loadSoon(); },
    "reset-curves": loadCurves,
  }, (await board).id);
  return { restyle: () => drawn.forEach(({ chart }) => chart.again()), leave: () => { clearTimeout(waiting); drawn.forEach(({ chart }) => chart.remove()); } };
}
