// What is asked of the operator: JSON, and one stream of events for as long as somebody looks.
export class Gone extends Error {}

export async function get(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  if (answer.status === 401) {
    if (location.pathname !== "/login") location.assign("/login");
    throw new Gone("a token is needed");
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 404) throw new Gone(body.error ?? "not found");
  if (!answer.ok) throw new Error(body.error ?? `the operator answers ${answer.status}`);
  return body;
}

let source, wanted, newest;

function status(state, words) {
  const link = document.getElementById("link");
  link.dataset.state = state;
  link.textContent = words;
}

function open() {
  source?.close();
  source = undefined;
  if (!wanted || document.hidden) return;
  const query = new URLSearchParams(wanted.query);
  if (newest) query.set("last", newest);
  const mine = (source = new EventSource(`/api/events?${query}`));
  mine.onopen = () => status("live", "live");
  mine.onerror = () => {
    status("away", "reconnecting …");
    // A browser gives up on an answer that is no stream (the operator restarts behind a proxy); here nobody does.
    if (mine.readyState === EventSource.CLOSED && mine === source) setTimeout(() => mine === source && open(), 2000);
  };
  for (const [event, handler] of Object.entries(wanted.handlers)) {
    mine.addEventListener(event, (message) => {
      newest = message.lastEventId || newest;
      handler(JSON.parse(message.data));
    });
  }
}

// One stream a page: a browser has six connections to a server, for all of its tabs.
export function follow(query, handlers, from) {
  wanted = { query, handlers };
  newest = from;
  open();
}

export function unfollow() {
  wanted = undefined;
  open();
}

document.addEventListener("visibilitychange", open);
addEventListener("pagehide", () => source?.close());
