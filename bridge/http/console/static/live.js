// Follows what happens in running visits. A card is fetched anew when something in it has changed; words on
// their way, and the clock, are put in by hand.

const list = document.getElementById("live");
const nobody = document.getElementById("nobody");
const line = document.getElementById("line");
const SOON_MS = 250;
const STAYS_MS = 20000;
const AGAIN_MS = 2000;
const due = new Set();
const gone = new Set();
let working = false;

function card(visit) {
  return document.getElementById(`v-${visit}`);
}

function tidy() {
  nobody.hidden = list.children.length > 0;
}

async function renew(visit) {
  const answer = await fetch(`/console/live/${encodeURIComponent(visit)}`);
  if (answer.redirected) return location.reload(); // to the log-in page
  if (answer.status === 404 || gone.has(visit)) return;
  if (!answer.ok) throw new Error(String(answer.status));
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("article");
  const old = card(visit);
  if (old) {
    if (old.querySelector("details")?.open) fresh.querySelector("details")?.setAttribute("open", "");
    old.replaceWith(fresh);
  } else {
    list.append(fresh);
  }
  const said = fresh.querySelector(".said");
  said.scrollTop = said.scrollHeight;
  tidy();
}

// One after the other, however many visits run: a page must not be a burden. Nobody looks at a hidden one.
async function work() {
  if (working || document.hidden) return;
  working = true;
  while (due.size && !document.hidden) {
    const [visit] = due;
    due.delete(visit);
    try {
      await renew(visit);
    } catch {
      due.add(visit);
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }
  working = false;
}

function soon(visit) {
  if (gone.has(visit)) return;
  if (!due.size) setTimeout(work, SOON_MS);
  due.add(visit);
}

document.addEventListener("visibilitychange", work);

function over(visit) {
  due.delete(visit);
  gone.add(visit);
  const old = card(visit);
  if (!old) return;
  old.classList.add("over");
  for (const form of old.querySelectorAll("form")) form.remove();
  setTimeout(() => {
    old.remove();
    tidy();
  }, STAYS_MS);
}

function partial(visit, data) {
  const place = card(visit)?.querySelector(
    `[data-leg="${CSS.escape(data.leg)}"][data-speaker="${CSS.escape(data.speaker)}"]`,
  );
  if (!place) return soon(visit);
  place.querySelector("[data-words]").textContent = data.text;
  place.hidden = !data.text;
  place.parentElement.scrollTop = place.parentElement.scrollHeight;
}

function speaking(visit, data) {
  card(visit)?.querySelector(`[data-leg-badge="${CSS.escape(data.leg)}"]`)?.classList.toggle("live", data.on);
}

function took(kind, event) {
  const told = JSON.parse(event.data);
  const visit = told.visit;
  if (!visit) return;
  if (kind === "partial") partial(visit, told.data);
  else if (kind === "speaking") speaking(visit, told.data);
  else if (kind === "visit.over") over(visit);
  else soon(visit);
}

const KINDS = [
  "visit.started", "leg.connected", "leg.ended", "session.lost", "session.replaced", "session.own_voice",
  "turn", "partial", "speaking", "tool.called", "tool.answered", "dial.started", "decision", "gate.requested",
  "gate.answered", "visit.cost", "visit.hung_up", "visit.ended", "visit.over", "state",
];

function follow() {
  const events = new EventSource(list.dataset.events);
  events.addEventListener("open", () => {
    line.textContent = line.dataset.on;
    line.className = "badge good live";
  });
  events.addEventListener("error", () => {
    line.textContent = line.dataset.off;
    line.className = "badge warn";
    // It does not try again where it was refused: the session may be over.
    if (events.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), AGAIN_MS);
  });
  for (const kind of KINDS) events.addEventListener(kind, (event) => took(kind, event));
  // What was missed is not known: look at all of it anew.
  events.addEventListener("lost", () => location.reload());
  addEventListener("pagehide", () => events.close());
}

setInterval(() => {
  for (const place of list.querySelectorAll(".call:not(.over) [data-since]")) {
    const seconds = Math.max(0, Math.round((Date.now() - Date.parse(place.dataset.since)) / 1000));
    place.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }
}, 1000);

for (const said of list.querySelectorAll(".said")) said.scrollTop = said.scrollHeight;
follow();
