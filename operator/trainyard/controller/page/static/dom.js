// Elements without markup: text stays text, whatever a run's author has written.
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(9).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

export function show(...children) {
  const view = document.getElementById("view");
  view.replaceChildren(...children.flat(9).filter(Boolean));
  return view;
}

export function problem(words) {
  return h("div", { class: "now", role: "alert" }, words);
}
