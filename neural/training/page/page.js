"use strict";
// Values under the pointer, or under a cursor that the arrow keys move.
for (const figure of document.querySelectorAll("[data-chart]")) {
  const { last, lines } = JSON.parse(figure.dataset.chart);
  const plot = figure.querySelector(".plot");
  const cursor = figure.querySelector(".cursor");
  const output = figure.querySelector("output");
  const steps = [...new Set(lines.flatMap(line => line.points.map(point => point[0])))].sort((a, b) => a - b);
  const nearest = (points, step) =>
    points.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a));
  let at = steps.length - 1;

  function show(index) {
    at = Math.min(Math.max(index, 0), steps.length - 1);
    const step = steps[at];
    const x = (1000 * step) / Math.max(last, 1);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.style.visibility = "visible";
    const values = lines.map(line => {
      const [own, text] = nearest(line.points, step);
      return `${line.name} ${text}` + (own === step ? "" : ` (step ${own.toLocaleString("en")})`);
    });
    output.textContent = `step ${step.toLocaleString("en")} · ${values.join(" · ")}`;
  }
  function hide() {
    cursor.style.visibility = "hidden";
    output.textContent = "";
  }
  plot.addEventListener("pointermove", event => {
    const box = plot.getBoundingClientRect();
    const step = ((event.clientX - box.left) / box.width) * last;
    show(steps.indexOf(steps.reduce((a, b) => (Math.abs(b - step) < Math.abs(a - step) ? b : a))));
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("focus", () => show(at));
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", event => {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity }[event.key];
    if (move !== undefined) {
      show(at + move);
      event.preventDefault();
    }
  });
}

// Samples one at a time, by a slider.
for (const group of document.querySelectorAll(".samples")) {
  const all = [...group.children];
  if (all.length < 2) continue;
  const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: all.length - 1 });
  slider.setAttribute("aria-label", "sample");
  const label = document.createElement("span");
  const row = document.createElement("div");
  row.className = "choose";
  row.append(slider, label);
  group.prepend(row);
  group.classList.add("one");
  function choose() {
    all.forEach((sample, i) => (sample.hidden = i !== Number(slider.value)));
    label.textContent = all[slider.value].querySelector("figcaption").textContent;
    slider.setAttribute("aria-valuetext", label.textContent);
  }
  slider.addEventListener("input", choose);
  slider.value = all.length - 1;
  choose();
}
