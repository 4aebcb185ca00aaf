// How busy the links were, below a timeline and on its scale of time: a strip each, full at the link's capacity.

const STRIP = 28;
const SPACE = 6;

function addBandwidth(host, figure) {
  const data = figure.bandwidth.map((link) => ({ ...link, colours: [link.colour, link.colour] }));
  const label = `Bandwidth over time, ${figure.label}: ${data.map((link) => link.name).join(", ")}`;
  return addPlot(host, label, (STRIP + SPACE) * data.length, {
    data,
    axis: 0,
    draw: (context, plot) => drawBandwidth(context, plot, figure),
    point: (plot, x, y) => {
      const link = plot.data[Math.floor(y / (STRIP + SPACE))];
      return link && x >= plot.left && x <= plot.width - RIGHT ? { link, time: plot.time(x) } : null;
    },
    describe: ({ link, time }) => linkTip(link, time, figure),
  });
}

/** Bytes that the link moved until an instant. */
function movedUntil(link, time) {
  const i = firstBeyond(link.time, time, 0, link.time.length) - 1;
  return i < 0 ? 0 : link.moved[i] + (link.rate[i] * (time - link.time[i])) / 1e9;
}

/** Mean bytes per second between two instants. */
const meanRate = (link, from, to) => (to > from ? (movedUntil(link, to) - movedUntil(link, from)) / ((to - from) / 1e9) : 0);

/** What is seen of the iteration itself, from and to. */
const seenOf = (figure) => [Math.max(view.from, figure.phases[0].start), Math.min(view.to, figure.end)];

function drawBandwidth(context, plot, figure) {
  drawGround(context, plot, figure, 0);
  const right = plot.width - RIGHT;
  plot.data.forEach((link, k) => {
    coloured(link);
    const bottom = SPACE + (STRIP + SPACE) * k + STRIP - 2;
    // A pixel is as high as the mean rate in it: what is moved is the area, at every zoom.
    context.fillStyle = link.shown[0];
    let before = movedUntil(link, plot.time(plot.left));
    for (let x = plot.left; x < right; x += 1) {
      const until = movedUntil(link, plot.time(x + 1));
      const rate = (until - before) / (view.span / plot.inner / 1e9);
      const height = Math.min(rate / link.capacity, 1) * (STRIP - 2);
      if (height > 0) context.fillRect(x, bottom - height, 1, height);
      before = until;
    }
    context.strokeStyle = theme.muted;
    context.lineWidth = 1;
    context.setLineDash([4, 3]);
    drawLine(context, [plot.left, bottom - STRIP + 1.5], [right, bottom - STRIP + 1.5]);
    context.setLineDash([]);
    context.fillStyle = theme.plot;
    context.fillRect(plot.left, bottom, plot.inner, SPACE + 2);
    context.fillStyle = theme.muted;
    context.fillRect(plot.left, bottom, plot.inner, 1);
  });
  context.restore();
  context.textAlign = "right";
  context.textBaseline = "middle";
  plot.data.forEach((link, k) => {
    const middle = SPACE + (STRIP + SPACE) * k + STRIP / 2 - 1;
    const share = format.percent(meanRate(link, ...seenOf(figure)) / link.capacity);
    const capacity = `${share} of ${format.rate(link.capacity)}`;
    context.font = plot.left < LEFT ? SMALL : FONT;
    context.fillStyle = theme.ink;
    context.fillText(shortened(context, link.name, plot.left - 12), plot.left - 8, middle - 6);
    context.font = SMALL;
    context.fillStyle = theme.muted;
    context.fillText(fitting(context, [capacity, share], plot.left - 12), plot.left - 8, middle + 7);
  });
}
