// The page's columns as arrays that are quick to draw from. Times are nanoseconds.

/** Lists of whole numbers, which are in base 36, repeated ones as `number*times`. */
function unpacked(key, value) {
  if (!value || value.ints === undefined) return value;
  return value.ints.split(" ").flatMap((word) => {
    const [number, times] = word.split("*").map((digits) => parseInt(digits, 36));
    return times ? Array(times).fill(number) : number;
  });
}

/** The instants that gaps lead to. */
function summed(gaps) {
  let at = 0;
  return Float64Array.from(gaps, (gap) => (at += gap));
}

/**
 * Activities: `rows[r]` is the range [from, to) of stream r, in which starts and ends rise. The steps of the critical
 * path follow as a row of their own: `same` is the activity of a step, `onPath` the time that an activity is on it.
 */
function readTimeline(columns) {
  const { path } = columns;
  const count = columns.took.length;
  const all = count + path.took.length;
  const [start, end, onPath] = [new Float64Array(all), new Float64Array(all), new Float64Array(all)];
  const row = new Uint16Array(all);
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
  let at = 0;
  path.took.forEach((took, k) => {
    start[count + k] = at;
    at = end[count + k] = at + took;
    row[count + k] = rows.length;
    if (path.of[k] >= 0) onPath[path.of[k]] += took;
  });
  const same = Int32Array.from({ length: all }, (_, k) => (k < count ? k : path.of[k - count]));
  const early = new Set(columns.early);
  return {
    ...columns,
    bytes: columns.size.map((place) => columns.sizes[place]),
    kind: [...columns.kind, ...path.of.map((place) => (place < 0 ? path.kind.shift() : columns.kind[place]))],
    early,
    start,
    end,
    row,
    rows: [...rows, [count, all]],
    same,
    onPath,
    count,
  };
}

/** Bytes per second of a link: `moved[i]` is what it moved until instant i. */
function readLink(columns) {
  const time = summed(columns.gap);
  const rate = Float64Array.from(columns.rate, (place) => columns.rates[place]);
  const moved = new Float64Array(time.length);
  for (let i = 1; i < time.length; i += 1) moved[i] = moved[i - 1] + (rate[i - 1] * (time[i] - time[i - 1])) / 1e9;
  return { ...columns, time, rate, moved };
}

/** Memory of a tier: `levels` has, per instant, the heights of its occupants' borders from the bottom to the top. */
function readMemory(columns) {
  const occupants = [...new Set(columns.occupant)].sort((a, b) => a - b);
  const width = occupants.length + 1;
  const place = new Map(occupants.map((occupant, k) => [occupant, k]));
  const time = summed(columns.gap);
  const levels = new Float64Array(time.length * width);
  const held = new Float64Array(occupants.length);
  for (let i = 0; i < time.length; i += 1) {
    held[place.get(columns.occupant[i])] = columns.bytes[i];
    for (let k = 1; k < width; k += 1) levels[i * width + k] = levels[i * width + k - 1] + held[k - 1];
  }
  return { ...columns, occupants, width, count: time.length, levels, time };
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
