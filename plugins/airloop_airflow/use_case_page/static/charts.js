// Charts: lines by uPlot, and a year of drift as one picture.
"use strict";

const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
const seconds = (day) => Date.parse(day) / 1000;

// From the first day that any of `series` knows.
function known(days, series) {
  const first = days.findIndex((_, place) => series.some((values) => values[place] !== null && values[place] !== undefined));
  return first < 0 ? days.length : first;
}

// Vertical lines where another version took over.
function marks(changes) {
  return {
    hooks: {
      draw: (plot) => {
        const { ctx, bbox } = plot;
        ctx.save();
        ctx.strokeStyle = colour("--quiet");
        ctx.fillStyle = colour("--quiet");
        ctx.font = `${11 * devicePixelRatio}px system-ui`;
        ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
        let free = -Infinity;
        for (const change of changes) {
          const x = plot.valToPos(change.at, "x", true);
          if (x < bbox.left || x > bbox.left + bbox.width) continue;
          ctx.beginPath();
          ctx.moveTo(x, bbox.top);
          ctx.lineTo(x, bbox.top + bbox.height);
          ctx.stroke();
          if (x > free) {
            ctx.fillText(change.label, x + 4 * devicePixelRatio, bbox.top + 11 * devicePixelRatio);
            free = x + ctx.measureText(change.label).width + 8 * devicePixelRatio;
          }
        }
        ctx.restore();
      },
    },
  };
}

// A line for each of `lines` ({label, values, colour, dash, bars, scale, digits}) over `days`.
function lineChart(place, days, lines, { height = 210, changes = [], alarmed = [] } = {}) {
  const from = known(days, lines.map((line) => line.values));
  if (from >= days.length) {
    place.replaceChildren(element("p", { class: "quiet" }, "Nothing yet."));
    return null;
  }
  const times = days.slice(from).map(seconds);
  const shown = lines.map((line) => line.values.slice(from));
  const alarms = new Set(alarmed);
  // A few days are not stretched over years of an empty axis.
  const scales = { x: { time: true, range: (_, first, last) => (last - first < 13 * 86400 ? [last - 13 * 86400, last + 86400] : [first, last]) } };
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const dayOf = (at) => new Date(at * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
  const axes = [{ ...axis, grid: { show: false }, space: 60, values: (_, ticks) => ticks.map(dayOf) }];
  lines.forEach((line, number) => {
    const name = line.scale || "y";
    if (scales[name]) return;
    scales[name] = { auto: true, range: line.fromZero ? (_, low, high) => [0, (high || 1) * 1.05] : undefined };
    axes.push({ ...axis, scale: name, side: number ? 1 : 3, size: 52, grid: number ? { show: false } : axis.grid,
      values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : short(tick))) });
  });
  const plot = new uPlot(
    {
      width: Math.max(place.clientWidth, 200),
      height,
      cursor: { points: { size: 7 } },
      scales,
      axes,
      legend: { live: true },
      plugins: [marks(changes)],
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
      series: [
        { label: "Day", value: (_, at) => (at === null ? "" : new Date(at * 1000).toISOString().slice(0, 10)) },
        ...lines.map((line, number) => ({
          label: line.label,
          scale: line.scale || "y",
          stroke: colour(line.colour),
          width: line.bars ? 0 : 1.6,
          dash: line.dash,
          spanGaps: Boolean(line.dash),
          fill: line.bars ? colour(line.colour) : undefined,
          paths: line.bars ? uPlot.paths.bars({ size: [0.8, 20] }) : undefined,
          points: number === 0 && !line.bars
            ? { show: true, size: 5, filter: (_, __, visible, gaps) => pointsOf(shown[0], alarms, from, gaps), fill: colour("--heat-alarm"), stroke: colour("--heat-alarm") }
            : { show: false },
          value: (_, value) => (value === null || value === undefined ? "–" : short(value, line.digits)),
        })),
      ],
    },
    [times, ...shown],
    place,
  );
  return plot;
}

// Days that were an alarm, and days by themselves, which no line would show.
function pointsOf(values, alarms, from) {
  const found = [];
  values.forEach((value, place) => {
    if (value === null) return;
    const alone = (values[place - 1] ?? null) === null && (values[place + 1] ?? null) === null;
    if (alarms.has(place + from) || alone) found.push(place);
  });
  return found;
}

function short(value, digits) {
  if (digits !== undefined) return value.toFixed(digits);
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  return String(+value.toPrecision(3));
}

// A row for each feature, a column for each day: the darker, the farther; framed where it was an alarm.
function heatmap(place, drift, leastDistance) {
  const from = known(drift.days, drift.features.map((one) => one.distance));
  const days = drift.days.slice(from);
  if (!days.length) {
    place.replaceChildren(element("p", { class: "quiet" }, "No window was judged yet."));
    return;
  }
  const names = 230, high = 15, top = 18;
  const wide = Math.max(2, Math.min(26, Math.floor((place.clientWidth - names - 8) / days.length)));
  const width = names + wide * days.length + 8, height = top + high * drift.features.length + 4;
  const canvas = element("canvas", { role: "img", "aria-label": "Drift by feature and day; the table beside it has the last window" });
  const ratio = devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  place.replaceChildren(canvas);
  const ctx = canvas.getContext("2d");
  ctx.scale(ratio, ratio);
  ctx.font = "11px system-ui";
  ctx.textBaseline = "middle";
  const heat = colour("--heat"), quiet = colour("--quiet"), words = colour("--text"), alarm = colour("--heat-alarm"), empty = colour("--track");
  let month = "", written = -Infinity;
  days.forEach((day, column) => {
    const x = names + column * wide;
    if (day.slice(0, 7) === month) return;
    month = day.slice(0, 7);
    if (x < written) return;
    ctx.fillStyle = quiet;
    const label = new Date(day).toLocaleDateString("en", { month: "short", year: day.slice(5, 7) === "01" ? "numeric" : undefined, timeZone: "UTC" });
    ctx.fillText(label, x, 8);
    written = x + ctx.measureText(label).width + 6;
  });
  drift.features.forEach((one, row) => {
    const y = top + row * high;
    ctx.fillStyle = words;
    ctx.fillText(one.feature.length > 36 ? `${one.feature.slice(0, 35)}…` : one.feature, 2, y + high / 2);
    const alarmed = new Set(one.alarmed);
    const gap = wide > 5 ? 1 : 0;
    days.forEach((_, column) => {
      const value = one.distance[column + from];
      const x = names + column * wide;
      if (value === null || value === undefined) {
        ctx.fillStyle = empty;
        ctx.globalAlpha = 0.35;
      } else if (alarmed.has(column + from)) {
        ctx.fillStyle = alarm;
        ctx.globalAlpha = 0.45 + 0.55 * Math.min(1, value / (4 * leastDistance));
      } else {
        ctx.fillStyle = `rgb(${heat})`;
        ctx.globalAlpha = Math.max(0.05, 0.85 * Math.min(1, value / (4 * leastDistance)));
      }
      ctx.fillRect(x, y + 1, wide - gap, high - 2);
    });
    ctx.globalAlpha = 1;
  });
  const tip = element("div", { class: "tip", hidden: true });
  place.append(tip);
  canvas.addEventListener("mousemove", (event) => {
    const column = Math.floor((event.offsetX - names) / wide), row = Math.floor((event.offsetY - top) / high);
    const one = drift.features[row];
    if (!one || column < 0 || column >= days.length) {
      tip.hidden = true;
      return;
    }
    const value = one.distance[column + from];
    const said = value === null ? "not judged" : `distance ${value.toFixed(3)}${one.alarmed.includes(column + from) ? ", alarm" : ""}`;
    tip.textContent = `${one.feature}\n${days[column]}: ${said}`;
    tip.style.left = `${Math.min(event.clientX + 12, innerWidth - 260)}px`;
    tip.style.top = `${event.clientY + 14}px`;
    tip.hidden = false;
  });
  canvas.addEventListener("mouseleave", () => { tip.hidden = true; });
}
