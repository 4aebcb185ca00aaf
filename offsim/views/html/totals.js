// Operations that are looked for by name, and totals of what is seen.

/** Positions of the activities whose name is looked for, all of them where none is. */
const isWanted = (data, i) => !view.wanted || data.names[data.name[i]].toLowerCase().includes(view.wanted);

/** By kind: seconds, seconds of the critical path, activities and bytes between two instants. */
function totalsOf(data, from, to) {
  const totals = new Map();
  for (let i = 0; i < data.start.length; i += 1) {
    const took = data.end[i] - data.start[i];
    const inside = Math.min(data.end[i], to) - Math.max(data.start[i], from);
    const same = data.same[i];
    if (inside < Math.min(took, 1)) continue;
    if (same >= 0 ? !isWanted(data, same) : view.wanted) continue;
    if (!totals.has(data.kind[i])) totals.set(data.kind[i], { time: 0, path: 0, count: 0, bytes: 0 });
    const sum = totals.get(data.kind[i]);
    if (i >= data.count) {
      sum.path += inside;
      continue;
    }
    sum.time += inside;
    sum.count += 1;
    sum.bytes += took ? (data.bytes[i] * inside) / took : data.bytes[i];
  }
  return totals;
}

function showTotals(table, data, looks) {
  const body = table.tBodies[0];
  body.replaceChildren();
  const totals = totalsOf(data, view.from, view.to);
  for (const [kind, look] of looks.entries()) {
    const sum = totals.get(kind);
    if (!sum) continue;
    const row = body.insertRow();
    const head = row.appendChild(document.createElement("th"));
    head.scope = "row";
    head.appendChild(swatchOf(look));
    head.append(look.label);
    const texts = [sum.time, sum.path].map((time) => (time ? format.time(time) : ""));
    texts.push(`${sum.count}`, sum.bytes ? format.bytes(sum.bytes) : "");
    for (const text of texts) row.insertCell().textContent = text;
  }
}

/** Show the next activity that is looked for, after the one that is marked, in any of the timelines. */
function nextWanted() {
  const drawn = plots.filter((plot) => plot.step);
  const all = drawn.flatMap((plot) =>
    [...Array(plot.data.count).keys()]
      .filter((i) => isWanted(plot.data, i))
      .sort((a, b) => plot.data.start[a] - plot.data.start[b])
      .map((i) => [plot, i]),
  );
  if (!all.length) return;
  const at = all.findIndex(([plot, i]) => plot.found && plot.found.index === i);
  const [plot, i] = all[(at + 1) % all.length];
  for (const other of drawn) leave(other);
  goTo(plot, activityAt(plot, i));
}

/** How many are found, of how many. */
function foundText() {
  const drawn = plots.filter((plot) => plot.step);
  const count = (wanted) => drawn.reduce((sum, { data }) => sum + data.name.filter((_, i) => wanted(data, i)).length, 0);
  return view.wanted ? `${count(isWanted)} of ${count(() => true)}` : "";
}
