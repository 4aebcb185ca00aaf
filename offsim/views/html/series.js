// The page's columns as arrays that are quick to draw from. Times are nanoseconds.

/** Activities: `rows[r]` is the range [from, to) of stream r, in which starts and ends rise. */
function readTimeline(columns) {
  const count = columns.took.length;
  const start = new Float64Array(count);
  const end = new Float64Array(count);
  const row = new Uint16Array(count);
  const rows = [];
  let i = 0;
  columns.counts.forEach((length, r) => {
    const from = i;
    for (let before = 0; i < from + length; i += 1) {
      start[i] = before + columns.gap[i];
      before = end[i] = start[i] + columns.took[i];
      row[i] = r;
    }
    rows.push([from, i]);
  });
  return { ...columns, start, end, row, rows, count };
}

/** Memory of a tier: `levels` has, per instant, the heights of its occupants' borders from the bottom to the top. */
function readMemory(columns) {
  const occupants = [...new Set(columns.occupant)].sort((a, b) => a - b);
  const width = occupants.length + 1;
  const place = new Map(occupants.map((occupant, k) => [occupant, k]));
  const count = columns.time.length;
  const levels = new Float64Array(count * width);
  const held = new Float64Array(occupants.length);
  for (let i = 0; i < count; i += 1) {
    held[place.get(columns.occupant[i])] = columns.bytes[i];
    for (let k = 1; k < width; k += 1) levels[i * width + k] = levels[i * width + k - 1] + held[k - 1];
  }
  return { ...columns, occupants, width, count, levels, time: Float64Array.from(columns.time) };
}

/** The first index in [from, to) whose value is beyond `limit`, else `to`; values rise. */
function firstBeyond(values, limit, from, to) {
  while (from < to) {
    const middle = (from + to) >> 1;
    if (values[middle] > limit) to = middle;
    else from = middle + 1;
  }
  return from;
}
