// Draws the charts from the tables beneath them, and copies. The pages work without it.
"use strict";

document.documentElement.classList.add("js");

const write = {
  number: (value) => Math.abs(value) >= 1e6 ? `${+(value / 1e6).toFixed(1)}M`
    : Math.abs(value) >= 1e4 ? `${+(value / 1e3).toFixed(1)}k` : value.toLocaleString("en-US", { maximumFractionDigits: 2 }),
  share: (value) => `${+(value * 100).toFixed(1)} %`,
  seconds: (value) => value >= 7200 ? `${+(value / 3600).toFixed(1)} h` : value >= 120 ? `${+(value / 60).toFixed(1)} min` : `${+value.toFixed(1)} s`,
};

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function tableOf(figure) {
  const table = figure.querySelector("table.figures");
  const rows = [...table.tBodies[0].rows];
  const names = [...table.tHead.rows[0].cells].slice(1).map((cell) => cell.textContent);
  const days = rows.map((row) => Date.parse(`${row.cells[0].textContent}T00:00:00Z`) / 1000);
  const lines = names.map((_, place) => rows.map((row) => {
    const value = row.cells[place + 1].dataset.v;
    return value === undefined ? null : Number(value);
  }));
  return { names, days, lines };
}

function stacked(lines) {
  const sums = lines[0].map(() => 0);
  return lines.map((line) => line.map((value, place) => (sums[place] += value ?? 0)));
}

function draw(figure) {
  const plot = figure.querySelector(".plot");
  const { names, days, lines } = tableOf(figure);
  if (!days.length || plot.clientWidth === 0) return;
  const text = write[figure.dataset.unit] ?? write.number;
  const isBars = figure.dataset.kind === "bars";
  const band = figure.dataset.band === undefined ? names.length : Number(figure.dataset.band);
  const shown = isBars ? stacked(lines) : lines;
  const order = names.map((_, place) => place);
  if (isBars) order.reverse();  // the tallest is drawn first, the others over it
  const step = days.length > 1 ? days[1] - days[0] : 86400;
  const series = order.map((place) => {
    const isBand = place >= band;
    const stroke = isBand ? "transparent" : colour(`--s${(place % 7) + 1}`);
    return {
      label: names[place], stroke, width: isBand ? 0 : 2, points: { show: false },
      fill: isBars ? stroke : undefined, spanGaps: false,
      paths: isBars ? uPlot.paths.bars({ size: [0.72, 60], radius: 0.12 }) : undefined,
      value: (_, __, ___, index) => index === null || lines[place][index] === null || lines[place][index] === undefined ? "–" : text(lines[place][index]),
    };
  });
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);  // it grows with the screen
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false }, font: `${Math.round(0.8 * rem)}px system-ui, sans-serif` };
  const every = Math.ceil(days.length * 5 * rem / plot.clientWidth);
  plot.replaceChildren();
  new uPlot({
    width: plot.clientWidth,
    height: Math.round((figure.classList.contains("tall") ? 18 : 13) * rem),
    padding: [0.5 * rem, 1.7 * rem, 0, 0],  // room for the last day's name
    tzDate: (at) => uPlot.tzDate(new Date(at * 1e3), "Etc/UTC"),
    scales: { x: { range: isBars ? (_, least, most) => [least - step / 2, most + step / 2] : undefined },
              y: { range: (_, least, most) => figure.dataset.unit === "share" || (least ?? 0) >= 0 ? [0, (most || 1) * 1.08] : [least, most] } },
    axes: [{ ...axis, values: "{D} {MMM}", grid: { show: false }, size: 2 * rem,
              splits: () => days.filter((_, place) => (days.length - 1 - place) % every === 0) }, { ...axis, size: 3.6 * rem, values: (_, ticks) => ticks.map(text) }],
    series: [{ label: "Day", value: (_, at) => at === null ? "–" : new Date(at * 1e3).toISOString().slice(0, 10) }, ...series],
    bands: band < names.length ? [{ series: [band + 2, band + 1], fill: colour("--band") }] : undefined,
    hooks: { ready: [(chart) => chart.setLegend({ idx: days.length - 1 })] },  // until the pointer says more
    cursor: { drag: { x: false, y: false }, points: { size: 7 } },
    legend: { markers: { width: 0, fill: (u, i) => i === 0 ? "transparent" : u.series[i].stroke() === "transparent" ? colour("--band") : u.series[i].stroke() } },
  }, [days, ...order.map((place) => shown[place])], plot);
}

function drawAll() {
  document.querySelectorAll("figure.chart").forEach(draw);
}

let pending = 0;
function later() {
  cancelAnimationFrame(pending);
  pending = requestAnimationFrame(drawAll);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = document.getElementById(button.dataset.copy).textContent;
  await navigator.clipboard.writeText(text);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-at-once]");
  if (!form) return;
  if (event.target.type === "date") form.elements.days.value = "";  // these days, not the last so many
  if (event.target.name === "column") form.elements.measure.value = "";  // what fits the new column
  form.requestSubmit();
});
let width = 0;
window.addEventListener("resize", () => {
  if (window.innerWidth !== width) later();  // phones resize while they scroll
  width = window.innerWidth;
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later);
document.addEventListener("htmx:afterSwap", later);
document.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden && event.detail.requestConfig.verb === "get") event.preventDefault();  // nobody looks
});
drawAll();
