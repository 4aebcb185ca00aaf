// Puts it together: plots, legends, search, buttons, paper.

const page = JSON.parse(document.getElementById("data").textContent);
let printing = false;
let asked = false;
const tables = [];

function drawAll() {
  asked = false;
  const range = document.getElementById("range");
  if (range) {
    const shown = `${format.instant(view.from, view.span)} to ${format.instant(view.to, view.span)}`;
    range.textContent = view.whole ? "all of the time" : shown;
  }
  for (const plot of plots) drawPlot(plot, printing);
  for (const [table, data] of tables) showTotals(table, data, page.kinds);
}

/** Take on the page's colours, which may be dark. */
function paint() {
  readTheme();
  for (const look of [...page.kinds, ...page.occupants]) coloured(look);
  for (const swatch of document.querySelectorAll("canvas.swatch[data-of]")) {
    drawSwatch(swatch, page[swatch.dataset.of][Number(swatch.dataset.place)]);
  }
}

function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(drawAll);
}

function build() {
  const ends = [];
  page.figures.forEach((figure, i) => {
    if (figure.timeline) {
      const data = figure.timeline;
      addTimeline(document.getElementById(`timeline-${i}`), figure, data, page.kinds);
      tables.push([document.getElementById(`totals-${i}`), data]);
      ends.push(...data.rows.map(([, to]) => data.end[to - 1]));
    }
    if (figure.bandwidth.length) addBandwidth(document.getElementById(`bandwidth-${i}`), figure);
    figure.memory.forEach((tier, k) => {
      const last = k === figure.memory.length - 1;
      const { data } = addMemory(document.getElementById(`memory-${i}-${k}`), figure, tier, page.occupants, last);
      ends.push(data.time[data.count - 1] || 0);
    });
  });
  view.low = Math.min(...page.figures.map((figure) => figure.phases[0].start));
  view.high = Math.max(...ends, ...page.figures.map((figure) => figure.end), view.low + 1000);
  view.from = view.low;
  view.to = view.high;
  view.changed = redraw;
}

const buttons = {
  in: () => view.zoom(0.5),
  out: () => view.zoom(2),
  left: () => view.pan(-0.3),
  right: () => view.pan(0.3),
  reset: () => view.reset(),
};
for (const button of document.querySelectorAll("[data-zoom]")) {
  button.addEventListener("click", buttons[button.dataset.zoom]);
}

const search = document.getElementById("search");
if (search) {
  search.addEventListener("input", () => {
    view.wanted = search.value.trim().toLowerCase();
    document.getElementById("found").textContent = foundText();
    redraw();
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && view.wanted) nextWanted();
    if (event.key === "Escape") plots.forEach(leave);
  });
  document.getElementById("path").addEventListener("change", (event) => {
    view.path = event.target.checked;
    redraw();
  });
}

let before = null;

/** On paper: everything open, and all of the time. */
function toPaper() {
  if (printing) return;
  printing = true;
  before = { from: view.from, to: view.to, closed: [...document.querySelectorAll("details:not([open])")] };
  before.closed.forEach((details) => {
    details.open = true;
  });
  [view.from, view.to] = [view.low, view.high];
  document.documentElement.className = "paper";
  paint();
  plots.forEach((plot) => {
    plot.found = null;
  });
  drawAll();
}

function fromPaper() {
  if (!printing) return;
  printing = false;
  before.closed.forEach((details) => {
    details.open = false;
  });
  [view.from, view.to] = [before.from, before.to];
  document.documentElement.className = "";
  paint();
  drawAll();
}

paint();
if (page.figures.length) {
  build();
  drawAll();
  new ResizeObserver(redraw).observe(document.querySelector("main"));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  paint();
  redraw();
});
document.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".plot")) hideTip();
});
window.addEventListener("beforeprint", toPaper);
window.addEventListener("afterprint", fromPaper);
window.offsim = { view, plots, page, format };
