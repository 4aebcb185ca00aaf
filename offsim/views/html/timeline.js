// What each stream did when.

const HEAD = 26;
const ROW = 21;
const BAR = 15;
const WAIT = 5;

function addTimeline(host, figure, data, looks) {
  const label = `Timeline of ${figure.label}: what each stream did when`;
  return addPlot(host, label, HEAD + ROW * data.streams.length + 6 + AXIS, {
    data,
    draw: (context, plot) => drawTimeline(context, plot, figure, looks),
    point: (plot, x, y) => pointAt(plot, x, y, figure),
    step: stepFrom,
    mark: markActivity,
    describe: (found) => (found.phase ? phaseTip(found.phase) : activityTip(data, found.index, looks)),
  });
}

const rowTop = (row) => HEAD + 3 + ROW * row;

function drawTimeline(context, plot, figure, looks) {
  const { data } = plot;
  drawGround(context, plot, figure.phases, HEAD);
  drawPhases(context, plot, figure.phases);
  data.rows.forEach(([from, to], row) => drawRow(context, plot, looks, row, from, to));
  const last = figure.phases[figure.phases.length - 1];
  context.fillStyle = theme.ink;
  context.fillRect(Math.round(plot.x(last.end)) - 1, HEAD, 2, plot.height - AXIS - HEAD);
  // Right of the end, where another scenario takes longer, stands how long this one took.
  const x = plot.x(last.end) + 7;
  context.font = BOLD;
  if (x + textWidth(context, figure.total) < plot.width - RIGHT) {
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.fillText(figure.total, x, HEAD + (plot.height - AXIS - HEAD) / 2);
  }
  context.restore();
  context.font = FONT;
  context.fillStyle = theme.ink;
  context.textAlign = "right";
  context.textBaseline = "middle";
  data.streams.forEach((name, row) => {
    context.fillText(shortened(context, name, plot.left - 12), plot.left - 8, rowTop(row) + BAR / 2 + 0.5);
  });
}

function drawPhases(context, plot, phases) {
  context.textBaseline = "middle";
  for (const phase of phases) {
    const x0 = Math.max(plot.x(phase.start), plot.left) + 1;
    const x1 = Math.min(plot.x(phase.end), plot.width - RIGHT) - 1;
    if (x1 - x0 < 2) continue;
    context.strokeStyle = theme.muted;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(x0, HEAD);
    context.lineTo(x0, HEAD - 4.5);
    context.lineTo(x1, HEAD - 4.5);
    context.lineTo(x1, HEAD);
    context.stroke();
    context.font = FONT;
    context.textAlign = "center";
    context.fillStyle = theme.ink;
    const text = fitting(context, [`${phase.name}  ${phase.text}`, phase.name], x1 - x0);
    context.fillText(text, (x0 + x1) / 2, (HEAD - 5) / 2 + 0.5);
  }
}

/** Bars of at least a pixel, and of those that share a pixel the longest. */
function drawRow(context, plot, looks, row, from, to) {
  const { data } = plot;
  const scale = plot.inner / view.span;
  let slim = -1;
  context.font = SMALL;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let i = firstBeyond(data.end, view.from, from, to); i < to && data.start[i] <= view.to; i += 1) {
    const x0 = plot.left + (data.start[i] - view.from) * scale;
    const took = data.end[i] - data.start[i];
    if (took * scale < 1) {
      const pixel = Math.floor(x0);
      const shared = slim >= 0 && pixel === Math.floor(plot.left + (data.start[slim] - view.from) * scale);
      if (slim >= 0 && !shared) drawSlim(context, plot, looks, row, slim);
      if (!shared || took > data.end[slim] - data.start[slim]) slim = i;
      continue;
    }
    if (slim >= 0) drawSlim(context, plot, looks, row, slim);
    slim = -1;
    drawBar(context, plot, looks, row, i);
  }
  if (slim >= 0) drawSlim(context, plot, looks, row, slim);
}

function drawSlim(context, plot, looks, row, i) {
  const look = looks[plot.data.kind[i]];
  const height = look.id === "wait" ? WAIT : BAR;
  context.fillStyle = look.colours[plot.data.light[i]];
  context.fillRect(Math.floor(plot.x(plot.data.start[i])), rowTop(row) + (BAR - height) / 2, 1, height);
}

function drawBar(context, plot, looks, row, i) {
  const { data } = plot;
  const look = looks[data.kind[i]];
  const wait = look.id === "wait";
  const colour = look.colours[data.light[i]];
  const height = wait ? WAIT : BAR;
  const y = rowTop(row) + (BAR - height) / 2;
  // Only what is seen of a bar carries its text.
  const x = Math.max(plot.x(data.start[i]), plot.left - 1);
  const end = Math.min(plot.x(data.end[i]), plot.width - RIGHT + 1);
  const width = end - x;
  context.fillStyle = colour;
  context.fillRect(x, y, width, height);
  if (look.hatch && width > 2) {
    context.fillStyle = hatch(context, look.hatch);
    context.fillRect(x, y, width, height);
  }
  if (data.alone[i]) {
    const lost = Math.max(plot.x(data.start[i] + data.alone[i]), x);
    context.fillStyle = theme.ink;
    context.fillRect(lost, rowTop(row) + BAR, Math.max(0.5, end - lost), 2);
  }
  if (wait || width < 9) return;
  const number = data.subgroup[i] >= 0 ? `${data.subgroup[i]}` : "";
  const text = fitting(context, [data.names[data.name[i]], number], width - 6);
  if (!text) return;
  if (look.hatch) {
    context.lineWidth = 4;
    context.lineJoin = "round";
    context.strokeStyle = colour;
    context.strokeText(text, x + width / 2, y + height / 2 + 0.5);
  }
  context.fillStyle = inkOn(colour);
  context.fillText(text, x + width / 2, y + height / 2 + 0.5);
}

function pointAt(plot, x, y, figure) {
  if (x < plot.left || x > plot.width - RIGHT) return null;
  const time = plot.time(x);
  if (y < HEAD) {
    const phase = figure.phases.find((one) => one.start <= time && time <= one.end);
    return phase ? { phase } : null;
  }
  const row = Math.floor((y - HEAD - 1) / ROW);
  if (row < 0 || row >= plot.data.rows.length) return null;
  const { data } = plot;
  const [from, to] = data.rows[row];
  const pixel = view.span / plot.inner;
  // Within two pixels, so that short ones can be hit: the one at the instant, else the nearest.
  let best = -1;
  let distance = 2 * pixel;
  for (let i = firstBeyond(data.end, time - distance, from, to); i < to && data.start[i] <= time + 2 * pixel; i += 1) {
    const off = Math.max(data.start[i] - time, time - data.end[i], 0);
    if (off < distance || (off === distance && best < 0)) {
      best = i;
      distance = off;
    }
    if (off === 0) break;
  }
  return best < 0 ? null : activityAt(data, best);
}

const activityAt = (data, index) => ({
  index,
  start: data.start[index],
  end: data.end[index],
  y: rowTop(data.row[index]) + BAR,
});

function stepFrom(plot, down, along) {
  const { data } = plot;
  const middle = (view.from + view.to) / 2;
  const known = plot.found && plot.found.index !== undefined ? plot.found.index : -1;
  const nearest = ([from, to], time) => Math.min(firstBeyond(data.end, time, from, to), to - 1);
  if (known < 0) return activityAt(data, nearest(data.rows[0], middle));
  const row = data.row[known];
  if (along) {
    const [from, to] = data.rows[row];
    return activityAt(data, Math.min(Math.max(known + along, from), to - 1));
  }
  const other = Math.min(Math.max(row + down, 0), data.rows.length - 1);
  return activityAt(data, other === row ? known : nearest(data.rows[other], data.start[known]));
}

/** Outline the activity and the one that released it, with a line from the end of that one. */
function markActivity(context, plot, found) {
  if (found.index === undefined) return;
  const { data } = plot;
  context.save();
  context.beginPath();
  context.rect(plot.left, 0, plot.inner, plot.height);
  context.clip();
  context.strokeStyle = theme.ink;
  const outline = (i, width) => {
    const x = plot.x(data.start[i]);
    context.lineWidth = width;
    context.strokeRect(x - 0.5, rowTop(data.row[i]) - 0.5, Math.max(plot.x(data.end[i]) - x, 1) + 1, BAR + 1);
  };
  outline(found.index, 2);
  const by = data.by[found.index];
  if (by >= 0) {
    outline(by, 1);
    const [x0, x1] = [plot.x(data.end[by]), plot.x(found.start)];
    const [y0, y1] = [by, found.index].map((i) => rowTop(data.row[i]) + BAR / 2);
    context.lineWidth = 1.5;
    context.setLineDash([4, 2]);
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
    context.stroke();
  }
  context.restore();
}
