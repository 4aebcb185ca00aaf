// Memory as it is drawn, and where an instant is among others.

/** Memory of a tier: `levels` has, per instant, the heights of its occupants' borders from the bottom to the top. */
function readMemory(columns) {
  const occupants = [...new Set(columns.occupant)].sort((a, b) => a - b);
  const width = occupants.length + 1;
  const place = new Map(occupants.map((occupant, k) => [occupant, k]));
  const { time } = columns;
  const levels = new Float64Array(time.length * width);
  const held = new Float64Array(occupants.length);
  for (let i = 0; i < time.length; i += 1) {
    held[place.get(columns.occupant[i])] = columns.bytes[i];
    for (let k = 1; k < width; k += 1) levels[i * width + k] = levels[i * width + k - 1] + held[k - 1];
  }
  return { ...columns, occupants, width, count: time.length, levels };
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
