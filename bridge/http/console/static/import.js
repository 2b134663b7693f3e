// Sends a file as it is, shows what importing it would do, and sends it again to have it done.

const form = document.getElementById("import");
const report = document.getElementById("report");

function address(confirmed) {
  const file = form.querySelector("[type=file]").files[0];
  const told = new URLSearchParams({ name: file.name.slice(0, 120) });
  if (form.elements.replace.checked) told.set("replace", "1");
  if (confirmed) told.set("confirm", confirmed);
  return `${form.getAttribute("action")}?${told}`;
}

async function send(confirmed) {
  const file = form.querySelector("[type=file]").files[0];
  const buttons = [...document.querySelectorAll("#import button, #report button")];
  for (const button of buttons) button.disabled = true;
  try {
    const answer = await fetch(address(confirmed), {
      method: "POST",
      body: file,
      headers: { "content-type": "application/octet-stream", [form.dataset.header]: form.dataset.token },
    });
    if (answer.redirected) {
      location.assign(answer.url);
      return;
    }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    report.replaceChildren(page.querySelector("[data-report]") ?? page.querySelector("main"));
    report.scrollIntoView({ block: "start" });
  } catch {
    report.textContent = form.dataset.failed;
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  send("");
});

// Another file, or another choice: what is shown is no longer what would be done.
form?.addEventListener("change", () => report.replaceChildren());

report?.addEventListener("click", (event) => {
  const button = event.target.closest("[data-confirm-import]");
  if (button) send(button.dataset.confirmImport);
});
