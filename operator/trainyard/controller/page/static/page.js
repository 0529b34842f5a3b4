// From the address to a view. Links change the address without a load; back and forward work.
import { h, problem, show } from "./dom.js";
import { lines } from "./lines.js";
import { unfollow } from "./server.js";

let view;

function logIn(again) {
  unfollow();
  show(h("form", { class: "login", method: "post", action: "/login" }, h("h1", {}, "Log in"), again && problem("This token is not known."),
    h("label", { for: "token" }, "Token (for example from kubectl create token NAME)"), h("input", { id: "token", name: "token", type: "password", autocomplete: "off", required: true, autofocus: true }), h("button", { type: "submit" }, "Log in")));
}

async function route() {
  view?.leave?.();
  view = undefined;
  const [, section, namespace, name] = location.pathname.split("/").map(decodeURIComponent);
  const query = new URLSearchParams(location.search);
  document.querySelectorAll("nav a").forEach((a) => a.toggleAttribute("aria-current", a.dataset.view === (["schedules", "sweeps"].includes(section) ? section : "runs")));
  try {
    if (section === "login") logIn(query.has("again"));
    else if (section === "runs") view = await (await import("./run.js")).run(namespace, name);
    else if (section === "compare") view = await (await import("./compare.js")).compare(query);
    else if (section === "schedules") { const module = await import("./schedules.js"); await (name ? module.schedule(namespace, name) : module.schedules()); }
    else if (section === "sweeps") { const module = await import("./sweeps.js"); await (name ? module.sweep(namespace, name) : module.sweeps()); }
    else await lines(query);
  } catch (error) {
    show(problem(`${error.message}. `), h("button", { type: "button", onclick: route }, "Try again"));
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='/']");
  if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  history.pushState(null, "", link.getAttribute("href"));
  route();
  document.getElementById("view").focus();
});
document.addEventListener("keydown", (event) => {
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (event.key === "/") { event.preventDefault(); document.querySelector("input[type=search]")?.focus(); }
  if (event.key === "j" || event.key === "k") {
    const links = [...document.querySelectorAll("td.name a")], at = links.indexOf(document.activeElement);
    links[Math.min(links.length - 1, Math.max(0, at + (event.key === "j" ? 1 : -1)))]?.focus();
  }
});
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
  view?.restyle?.();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view?.restyle?.());
addEventListener("popstate", route);
route();
