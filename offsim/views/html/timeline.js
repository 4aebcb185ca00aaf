// What each stream did when, below the critical path.

const HEAD = 24;
const ROW = 19;
const BAR = 13;
const WAIT = 4;
const APART = 6; // more between groups of streams

function addTimeline(host, figure, data, looks) {
  const label = `Timeline of ${figure.label}: what each stream did when`;
  let bottom = HEAD + 4;
  const place = (apart) => {
    bottom += ROW + apart;
    return bottom - ROW;
  };
  const onPath = place(0);
  const tops = data.groups.map((group, r) => place(r && group === data.groups[r - 1] ? 0 : APART));
  return addPlot(host, label, bottom + 2 + AXIS, {
    data,
    tops: [...tops, onPath],
    draw: (context, plot) => drawTimeline(context, plot, figure, looks),
    point: (plot, x, y) => pointAt(plot, x, y, figure),
    step: stepFrom,
    mark: markActivity,
    describe: (found) => (found.phase ? phaseTip(found.phase) : activityTip(data, found.index, looks, figure)),
  });
}

function drawTimeline(context, plot, figure, looks) {
  const { data, tops } = plot;
  const path = data.rows.length - 1;
  drawGround(context, plot, figure, HEAD);
  drawPhases(context, plot, figure);
  context.fillStyle = theme.line;
  data.groups.forEach((group, r) => {
    if (r === 0 || group !== data.groups[r - 1]) context.fillRect(plot.left, tops[r] - 6, plot.inner, 1);
  });
  const wanted = view.wanted && data.names.map((name) => name.toLowerCase().includes(view.wanted));
  data.rows.forEach(([from, to], row) => {
    if (row < path || view.path) drawRow(context, plot, looks, row, from, to, wanted);
  });
  if (view.path && !wanted) drawPath(context, plot);
  // Right of the end, where another scenario takes longer, stands how long this one took.
  const x = plot.x(figure.end) + 7;
  context.font = BOLD;
  context.fillStyle = theme.ink;
  if (view.whole && x + textWidth(context, figure.total) < plot.width - RIGHT) {
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.fillText(figure.total, x, HEAD / 2);
  }
  context.restore();
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.font = plot.left < LEFT ? SMALL : FONT;
  context.fillStyle = theme.ink;
  const room = plot.left - 12;
  const label = (name, row) => context.fillText(name, plot.left - 8, tops[row] + BAR / 2 + 0.5);
  data.streams.forEach((name, row) => label(shortened(context, name, room), row));
  context.fillStyle = theme.path;
  if (view.path) label(fitting(context, ["critical path", "critical"], room), path);
}

function drawPhases(context, plot, { phases, end }) {
  context.textBaseline = "middle";
  context.textAlign = "center";
  context.font = FONT;
  const named = (from, to, texts) => {
    const x0 = Math.max(plot.x(from), plot.left) + 1;
    const x1 = Math.min(plot.x(to), plot.width - RIGHT) - 1;
    if (x1 - x0 < 2) return null;
    context.fillText(fitting(context, texts, x1 - x0), (x0 + x1) / 2, (HEAD - 5) / 2 + 0.5);
    return [x0, x1];
  };
  context.strokeStyle = theme.muted;
  context.lineWidth = 1;
  context.fillStyle = theme.ink;
  for (const phase of phases) {
    const edges = named(phase.start, phase.end, [`${phase.name}  ${phase.text}`, phase.name]);
    if (!edges) continue;
    const [x0, x1] = edges;
    drawLine(context, [x0, HEAD], [x0, HEAD - 4.5], [x1, HEAD - 4.5], [x1, HEAD]);
  }
  context.fillStyle = theme.muted;
  const last = Math.max(...plot.data.rows.map(([, to]) => plot.data.end[to - 1]));
  if (last > end) named(end, last, ["next iteration", "next"]);
}

/** Bars of at least a pixel, and of those that share a pixel the longest, but rather one that is looked for. */
function drawRow(context, plot, looks, row, from, to, wanted) {
  const { data } = plot;
  const scale = plot.inner / view.span;
  const found = (i) => !wanted || (data.same[i] >= 0 && wanted[data.name[data.same[i]]]);
  const weight = (i) => data.end[i] - data.start[i] + (found(i) ? 1e15 : 0);
  const faint = (i, draw) => {
    context.globalAlpha = found(i) ? 1 : 0.13;
    draw(context, plot, looks, row, i);
    context.globalAlpha = 1;
  };
  let slim = -1;
  context.font = SMALL;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let i = firstBeyond(data.end, view.from, from, to); i < to && data.start[i] <= view.to; i += 1) {
    const x0 = plot.left + (data.start[i] - view.from) * scale;
    if ((data.end[i] - data.start[i]) * scale < 1) {
      const pixel = Math.floor(x0);
      const shared = slim >= 0 && pixel === Math.floor(plot.left + (data.start[slim] - view.from) * scale);
      if (slim >= 0 && !shared) faint(slim, drawSlim);
      if (!shared || weight(i) > weight(slim)) slim = i;
      continue;
    }
    if (slim >= 0) faint(slim, drawSlim);
    slim = -1;
    faint(i, drawBar);
  }
  if (slim >= 0) faint(slim, drawSlim);
}

const shade = (plot, looks, i) => looks[plot.data.kind[i]].shown[plot.data.light[plot.data.same[i]] || 0];

function drawSlim(context, plot, looks, row, i) {
  const height = looks[plot.data.kind[i]].id === "wait" ? WAIT : BAR;
  context.fillStyle = shade(plot, looks, i);
  context.fillRect(Math.floor(plot.x(plot.data.start[i])), plot.tops[row] + (BAR - height) / 2, 1, height);
}

function drawBar(context, plot, looks, row, i) {
  const { data } = plot;
  const look = looks[data.kind[i]];
  const same = data.same[i];
  const wait = look.id === "wait";
  const colour = shade(plot, looks, i);
  const height = wait ? WAIT : BAR;
  const y = plot.tops[row] + (BAR - height) / 2;
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
  if (i === same && data.alone[i]) {
    const lost = Math.max(plot.x(data.start[i] + data.alone[i]), x);
    context.fillStyle = theme.ink;
    context.fillRect(lost, plot.tops[row] + BAR, Math.max(0.5, end - lost), 2);
  }
  if (wait || width < 9 || same < 0) return;
  const number = data.subgroup[same] >= 0 ? `${data.subgroup[same]}` : "";
  const text = fitting(context, [data.names[data.name[same]], number], width - 6);
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

/** A line over the bars of the critical path, and a thin one from the end of one to the next where there is room. */
function drawPath(context, plot) {
  const { data, tops } = plot;
  const [from, to] = data.rows[data.rows.length - 1];
  context.fillStyle = theme.path;
  let before = null;
  for (let i = firstBeyond(data.end, view.from, from, to); i < to && data.start[i] <= view.to; i += 1) {
    const y = data.same[i] < 0 ? null : tops[data.row[data.same[i]]] - 2;
    const x = plot.x(data.start[i]);
    const width = plot.x(data.end[i]) - x;
    if (y !== null) context.fillRect(x, y, Math.max(width, 0.7), 2);
    if (y !== null && before && before.width + width > 8) {
      context.globalAlpha = 0.55;
      context.fillRect(x - 0.5, Math.min(y, before.y), 1, Math.abs(y - before.y));
      context.globalAlpha = 1;
    }
    before = y === null ? null : { y, width };
  }
}

function pointAt(plot, x, y, figure) {
  if (x < plot.left || x > plot.width - RIGHT) return null;
  const time = plot.time(x);
  if (y < HEAD) {
    const phase = figure.phases.find((one) => one.start <= time && time <= one.end);
    return phase ? { phase } : null;
  }
  const { data, tops } = plot;
  const row = tops.findIndex((top) => y >= top - 3 && y < top - 3 + ROW);
  if (row < 0 || (row === data.rows.length - 1 && !view.path)) return null;
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
  return best < 0 ? null : activityAt(plot, best);
}

const activityAt = (plot, index) => ({
  index,
  start: plot.data.start[index],
  end: plot.data.end[index],
  y: plot.tops[plot.data.row[index]] + BAR,
});

/** A neighbour of the activity that is marked: `along` in its stream, or in the row that is so much further `down`. */
function stepFrom(plot, down, along) {
  const { data } = plot;
  const known = plot.found && plot.found.index !== undefined ? plot.found.index : -1;
  const nearest = ([from, to], time) => Math.min(firstBeyond(data.end, time, from, to), to - 1);
  if (known < 0) return activityAt(plot, nearest(data.rows[0], (view.from + view.to) / 2));
  const row = data.row[known];
  if (along) {
    const [from, to] = data.rows[row];
    return activityAt(plot, Math.min(Math.max(known + along, from), to - 1));
  }
  const other = Math.min(Math.max(row + down, 0), data.streams.length - 1);
  return activityAt(plot, other === row ? known : nearest(data.rows[other], data.start[known]));
}

/** Outline the activity and the one that released it, with a line from the end of that one. */
function markActivity(context, plot, found) {
  if (found.index === undefined) return;
  const { data, tops } = plot;
  context.save();
  context.beginPath();
  context.rect(plot.left, 0, plot.inner, plot.height);
  context.clip();
  context.strokeStyle = theme.ink;
  const outline = (i, width) => {
    const x = plot.x(data.start[i]);
    context.lineWidth = width;
    context.strokeRect(x - 0.5, tops[data.row[i]] - 0.5, Math.max(plot.x(data.end[i]) - x, 1) + 1, BAR + 1);
  };
  outline(found.index, 2);
  const same = data.same[found.index];
  if (same !== found.index && same >= 0) outline(same, 2);
  const by = data.by[same];
  if (by >= 0) {
    outline(by, 1);
    const middle = (i) => tops[data.row[i]] + BAR / 2;
    context.lineWidth = 1.5;
    context.setLineDash([4, 2]);
    drawLine(context, [plot.x(data.end[by]), middle(by)], [plot.x(data.start[same]), middle(same)]);
  }
  context.restore();
}
