"use strict";
// Everything is on the page; this only hides and sorts. Without it the page can be read all the same.
const byId = (id) => document.getElementById(id);
const configuration = byId("configuration-filter"), partition = byId("partition-filter"), changed = byId("changed-filter");
const rows = [...document.querySelectorAll("table.sortable tbody tr[data-id]")];
const significant = new Set(rows.filter((row) => "changed" in row.dataset).map((row) => row.dataset.id));

function filter() {
  const wanted = configuration.value.trim().toLowerCase(), value = partition.value.trim().toLowerCase();
  const isShown = ({ id, title }) =>
    `${id} ${title}`.toLowerCase().includes(wanted) && (!changed?.checked || significant.has(id));
  for (const element of document.querySelectorAll("[data-id]"))
    element.toggleAttribute("data-hidden", !isShown(element.dataset));
  for (const row of document.querySelectorAll("[data-partition]"))
    row.toggleAttribute("data-hidden", !row.dataset.partition.toLowerCase().includes(value));
  const shown = rows.filter((row) => !row.hasAttribute("data-hidden")).length;
  byId("filter-result").textContent = shown < rows.length ? `${shown} of ${rows.length} configurations` : "";
}

function sort(head) {
  const table = head.closest("table"), body = table.tBodies[0], place = head.cellIndex;
  const before = head.getAttribute("aria-sort");
  const descending = before ? before === "ascending" : "value" in (body.rows[0]?.cells[place].dataset ?? {});
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const key = (row) => {
    const cell = row.cells[place];
    if (!("value" in cell.dataset)) return cell.textContent.trim();
    const number = parseFloat(cell.dataset.value);
    return Number.isNaN(number) ? -Infinity : number;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : `${a}`.localeCompare(`${b}`));
  [...body.rows].sort((a, b) => (descending ? -1 : 1) * compare(key(a), key(b))).forEach((row) => body.append(row));
}

for (const head of document.querySelectorAll("table.sortable thead th:not([data-unsorted])")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  button.addEventListener("click", () => sort(head));
  head.append(button);
}
// A link to the text of a configuration opens it.
const open = () => {
  const target = location.hash.startsWith("#text-") && byId(location.hash.slice(1));
  if (target) target.open = true;
};
addEventListener("hashchange", open);
open();
byId("filters").hidden = false;
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("input", filter);
