// The stretch of time that all plots show, and what they bring out: the critical path, operations that are looked for.

const view = {
  low: 0,
  high: 1,
  from: 0,
  to: 1,
  path: true,
  wanted: "",
  changed: () => {},
  /** Show as much of [from, to] as there is, but not less than 200 ns. */
  set(from, to) {
    const span = Math.min(Math.max(to - from, 200), view.high - view.low);
    const middle = (from + to) / 2;
    view.from = Math.min(Math.max(middle - span / 2, view.low), view.high - span);
    view.to = view.from + span;
    view.changed();
  },
  get span() {
    return view.to - view.from;
  },
  get whole() {
    return view.span >= (view.high - view.low) * (1 - 1e-9);
  },
  /** Show `factor` times as much, the instant `at` staying where it is. */
  zoom(factor, at = (view.from + view.to) / 2) {
    const span = Math.min(Math.max(view.span * factor, 200), view.high - view.low);
    const from = at - ((at - view.from) / view.span) * span;
    view.set(from, from + span);
  },
  /** Move by a share of what is seen. */
  pan(share) {
    view.set(view.from + share * view.span, view.to + share * view.span);
  },
  reset() {
    view.set(view.low, view.high);
  },
};
