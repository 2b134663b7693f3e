// The telephone of a test call: microphone and loudspeaker over a WebSocket, and what happens in the visit.

const RATE = 24000;
const MOST_UNSENT = 2 * 2 * RATE; // bytes that the network may be behind: 2 s; beyond that what is said is let go

const telephone = document.getElementById("telephone");
const { role, id } = telephone.dataset;
const words = JSON.parse(telephone.dataset.words);
const part = (name) => document.getElementById(name);
const [start, hangUp, keys, level] = ["start", "hang-up", "keys", "level"].map(part);

let socket = null;
let sound = null;
let token = "";
let talking = false;
let over = false;

// ---- What is shown ----------------------------------------------------------------------------------------

function status(name, kind = "calm") {
  const badge = part("status");
  badge.textContent = words[`status.${name}`];
  badge.className = `badge ${kind}`;
  telephone.dataset.status = name;
}

function trouble(text) {
  part("trouble").textContent = text;
  part("trouble").hidden = !text;
}

function add(list, build) {
  const items = part(list);
  for (const empty of items.querySelectorAll(":scope > .muted")) empty.remove();
  const item = document.createElement("li");
  build(item);
  items.append(item);
  items.scrollTop = items.scrollHeight;
}

function piece(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function said({ leg, speaker, text }) {
  const of = leg.split("-")[0];
  add("said", (item) => {
    item.className = speaker === "agent" ? "us" : "them";
    const who = words[`speaker.${speaker === "agent" ? "agent" : of}`];
    const whom = speaker === "agent" && of === "resident" ? ` → ${words["speaker.resident"]}` : "";
    item.append(piece("span", who + whom, "speaker"), ` ${text || words.wordless}`);
  });
}

function happened(name, detail = "", code = false) {
  add("happened", (item) => {
    item.append(piece("strong", words[`event.${name}`]));
    if (detail) item.append(" ", piece(code ? "code" : "span", detail));
  });
}

function seen(kind, data) {
  switch (kind) {
    case "turn":
      return said(data);
    case "tool.called":
      return happened("tool", `${data.name} ${JSON.stringify(data.arguments)}`, true);
    case "dial.started":
      return happened("dial.started", data.apartment ?? "");
    case "dial.ended":
      return happened(data.outcome === "answered" ? "answered" : "not_answered", data.detail ?? "");
    case "decision":
      telephone.dataset.decision = data.decision;
      return happened("decision", words[`decision.${data.decision}`]);
    case "gate.answered":
      return happened("gate");
    case "visit.ended":
      telephone.dataset.outcome = data.outcome;
      return happened("ended", words[`outcome.${data.outcome}`] ?? data.outcome);
  }
}

// ---- Sound ------------------------------------------------------------------------------------------------

async function openSound() {
  const microphone = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  });
  const context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
  await context.audioWorklet.addModule(telephone.dataset.worklet);
  await context.resume();
  const ear = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  const mouth = new AudioWorkletNode(context, "loudspeaker", { numberOfInputs: 0, outputChannelCount: [1] });
  context.createMediaStreamSource(microphone).connect(ear);
  mouth.connect(context.destination);
  ear.port.onmessage = ({ data }) => heard(data);
  return { microphone, context, mouth };
}

function heard(pcm) {
  let loudest = 0;
  for (const sample of new Int16Array(pcm)) loudest = Math.max(loudest, Math.abs(sample));
  level.value = loudest / 32768;
  if (talking && socket?.readyState === WebSocket.OPEN && socket.bufferedAmount < MOST_UNSENT) socket.send(pcm);
}

function closeSound() {
  for (const track of sound?.microphone.getTracks() ?? []) track.stop();
  sound?.context.close();
  sound = null;
  level.value = 0;
}

// ---- The call ---------------------------------------------------------------------------------------------

function connect() {
  const url = new URL(`/ws/test-calls/${id}/${role}`, location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") told(JSON.parse(data));
    else sound?.mouth.port.postMessage(data, [data]);
  };
  socket.onclose = ({ code, reason }) => closed(code, reason);
}

function told(message) {
  switch (message.type) {
    case "ready":
      talking = true;
      status("talking", "info");
      start.hidden = true;
      hangUp.hidden = false;
      if (keys) keys.hidden = false;
      return;
    case "ringing":
      token = message.token;
      start.disabled = false;
      return status("ringing", "warn");
    case "quiet":
      token = "";
      if (role === "resident" && !talking) start.disabled = true;
      return status("waiting");
    case "interrupted":
      if (message.leg.split("-")[0] === role) sound?.mouth.port.postMessage("flush");
      return;
    case "error":
      return trouble(message.detail);
    case "event":
      return seen(message.kind, message.data);
    case "ended":
      over = true;
  }
}

function closed(code, reason) {
  talking = false;
  closeSound();
  hangUp.hidden = true;
  if (keys) keys.hidden = true;
  start.disabled = true;
  const orderly = over || code === 1000;
  status(orderly ? "over" : code >= 4000 || code === 1008 || code === 1013 ? "refused" : "lost", orderly ? "calm" : "bad");
  if (!orderly) trouble(reason);
  part("after").hidden = false;
}

start.addEventListener("click", async () => {
  start.disabled = true;
  trouble("");
  status("starting");
  try {
    sound = await openSound();
  } catch (error) {
    start.disabled = false;
    trouble(String(error.message ?? error));
    return status("no_microphone", "bad");
  }
  if (role === "visitor") {
    status("calling", "info");
    connect();
  } else {
    socket.send(JSON.stringify({ type: "answer", token }));
  }
});

hangUp.addEventListener("click", () => socket?.send(JSON.stringify({ type: "hangup" })));
keys?.addEventListener("click", ({ target }) => {
  const key = target.closest("[data-key]")?.dataset.key;
  if (key) socket?.send(JSON.stringify({ type: "key", key }));
});

if (role === "resident") connect();
