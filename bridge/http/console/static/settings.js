// A table that comes in several kinds shows the fields of the chosen one.

for (const select of document.querySelectorAll("select[data-kinds]")) {
  const show = () => {
    const kind = select.value || select.dataset.default;
    for (const field of document.querySelectorAll(`[data-kind^="${select.dataset.kinds}:"]`)) {
      field.hidden = field.dataset.kind !== `${select.dataset.kinds}:${kind}`;
    }
  };
  select.addEventListener("change", show);
  show();
}

// Leaving with changes that were not saved: the browser asks.
const form = document.querySelector("form.stack");
let changed = false;
form?.addEventListener("input", () => (changed = true));
form?.addEventListener("submit", () => (changed = false));
addEventListener("beforeunload", (event) => {
  if (changed) event.preventDefault();
});
