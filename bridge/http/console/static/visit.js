// The page of one visit: plays its calls, follows them in the picture and in the story, and asks again while
// the visit runs. The sound's time is the visit's time. Without this file the browser's own player plays.

const root = document.getElementById("visit");
const scroller = root.querySelector("[data-picture]");
const audio = root.querySelector("[data-audio]");
const player = root.querySelector("[data-player]");
const controls = root.querySelector("[data-controls]");
const STEP_S = 5;

let svg = scroller.querySelector("svg");
let happened = [];

function control(name) {
  return player.querySelector(`[data-${name}]`);
}

function readStory() {
  happened = [...root.querySelectorAll("[data-story] [data-at]")].map((row) => ({
    row,
    at: Number(row.dataset.at) / 1000,
  }));
}

function clock(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes, left] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(left)}` : `${minutes}:${two(left)}`;
}

// ---- the picture -------------------------------------------------------------------------------------------

function xOf(seconds) {
  const { left, plot, length } = svg.dataset;
  return Number(left) + (Math.min(seconds * 1000, Number(length)) * Number(plot)) / Number(length);
}

function secondsAt(clientX) {
  const box = svg.getBoundingClientRect();
  const x = ((clientX - box.left) * svg.viewBox.baseVal.width) / box.width;
  const { left, plot, length } = svg.dataset;
  const ms = ((x - Number(left)) * Number(length)) / Number(plot);
  return Math.min(Math.max(ms, 0), Number(length)) / 1000;
}

// What the lanes are called stays in sight however far the picture is moved aside.
function pin() {
  svg.querySelector("[data-names]")?.setAttribute("transform", `translate(${scroller.scrollLeft} 0)`);
}

function clicked(event) {
  if (!event.target.closest("svg") || event.target.closest("[data-names]")) return;
  const mark = event.target.closest(".at");
  // A mark is thinner than a finger: it plays from its own time, a wide thing from where it was clicked.
  const thin = mark && mark.getBoundingClientRect().width < 24;
  seek(thin ? Number(mark.dataset.ms) / 1000 : secondsAt(event.clientX));
  if (mark) show(root.querySelector(`[data-story] [data-record="${mark.dataset.record}"]`));
}

async function zoomTo(link) {
  const answer = await fetch(`/console/visits/${root.dataset.visit}/picture?zoom=${link.dataset.zoom}`);
  if (!answer.ok) return void location.assign(link.href);
  const middle = secondsAt(scroller.getBoundingClientRect().left + scroller.clientWidth / 2);
  put(await answer.text());
  scroller.scrollLeft = xOf(middle) - scroller.clientWidth / 2;
  history.replaceState(null, "", link.href);
  for (const each of root.querySelectorAll("[data-zoom]")) {
    const current = each === link;
    each.classList.toggle("primary", current);
    each.classList.toggle("plain", !current);
    current ? each.setAttribute("aria-current", "true") : each.removeAttribute("aria-current");
  }
}

function put(text) {
  const drawn = new DOMParser().parseFromString(text, "text/html").querySelector("svg");
  svg.replaceWith(drawn);
  svg = drawn;
  pin();
  move();
}

// ---- playing -------------------------------------------------------------------------------------------------

function seek(seconds) {
  if (!audio) return;
  audio.currentTime = seconds;
  move();
  audio.play();
}

function step(seconds) {
  audio.currentTime = Math.max(0, audio.currentTime + seconds);
  move();
}

function toggle() {
  audio.paused ? audio.play() : audio.pause();
}

function show(row) {
  const story = root.querySelector("[data-story]");
  if (!row || story.scrollHeight <= story.clientHeight) return;
  const above = row.offsetTop - story.scrollTop;
  if (above < 40 || above > story.clientHeight - row.offsetHeight - 20) {
    story.scrollTop = row.offsetTop - story.clientHeight / 3;
  }
}

function move() {
  if (!audio) return;
  const now = audio.currentTime;
  const cursor = svg.querySelector(".cursor");
  const x = xOf(now);
  cursor.setAttribute("x1", x);
  cursor.setAttribute("x2", x);
  svg.classList.toggle("playing", now > 0 || !audio.paused);
  control("now").textContent = clock(now);
  const position = control("position");
  if (document.activeElement !== position || audio.paused === false) position.value = now;
  if (control("follow").checked && !audio.paused) follow(now, x);
}

function follow(now, x) {
  if (x < scroller.scrollLeft || x > scroller.scrollLeft + scroller.clientWidth - 24) {
    scroller.scrollLeft = x - scroller.clientWidth / 4;
  }
  let current = null;
  for (const each of happened) {
    if (each.at > now + 0.05) break;
    current = each.row;
  }
  for (const each of happened) each.row.classList.toggle("now", each.row === current);
  show(current);
}

function tick() {
  move();
  if (!audio.paused) requestAnimationFrame(tick);
}

function choose(leg) {
  const [now, playing, rate] = [audio.currentTime, !audio.paused, audio.playbackRate];
  audio.src = player.dataset.sound + (leg ? `?leg=${encodeURIComponent(leg)}` : "");
  audio.playbackRate = rate;
  audio.currentTime = now;
  if (playing) audio.play();
}

function pressed(event) {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === " " && !typing && !event.target.closest("button, a, summary")) toggle();
  else if (event.key === "ArrowLeft" && !typing) step(-STEP_S);
  else if (event.key === "ArrowRight" && !typing) step(STEP_S);
  else return;
  event.preventDefault();
}

function listen() {
  audio.controls = false;
  audio.hidden = true;
  controls.hidden = false;
  control("aids").hidden = false;
  const play = control("play");
  audio.addEventListener("play", () => {
    play.textContent = play.dataset.playing;
    tick();
  });
  for (const name of ["pause", "ended"]) {
    audio.addEventListener(name, () => (play.textContent = play.dataset.paused));
  }
  audio.addEventListener("seeked", move);
  play.addEventListener("click", toggle);
  control("position").addEventListener("input", (event) => {
    audio.currentTime = Number(event.target.value);
    move();
  });
  control("speed").addEventListener("change", (event) => {
    audio.playbackRate = audio.defaultPlaybackRate = Number(event.target.value);
  });
  control("legs")?.addEventListener("change", (event) => choose(event.target.value));
  document.addEventListener("keydown", pressed);
}

root.addEventListener("click", (event) => {
  const [from, by, zoom] = ["[data-seek]", "[data-step]", "[data-zoom]"].map((each) => event.target.closest(each));
  if (zoom) {
    event.preventDefault();
    zoomTo(zoom);
  } else if (from) seek(Number(from.dataset.seek) / 1000);
  else if (by) step(Number(by.dataset.step));
  else if (scroller.contains(event.target)) clicked(event);
});

// ---- while the visit runs --------------------------------------------------------------------------------------

const TOLD = [
  "leg.connected", "leg.ended", "turn", "tool.called", "tool.answered", "dial.started", "dial.ended",
  "briefing.played", "parties.connected", "parties.ended", "evidence", "decision", "gate.answered",
  "session.lost", "session.replaced", "visit.cost", "visit.ended", "visit.over",
];
const TOGETHER_MS = 800;

function keepUp() {
  const events = new EventSource(`/v1/events?visit=${root.dataset.visit}&kinds=${TOLD.join(",")}`);
  let waiting = 0;
  const soon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => refresh(events), TOGETHER_MS);
  };
  for (const kind of [...TOLD, "lost"]) events.addEventListener(kind, soon);
}

// What was written anew takes the place of what was there; the player and a half-written review stay.
async function refresh(events) {
  const answer = await fetch(location.href);
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("visit");
  if (!fresh) return;
  for (const part of ["[data-why]", "[data-story] tbody", "[data-facts]"]) {
    root.querySelector(part)?.replaceChildren(...fresh.querySelector(part).childNodes);
  }
  document.querySelector("main > header").replaceWith(page.querySelector("main > header"));
  const drawn = fresh.querySelector("[data-picture] svg");
  svg.replaceWith(drawn);
  svg = drawn;
  pin();
  readStory();
  move();
  if ("running" in fresh.dataset) return;
  events.close();
  // Its recordings are whole now, and its length is known.
  if (!audio || audio.paused) location.reload();
}

scroller.addEventListener("scroll", pin, { passive: true });
readStory();
if (audio) listen();
if ("running" in root.dataset) keepUp();
