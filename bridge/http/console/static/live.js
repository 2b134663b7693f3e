// Follows what happens in running visits. A card is fetched anew when something in it has changed; words on
// their way, and the clock, are put in by hand.

const list = document.getElementById("live");
const nobody = document.getElementById("nobody");
const line = document.getElementById("line");
const SOON_MS = 250;
const STAYS_MS = 20000;
const due = new Map();
const asked = new Map();

function card(visit) {
  return document.getElementById(`v-${visit}`);
}

function tidy() {
  nobody.hidden = list.children.length > 0;
}

async function renew(visit) {
  due.delete(visit);
  const turn = (asked.get(visit) ?? 0) + 1;
  asked.set(visit, turn);
  const answer = await fetch(`/console/live/${encodeURIComponent(visit)}`);
  if (asked.get(visit) !== turn) return;
  if (answer.redirected) {
    location.reload();
  } else if (answer.ok) {
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("article");
    const old = card(visit);
    if (old) {
      const open = old.querySelector("details")?.open;
      if (open) fresh.querySelector("details")?.setAttribute("open", "");
      old.replaceWith(fresh);
    } else {
      list.append(fresh);
    }
    const said = fresh.querySelector(".said");
    said.scrollTop = said.scrollHeight;
  }
  tidy();
}

function soon(visit) {
  if (visit && !due.has(visit)) due.set(visit, setTimeout(() => renew(visit), SOON_MS));
}

function over(visit) {
  clearTimeout(due.get(visit));
  due.delete(visit);
  asked.set(visit, Infinity);
  const gone = card(visit);
  if (!gone) return;
  gone.classList.add("over");
  for (const form of gone.querySelectorAll("form")) form.remove();
  setTimeout(() => {
    gone.remove();
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
