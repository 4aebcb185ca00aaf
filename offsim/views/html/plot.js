// A plot over time: a canvas for what there is, one over it for what the pointer is at; and its input.

const LEFT = 138;
const RIGHT = 16;
const AXIS = 20;
const PRINTED = 900; // width of a plot on paper before it is scaled to the page, in CSS pixels
const plots = [];

/**
 * `draw(context, plot)` paints, `point(plot, x, y)` returns what is there or null, `mark(context, plot, found)` paints
 * it over, `describe(found)` gives its tip. `plot.x(time)` and `plot.time(x)` convert.
 */
function addPlot(host, label, height, parts) {
  const base = host.appendChild(document.createElement("canvas"));
  const over = host.appendChild(document.createElement("canvas"));
  base.tabIndex = 0;
  base.setAttribute("role", "application");
  base.setAttribute("aria-label", label);
  base.setAttribute("aria-describedby", "help");
  over.className = "over";
  over.setAttribute("aria-hidden", "true");
  const plot = {
    axis: AXIS,
    ...parts,
    host,
    base,
    over,
    height,
    found: null,
    width: 0,
    left: LEFT,
    x: (time) => plot.left + ((time - view.from) / view.span) * plot.inner,
    time: (x) => view.from + ((x - plot.left) / plot.inner) * view.span,
    get inner() {
      return plot.width - plot.left - RIGHT;
    },
  };
  plots.push(plot);
  listen(plot);
  return plot;
}

/** A cleared canvas of the plot's size, to be drawn on in CSS pixels. */
function prepared(canvas, plot, ratio) {
  canvas.width = Math.round(plot.width * ratio);
  canvas.height = Math.round(plot.height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

function drawPlot(plot, printing) {
  plot.width = printing ? PRINTED : plot.host.clientWidth;
  plot.left = plot.width < 560 ? 92 : LEFT;
  if (plot.inner < 10) return;
  const context = prepared(plot.base, plot, printing ? 3 : window.devicePixelRatio || 1);
  plot.base.style.height = printing ? "auto" : `${plot.height}px`;
  plot.draw(context, plot);
  drawOver(plot);
}

function drawOver(plot, cursor = null, selection = null) {
  const context = prepared(plot.over, plot, window.devicePixelRatio || 1);
  if (plot.found && plot.mark) plot.mark(context, plot, plot.found);
  if (selection) {
    const [x0, x1] = selection.map((x) => Math.min(Math.max(x, plot.left), plot.width - RIGHT));
    context.fillStyle = "#0072B233";
    context.fillRect(x0, 0, x1 - x0, plot.height - plot.axis);
  }
  if (cursor !== null && cursor >= plot.left && cursor <= plot.width - RIGHT) {
    context.fillStyle = theme.muted;
    context.fillRect(Math.round(cursor), 0, 1, plot.height - plot.axis);
  }
}

/** Shade the phases, draw grid, axis of time and end; leaves the context clipped to the plot's inside. */
function drawGround(context, plot, { phases, end, fits }, top) {
  const bottom = plot.height - plot.axis;
  context.fillStyle = theme.plot;
  context.fillRect(plot.left, top, plot.inner, bottom - top);
  const unit = timeUnit(view.span);
  context.font = SMALL;
  context.textBaseline = "middle";
  context.textAlign = "center";
  const marks = ticks(view.from / unit.ns, view.to / unit.ns, plot.inner / 85);
  if (plot.axis) {
    context.fillStyle = theme.muted;
    for (const value of marks) {
      context.fillText(`${Number(value.toFixed(7))}`, plot.x(value * unit.ns), plot.height - AXIS / 2 + 2);
    }
    context.textAlign = "right";
    context.fillText(`time (${unit.name})`, plot.left - 20, plot.height - AXIS / 2 + 2);
  }
  context.save();
  context.beginPath();
  context.rect(plot.left, 0, plot.inner, plot.height);
  context.clip();
  context.fillStyle = theme.band;
  phases.forEach((phase, i) => {
    if (i % 2 === 0) context.fillRect(plot.x(phase.start), top, plot.x(phase.end) - plot.x(phase.start), bottom - top);
  });
  context.fillStyle = theme.line;
  for (const value of marks) context.fillRect(Math.round(plot.x(value * unit.ns)), top, 1, bottom - top);
  context.strokeStyle = theme.muted;
  context.setLineDash([3, 2]);
  context.lineWidth = 1;
  for (const phase of phases) {
    const x = Math.round(plot.x(phase.end)) + 0.5;
    drawLine(context, [x, top], [x, bottom]);
  }
  context.setLineDash([]);
  context.fillStyle = theme.ink;
  if (fits) context.fillRect(Math.round(plot.x(end)) - 1, top, 2, bottom - top);
}

function listen(plot) {
  const canvas = plot.base;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  let drag = null;
  const hover = (event) => {
    const [x, y] = at(event);
    plot.found = plot.point(plot, x, y);
    canvas.style.cursor = plot.found && plot.found.phase ? "pointer" : "crosshair";
    for (const other of plots) {
      if (other !== plot) other.found = null;
      drawOver(other, x);
    }
    if (plot.found) showTip(plot.describe(plot.found), event.clientX, event.clientY);
    else hideTip();
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const [x] = at(event);
    drag = { x, from: view.from, to: view.to, pans: event.shiftKey || event.pointerType === "touch", moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x] = at(event);
    if (drag && Math.abs(x - drag.x) > 4) drag.moved = true;
    if (!drag || !drag.moved) {
      hover(event);
      return;
    }
    hideTip();
    plot.found = null;
    if (drag.pans) {
      const shift = ((drag.x - x) / plot.inner) * (drag.to - drag.from);
      view.set(drag.from + shift, drag.to + shift);
    } else {
      for (const other of plots) drawOver(other, null, [Math.min(drag.x, x), Math.max(drag.x, x)]);
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    const [x, y] = at(event);
    const done = drag;
    drag = null;
    if (!done) return;
    if (done.moved && !done.pans) {
      const [from, to] = [Math.min(done.x, x), Math.max(done.x, x)].map(plot.time);
      view.set(Math.max(from, view.from), Math.min(to, view.to));
    } else if (!done.moved) {
      if (event.pointerType === "touch") hover(event);
      const found = plot.point(plot, x, y);
      if (found && found.phase) view.set(found.phase.start, found.phase.end);
    }
  });
  canvas.addEventListener("pointercancel", () => {
    drag = null;
  });
  canvas.addEventListener("pointerleave", (event) => {
    // A finger leaves at once: its tip stays until the next touch.
    if (event.pointerType === "touch") return;
    plot.found = null;
    plots.forEach((other) => drawOver(other));
    hideTip();
  });
  canvas.addEventListener("dblclick", () => view.reset());
  canvas.addEventListener(
    "wheel",
    (event) => {
      const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
      const pixels = event.deltaMode === 1 ? 20 : 1;
      // The wheel scrolls the page unless the reader has taken hold of the plot.
      if (!event.ctrlKey && !event.metaKey && document.activeElement !== canvas) return;
      event.preventDefault();
      if (sideways) view.pan((event.deltaX * pixels) / plot.inner);
      else view.zoom(Math.exp(event.deltaY * pixels * 0.002), plot.time(Math.max(at(event)[0], plot.left)));
      hover(event);
    },
    { passive: false },
  );
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = {
      "+": () => view.zoom(0.5),
      "=": () => view.zoom(0.5),
      "-": () => view.zoom(2),
      0: () => view.reset(),
      Home: () => view.reset(),
      ArrowLeft: () => view.pan(-0.2),
      ArrowRight: () => view.pan(0.2),
      Escape: () => leave(plot),
    };
    const steps = { n: [0, 1], p: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    if (moves[event.key]) moves[event.key]();
    else if (steps[event.key] && plot.step) goTo(plot, plot.step(plot, ...steps[event.key]));
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("blur", () => leave(plot));
}

/** Drop what the keyboard or the pointer is at. */
function leave(plot) {
  plot.found = null;
  drawOver(plot);
  hideTip();
}

/** Bring an activity into view and say what it is. */
function goTo(plot, found) {
  const [start, end] = [found.start, found.end];
  if (end < view.from || start > view.to) view.set((start + end - view.span) / 2, (start + end + view.span) / 2);
  plot.found = found;
  drawOver(plot);
  plot.base.scrollIntoView({ block: "nearest" });
  const box = plot.base.getBoundingClientRect();
  const x = Math.min(Math.max(plot.x((start + end) / 2), plot.left), plot.width - RIGHT);
  showTip(plot.describe(found), box.left + x, box.top + found.y, true);
}
