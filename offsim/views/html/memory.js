// What each memory tier held over time, and by whom.

const PANEL = 132;
const ABOVE = 8;

function addMemory(host, figure, columns, occupants) {
  const data = readMemory(columns);
  const label = `Memory of ${data.tier} over time, ${figure.label}: ${data.peak_text}, ${data.capacity_text}`;
  return addPlot(host, label, ABOVE + PANEL + AXIS, {
    data,
    draw: (context, plot) => drawMemory(context, plot, figure, occupants),
    point: (plot, x) => (x < plot.left || x > plot.width - RIGHT ? null : heldAt(plot, x)),
    mark: null,
    describe: (found) => memoryTip(data, found, occupants),
  });
}

function drawMemory(context, plot, figure, occupants) {
  const { data } = plot;
  drawGround(context, plot, figure.phases, ABOVE);
  const bottom = plot.height - AXIS;
  const most = 1.24 * Math.max(data.peak, data.on_scale ? data.capacity : 0, 1);
  const y = (bytes) => bottom - (bytes / most) * PANEL;
  const stretches = stretchesOf(plot, Math.max(figure.phases[figure.phases.length - 1].end, data.time[data.count - 1]));
  data.occupants.forEach((occupant, k) => {
    const look = occupants[occupant];
    context.beginPath();
    for (const [x0, x1, i] of stretches) {
      const [low, high] = [data.levels[i * data.width + k], data.levels[i * data.width + k + 1]];
      if (high > low) context.rect(x0, y(high), x1 - x0, y(low) - y(high));
    }
    context.fillStyle = look.colours[0];
    context.fill();
    if (look.hatch) {
      context.fillStyle = hatch(context, look.hatch);
      context.fill();
    }
  });
  context.beginPath();
  for (const [x0, x1, i] of stretches) {
    const top = y(data.levels[(i + 1) * data.width - 1]);
    context.lineTo(x0, top);
    context.lineTo(x1, top);
  }
  context.strokeStyle = theme.ink;
  context.lineWidth = 0.8;
  context.stroke();
  if (data.on_scale) {
    context.setLineDash([6, 3]);
    context.lineWidth = 1.2;
    context.beginPath();
    context.moveTo(plot.left, y(data.capacity));
    context.lineTo(plot.width - RIGHT, y(data.capacity));
    context.stroke();
    context.setLineDash([]);
  }
  context.restore();
  drawTexts(context, plot, y, most);
}

function drawTexts(context, plot, y, most) {
  const { data } = plot;
  const unit = data.peak >= 2 ** 30 ? { name: "GiB", bytes: 2 ** 30 } : { name: "MiB", bytes: 2 ** 20 };
  context.font = SMALL;
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.fillStyle = theme.muted;
  for (const value of ticks(0, most / unit.bytes, 4)) {
    context.fillText(`${Number(value.toFixed(6))}`, plot.left - 8, y(value * unit.bytes));
    context.fillRect(plot.left - 4, Math.round(y(value * unit.bytes)), 4, 1);
  }
  context.save();
  context.font = FONT;
  context.fillStyle = theme.ink;
  context.translate(plot.left - 46, ABOVE + PANEL / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText(`${data.tier} (${unit.name})`, 0, 0);
  context.restore();
  const note = (text, x, top, align) => {
    context.font = SMALL;
    context.textAlign = align;
    const width = textWidth(context, text);
    const left = align === "right" ? x - width : align === "center" ? x - width / 2 : x;
    context.globalAlpha = 0.8;
    context.fillStyle = theme.plot;
    context.fillRect(left - 3, top - 7, width + 6, 14);
    context.globalAlpha = 1;
    context.fillStyle = theme.ink;
    context.fillText(text, x, top + 0.5);
  };
  const at = plot.x(data.peak_ns);
  const peakRight = at > plot.left + plot.inner / 2;
  const [edge, side] = peakRight ? [plot.left + 8, "left"] : [plot.width - RIGHT - 6, "right"];
  if (data.on_scale) note(data.capacity_text, edge, y(data.capacity) - 10, side);
  else note(`${data.capacity_text} (beyond the axis)`, edge, ABOVE + 9, side);
  if (at < plot.left - 1 || at > plot.width - RIGHT + 1) return;
  context.font = SMALL;
  const half = textWidth(context, data.peak_text) / 2 + 6;
  const centre = Math.min(Math.max(at, plot.left + half), plot.width - RIGHT - half);
  const near = data.on_scale && Math.abs(y(data.peak) - 12 - y(data.capacity)) < 12;
  note(data.peak_text, centre, near ? y(data.capacity) - 12 : y(data.peak) - 12, "center");
  context.beginPath();
  context.arc(at, y(data.peak), 3, 0, 2 * Math.PI);
  context.fillStyle = theme.plot;
  context.fill();
  context.strokeStyle = theme.ink;
  context.lineWidth = 1.3;
  context.stroke();
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
