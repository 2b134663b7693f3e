// Has the chains checked, and shows how far that is: the service sends a line each second.

const button = document.getElementById("verify");
const shown = document.getElementById("verified");

function tell(kind, text, faults = []) {
  shown.className = `notice ${kind}`;
  shown.textContent = text;
  if (faults.length) {
    const list = document.createElement("ul");
    for (const fault of faults) {
      const item = document.createElement("li");
      item.textContent = typeof fault === "string" ? fault : Object.values(fault).join(" · ");
      list.append(item);
    }
    shown.append(list);
  }
  shown.hidden = false;
}

function filled(text, values) {
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

function look(line) {
  const told = JSON.parse(line);
  if (!("sound" in told)) {
    tell("info", filled(button.dataset.running, { seconds: Math.round(told.seconds) }));
  } else if (told.sound) {
    tell("good", filled(button.dataset.sound, told));
  } else {
    tell("bad", filled(button.dataset.faults, { n: told.faults.length }), told.faults);
  }
}

async function verify() {
  button.disabled = true;
  tell("info", filled(button.dataset.running, { seconds: 0 }));
  try {
    const answer = await fetch(button.dataset.url, {
      method: "POST",
      headers: { "x-csrf-token": button.dataset.token },
    });
    if (!answer.ok) throw new Error(String(answer.status));
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      const lines = (rest + (value ?? "")).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line) look(line);
      if (done) break;
    }
    if (rest) look(rest);
  } catch (error) {
    tell("bad", filled(button.dataset.failed, { why: error.message }));
  } finally {
    button.disabled = false;
  }
}

if (button) {
  button.hidden = false;
  button.addEventListener("click", verify);
}
