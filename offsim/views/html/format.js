// Quantities as offsim/views/style.py writes them.

function scaled(value, base, units) {
  let power = 0;
  // 999.5 would be rounded to "1000": it belongs to the next unit already.
  while (Math.abs(value) >= (base === 1000 ? 999.5 : base - 0.5) && power < units.length - 1) {
    value /= base;
    power += 1;
  }
  const size = Math.abs(value);
  const whole = size >= 99.95 || (power === 0 && Number.isInteger(value));
  return `${value.toFixed(whole ? 0 : size >= 9.995 ? 1 : 2)} ${units[power]}`;
}

const format = {
  time(ns) {
    const seconds = ns / 1e9;
    const size = Math.abs(seconds);
    if (size === 0) return "0 s";
    if (size >= 0.9995) return `${seconds.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2)} s`;
    return scaled(ns, 1000, ["ns", "µs", "ms", "s"]);
  },
  /** An instant to so many digits that neighbours in what is seen differ. */
  instant(ns, span, unit = timeUnit(span)) {
    const digits = Math.max(0, Math.ceil(2 - Math.log10(span / unit.ns)));
    return `${(ns / unit.ns).toFixed(Math.min(digits, 7))} ${unit.name}`;
  },
  bytes: (count) => scaled(count, 1000, ["B", "kB", "MB", "GB", "TB", "PB"]),
  memory: (count) => scaled(count, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]),
  rate: (perSecond) => `${format.bytes(perSecond)}/s`,
  percent: (share) => `${(100 * share).toFixed(share >= 0.9995 ? 0 : 1)} %`,
};

/** The unit of an axis that shows this many nanoseconds. */
function timeUnit(span) {
  if (span >= 2e8) return { name: "s", ns: 1e9 };
  return span >= 2e5 ? { name: "ms", ns: 1e6 } : { name: "µs", ns: 1e3 };
}

/** Round values from low to high, about `count` of them. */
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) values.push(i * step);
  return values;
}
