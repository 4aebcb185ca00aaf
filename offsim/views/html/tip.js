// The tip beside the pointer: a title and lines of (name, text). Texts only: nothing in it is read as HTML.

const tip = document.getElementById("tip");

function showTip({ title, colour, lines }, x, y, aloud = false) {
  tip.replaceChildren();
  const head = tip.appendChild(document.createElement("strong"));
  if (colour) {
    const swatch = head.appendChild(document.createElement("i"));
    swatch.style.background = colour;
  }
  head.append(title);
  const list = tip.appendChild(document.createElement("dl"));
  for (const [name, text] of lines) {
    list.appendChild(document.createElement("dt")).textContent = name;
    list.appendChild(document.createElement("dd")).textContent = text;
  }
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const right = x + 16 + width > window.innerWidth - 8;
  const below = y + 16 + height > window.innerHeight - 8;
  tip.style.left = `${Math.max(8, right ? x - 16 - width : x + 16)}px`;
  tip.style.top = `${Math.max(8, below ? y - 16 - height : y + 16)}px`;
  if (aloud) document.getElementById("said").textContent = [title, ...lines.map((line) => line.join(": "))].join("; ");
}

function hideTip() {
  tip.hidden = true;
}

const between = (start, end) => {
  const span = Math.max(Math.min(end - start, view.span), 1);
  const [from, to] = [start, end].map((time) => format.instant(time, span, timeUnit(view.span)));
  return `${from} to ${to}`;
};

function phaseTip(phase) {
  const lines = [["time", between(phase.start, phase.end)], ["took", phase.text], ["click", "shows this phase alone"]];
  return { title: phase.name, colour: "", lines };
}

function linkTip(link, time, figure) {
  const i = firstBeyond(link.time, time, 0, link.time.length) - 1;
  const [now, mean] = [i < 0 ? 0 : link.rate[i], meanRate(link, ...seenOf(figure))];
  const lines = [
    ["time", format.instant(time, view.span)],
    ["now", `${format.rate(now)}, ${format.percent(now / link.capacity)} of ${format.rate(link.capacity)}`],
    ["mean of what is shown", `${format.rate(mean)}, ${format.percent(mean / link.capacity)}`],
  ];
  return { title: link.name, colour: link.shown[0], lines };
}

function activityTip(data, index, looks, figure) {
  const i = data.same[index];
  if (i < 0) {
    const known = looks[data.kind[index]];
    const lines = [["time", between(data.start[index], data.end[index])], ["took", format.time(data.end[index] - data.start[index])]];
    return { title: known.id === "wait" ? "waiting" : `${known.label} of another rank`, colour: known.shown[0], lines };
  }
  const look = looks[data.kind[i]];
  const took = data.end[i] - data.start[i];
  const lines = [
    ["stream", data.streams[data.row[i]]],
    ["activity", look.label],
    ["time", between(data.start[i], data.end[i])],
    ["took", format.time(took)],
  ];
  if (data.early[i]) lines.push(["left over", "from the previous iteration"]);
  if (data.end[i] > figure.end) lines.push(["runs", "into the next iteration"]);
  if (data.on_path[i]) lines.push(["critical path", `${format.time(data.on_path[i])} of it`]);
  if (data.alone[i]) {
    const slower = (took / data.alone[i]).toFixed(2);
    lines.push(["alone", `${format.time(data.alone[i])}: it took ${slower} times as long`]);
  }
  if (data.limit[i]) lines.push(["slowed by", data.limit[i]]);
  if (data.bytes[i]) {
    const rate = took > 0 ? ` at ${format.rate(data.bytes[i] / (took / 1e9))}` : "";
    lines.push(["moved", `${format.bytes(data.bytes[i])}${rate}`]);
  }
  if (data.subgroup[i] >= 0) lines.push(["sub-group", `${data.subgroup[i]}`]);
  if (data.layer[i] >= 0) lines.push(["layer", `${data.layer[i]}`]);
  if (data.waited[i]) lines.push(["asked for", `${format.time(data.waited[i])} before it began`]);
  const by = data.by[i];
  if (by >= 0) {
    lines.push(["released by", `${data.names[data.name[by]]} (${data.streams[data.row[by]]})`]);
  } else {
    lines.push(["released by", by === -1 ? "nothing: it began at once" : "an activity of another rank"]);
  }
  return { title: data.names[data.name[i]], colour: look.shown[data.light[i]], lines };
}

function memoryTip(data, { instant, time }, occupants) {
  const levels = data.levels.subarray(instant * data.width, (instant + 1) * data.width);
  const used = levels[data.width - 1];
  const lines = [["time", format.instant(time, view.span)]];
  lines.push(["taken", `${format.memory(used)}, ${format.percent(used / data.capacity)} of ${format.memory(data.capacity)}`]);
  for (let k = data.width - 2; k >= 0; k -= 1) {
    const held = levels[k + 1] - levels[k];
    if (held > 0) lines.push([occupants[data.occupants[k]].label, format.memory(held)]);
  }
  return { title: `${data.tier} memory`, colour: "", lines };
}
