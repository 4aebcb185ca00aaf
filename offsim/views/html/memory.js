// What each memory tier held over time, and by whom.

const PANEL = 104;
const ABOVE = 6;

function addMemory(host, figure, columns, occupants, last) {
  const data = readMemory(columns);
  const axis = last ? AXIS : 0;
  return addPlot(host, `Memory of ${data.tier} over time, ${figure.label}: ${data.text}`, ABOVE + PANEL + axis, {
    data,
    axis,
    draw: (context, plot) => drawMemory(context, plot, figure, occupants),
    point: (plot, x) => (x < plot.left || x > plot.width - RIGHT ? null : heldAt(plot, x)),
    describe: (found) => memoryTip(data, found, occupants),
  });
}

function drawMemory(context, plot, figure, occupants) {
  const { data } = plot;
  drawGround(context, plot, figure, ABOVE);
  const bottom = plot.height - plot.axis;
  const most = 1.12 * Math.max(data.peak, data.on_scale ? data.capacity : 0, 1);
  const y = (bytes) => bottom - (bytes / most) * PANEL;
  const stretches = stretchesOf(plot, Math.max(figure.end, data.time[data.count - 1]));
  data.occupants.forEach((occupant, k) => {
    const look = occupants[occupant];
    context.beginPath();
    for (const [x0, x1, i] of stretches) {
      const [low, high] = [data.levels[i * data.width + k], data.levels[i * data.width + k + 1]];
      if (high > low) context.rect(x0, y(high), x1 - x0, y(low) - y(high));
    }
    fillWith(context, look, look.shown[0]);
  });
  context.strokeStyle = theme.ink;
  context.lineWidth = 0.8;
  const top = (i) => y(data.levels[(i + 1) * data.width - 1]);
  drawLine(context, ...stretches.flatMap(([x0, x1, i]) => [[x0, top(i)], [x1, top(i)]]));
  if (data.on_scale) {
    context.setLineDash([6, 3]);
    context.lineWidth = 1.2;
    drawLine(context, [plot.left, y(data.capacity)], [plot.width - RIGHT, y(data.capacity)]);
    context.setLineDash([]);
  }
  context.beginPath();
  context.arc(plot.x(data.peak_ns), y(data.peak), 3, 0, 2 * Math.PI);
  context.fillStyle = theme.plot;
  context.fill();
  context.lineWidth = 1.3;
  context.stroke();
  context.restore();
  const unit = data.peak >= 2 ** 30 ? { name: "GiB", bytes: 2 ** 30 } : { name: "MiB", bytes: 2 ** 20 };
  context.font = SMALL;
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.fillStyle = theme.muted;
  const marks = ticks(0, most / unit.bytes, 3);
  marks.forEach((value, i) => {
    const text = `${Number(value.toFixed(6))}${i === marks.length - 1 ? ` ${unit.name}` : ""}`;
    context.fillText(text, plot.left - 8, Math.min(y(value * unit.bytes), bottom - 5));
    context.fillRect(plot.left - 4, Math.round(y(value * unit.bytes)), 4, 1);
  });
}

/** What is seen as [x0, x1, instant]: in a pixel with several instants the most that was used, from there on the last. */
function stretchesOf(plot, end) {
  const { data } = plot;
  const used = (i) => data.levels[(i + 1) * data.width - 1];
  const found = [];
  let i = Math.max(firstBeyond(data.time, view.from, 0, data.count) - 1, 0);
  if (!data.count) return found;
  let x = Math.max(plot.x(data.time[i]), plot.left);
  while (i < data.count && data.time[i] <= view.to) {
    const next = Math.floor(x) + 1;
    let most = i;
    let last = i;
    while (last + 1 < data.count && plot.x(data.time[last + 1]) < next) {
      last += 1;
      if (used(last) > used(most)) most = last;
    }
    const beyond = plot.x(last + 1 < data.count ? data.time[last + 1] : end);
    const until = Math.min(beyond, plot.width - RIGHT);
    if (last > i && until > next) found.push([x, next, most], [next, until, last]);
    else found.push([x, until, most]);
    x = beyond;
    i = last + 1;
  }
  return found;
}

function heldAt(plot, x) {
  const { data } = plot;
  const end = data.time[data.count - 1];
  const used = (i) => data.levels[(i + 1) * data.width - 1];
  // A spike of a pixel can be hit: of what is within a pixel or so, the most that was used.
  const near = stretchesOf(plot, Math.max(end, view.high)).filter(([x0, x1]) => x0 <= x + 1.5 && x - 1.5 <= x1);
  if (!near.length) return null;
  const [, , instant] = near.reduce((most, one) => (used(one[2]) > used(most[2]) ? one : most));
  return { instant, time: plot.time(x) };
}
