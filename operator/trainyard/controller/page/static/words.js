// Values as people read them.
const KINDS = {
  good: ["Succeeded"],
  bad: ["Failed", "Invalid"],
  busy: ["Training", "Evaluating", "Preparing", "Validating", "Running", "Exporting", "Promoting"],
};

export function state(row) {
  const kind = Object.keys(KINDS).find((key) => KINDS[key].includes(row.state)) ?? (row.stalled ? "bad" : "wait");
  return [kind, row.state];
}

export function number(value, digits = 4) {
  if (value === undefined || value === null || value === "" || Number.isNaN(Number(value))) return value ?? "";
  const size = Math.abs(value);
  if (Number.isInteger(Number(value)) && size < 1e15) return Number(value).toLocaleString("en");
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? Number(value).toExponential(2) : Number(value).toPrecision(digits);
}

export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "";
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${s % 60 ? `${s % 60}s` : ""}`;
  if (s < 172800) return `${Math.floor(s / 3600)}h${Math.floor((s % 3600) / 60)}m`;
  return `${Math.floor(s / 86400)}d`;
}

export function since(time) {
  return time ? duration((Date.now() - Date.parse(time)) / 1000) : "";
}

export function moment(time) {
  return time ? new Date(time).toLocaleString() : "";
}

export function when(time) {
  if (!time) return "";
  const ahead = (Date.parse(time) - Date.now()) / 1000;
  return ahead >= 0 ? `in ${duration(ahead)}` : `${duration(-ahead)} ago`;
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = Number(value), unit = 0;
  while (size >= 1000 && unit < units.length - 1) { size /= 1000; unit += 1; }
  return Number.isFinite(size) ? `${size.toPrecision(3)} ${units[unit]}` : "";
}
