// Puts it together: plots, legends, buttons, paper.

const page = JSON.parse(document.getElementById("data").textContent);
let printing = false;
let asked = false;

function drawAll() {
  asked = false;
  const range = document.getElementById("range");
  if (range) {
    const shown = `${format.instant(view.from, view.span)} to ${format.instant(view.to, view.span)}`;
    range.textContent = view.whole ? "all" : shown;
  }
  for (const plot of plots) drawPlot(plot, printing);
}

function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(drawAll);
}

function build() {
  const ends = page.figures.flatMap((figure) => [
    ...figure.phases.map((phase) => phase.end),
    ...figure.memory.map((tier) => tier.time[tier.time.length - 1] || 0),
  ]);
  const timelines = page.figures.map((figure) => figure.timeline && readTimeline(figure.timeline));
  for (const timeline of timelines.filter(Boolean)) {
    for (const [, to] of timeline.rows) ends.push(timeline.end[to - 1]);
  }
  const starts = page.figures.map((figure) => figure.phases[0].start);
  view.low = Math.min(...starts);
  view.high = Math.max(...ends, view.low + 1000);
  view.from = view.low;
  view.to = view.high;
  page.figures.forEach((figure, i) => {
    const host = document.getElementById(`timeline-${i}`);
    if (host) addTimeline(host, figure, timelines[i], page.kinds);
    figure.memory.forEach((tier, k) => {
      addMemory(document.getElementById(`memory-${i}-${k}`), figure, tier, page.occupants);
    });
  });
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
  drawAll();
}

for (const swatch of document.querySelectorAll("canvas.swatch")) {
  drawSwatch(swatch, page[swatch.dataset.of][Number(swatch.dataset.place)]);
}
if (page.figures.length) {
  build();
  drawAll();
  new ResizeObserver(redraw).observe(document.querySelector("main"));
}
window.addEventListener("beforeprint", toPaper);
window.addEventListener("afterprint", fromPaper);
window.offsim = { view, plots, page, format };
