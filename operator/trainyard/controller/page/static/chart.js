// Curves over optimizer steps, with lines where something happened. uPlot draws; this prepares.
import { h } from "./dom.js";
import { number } from "./words.js";

const COLOURS = ["#0f9d8f", "#e07a1f", "#6d5ae6", "#d6336c", "#2f7ed8", "#8a9a00", "#b35c00", "#4a9c2d"];
const MARKS = { checkpoint: "#8a949e", restart: "#d97706", "out-of-memory": "#dc2626", step: "#6d5ae6" };
// The library is a script of the old kind, wanted where there is a chart and nowhere else.
await new Promise((resolve, reject) => {
  document.head.append(
    h("link", { rel: "stylesheet", href: "/static/vendor/uPlot.min.css" }),
    h("script", { src: "/static/vendor/uPlot.iife.min.js", onload: resolve, onerror: () => reject(new Error("the charts cannot be loaded")) }),
  );
});

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// One x for all series: the steps at which any of them has a value.
export function aligned(series) {
  const steps = [...new Set(series.flatMap((one) => [...one.keys()]))].sort((a, b) => a - b);
  return [steps, ...series.map((one) => steps.map((step) => one.get(step) ?? null))];
}

function marksPlugin(marks) {
  return {
    hooks: {
      draw: [(plot) => {
        const { ctx, bbox } = plot;
        ctx.save();
        ctx.lineWidth = devicePixelRatio;
        for (const mark of marks()) {
          const x = plot.valToPos(mark.step, "x", true);
          if (x < bbox.left || x > bbox.left + bbox.width) continue;
          ctx.strokeStyle = MARKS[mark.kind] ?? "#888";
          ctx.setLineDash(mark.kind === "checkpoint" ? [2, 4] : []);
          ctx.beginPath();
          ctx.moveTo(x, mark.kind === "checkpoint" ? bbox.top + bbox.height * 0.92 : bbox.top);
          ctx.lineTo(x, bbox.top + bbox.height);
          ctx.stroke();
        }
        ctx.restore();
      }],
    },
  };
}

export function chart(title, names, { marks = () => [], format = number, log = false } = {}) {
  const box = h("section", { class: "chart", "aria-label": title }, h("h3", {}, title));
  let plot, latest;
  function make() {
    plot?.destroy();
    const axis = { stroke: style("--quiet"), grid: { stroke: style("--line"), width: 1 }, ticks: { stroke: style("--line"), width: 1 } };
    plot = new uPlot({
      width: Math.max(240, box.clientWidth - 16), height: 220, cursor: { sync: { key: "steps" } },
      scales: { x: { time: false }, y: log ? { distr: 3 } : {} },
      axes: [{ ...axis }, { ...axis, size: 62, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : format(tick, 3))) }],
      series: [{ label: "step" }, ...names.map((label, index) => ({ label, stroke: COLOURS[index % COLOURS.length], width: 1.5, spanGaps: true, points: { show: names.length > 1 && index > 0 ? undefined : false }, value: (_, value) => (value === null ? "–" : format(value)) }))],
      plugins: [marksPlugin(marks)],
    }, latest ?? [[], ...names.map(() => [])], box);
  }
  const sized = new ResizeObserver(() => plot?.setSize({ width: Math.max(240, box.clientWidth - 16), height: 220 }));
  return {
    element: box,
    draw(series) {
      latest = aligned(series);
      if (!plot) { make(); sized.observe(box); } else plot.setData(latest);
    },
    again: () => plot && make(),
    remove() { sized.disconnect(); plot?.destroy(); },
  };
}
