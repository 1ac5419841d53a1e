"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined && text !== null) node.textContent = text; // never innerHTML: responses are untrusted
    return node;
  };

  // ---- numbers -------------------------------------------------------------------------------------------------
  const show = (value, kind) => {
    if (value === null || value === undefined) return "–";
    if (kind === "percent") return (100 * value).toFixed(1) + "%";
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size >= 1000) return Math.round(value).toLocaleString("en");
    if (size < 0.01) return value.toExponential(2).replace(/\.?0+e/, "e");
    return String(Number(value.toPrecision(3)));
  };

  // ---- charts --------------------------------------------------------------------------------------------------
  const fade = (colour, alpha) => colour + Math.round(255 * alpha).toString(16).padStart(2, "0");
  const colours = () => [0, 1, 2, 3, 4, 5].map((i) => css("--c" + i));

  // The chart's lines in uPlot's order, with what the legend says of each.
  const lines = (chart) => {
    const palette = colours();
    const columns = [chart.xs], series = [{}], bands = [], keys = [];
    const add = (values, options) => { columns.push(values); series.push(options); return columns.length - 1; };
    const positive = (values) => (chart.kind === "log" ? values.map((v) => (v > 0 ? v : null)) : values);
    if (chart.stacked) {
      let below = chart.xs.map(() => 0);
      const tops = chart.series.map((one) => (below = below.map((sum, i) => sum + (one.values[i] || 0))));
      let upper = null;
      for (let i = tops.length - 1; i >= 0; i--) {
        const colour = palette[i % palette.length];
        const at = add(tops[i], { stroke: colour, fill: fade(colour, 0.45), width: 1, points: { show: false } });
        if (upper !== null) bands.push({ series: [upper, at] });
        upper = at;
      }
      chart.series.forEach((one, i) => keys.push({ label: one.label, colour: palette[i % palette.length], values: one.values }));
      return { columns, series, bands, keys };
    }
    chart.series.forEach((one, i) => {
      const colour = chart.heat ? css("--c1") : palette[(one.colour ?? i) % palette.length];
      if (one.raw) add(positive(one.raw), { stroke: fade(colour, 0.28), width: 1, points: { show: false } });
      add(positive(one.values), { stroke: colour, width: 2, spanGaps: true, points: chart.points ? { show: true, size: 7, fill: colour } : undefined });
      if (one.low) {
        const hidden = { stroke: "transparent", width: 0, points: { show: false } };
        const high = add(one.high, hidden), low = add(one.low, hidden);
        bands.push({ series: [high, low], fill: fade(colour, 0.14) });
      }
      keys.push({ label: one.label, colour, values: one.values, low: one.low, high: one.high });
    });
    return { columns, series, bands, keys };
  };

  const yRange = (chart) => (plot, low, high) => {
    if (chart.range) return chart.range;
    if (chart.top !== undefined) return [0, chart.top];
    if (low === null || low === undefined) return [0, 1];
    if (chart.kind === "share") return [Math.min(0, low), Math.max(1, high)];
    if (chart.kind === "percent") return [0, Math.min(1, Math.max(0.05, 1.15 * high))];
    const room = 0.08 * (high - low || Math.abs(high) || 1);
    return [low >= 0 && low < 0.5 * high ? 0 : low - room, high + room];
  };

  // Dashed lines where phases begin, with the phase's name as far as it fits.
  const markPhases = (chart) => (plot) => {
    if (!chart.marks || chart.marks.length < 2) return;
    const { ctx, bbox } = plot, ratio = devicePixelRatio;
    ctx.save();
    ctx.font = 11 * ratio + "px system-ui, sans-serif";
    ctx.fillStyle = css("--soft");
    ctx.strokeStyle = css("--mark");
    ctx.lineWidth = ratio;
    ctx.setLineDash([4 * ratio, 4 * ratio]);
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    const right = bbox.left + bbox.width;
    chart.marks.forEach((mark, i) => {
      const from = i ? plot.valToPos(mark.at - 0.5, "x", true) : bbox.left;
      const next = chart.marks[i + 1];
      const to = Math.min(right, next ? plot.valToPos(next.at - 0.5, "x", true) : right);
      if (from > right || to < bbox.left) return;
      if (i && from >= bbox.left) {
        ctx.beginPath(); ctx.moveTo(from, bbox.top - 14 * ratio); ctx.lineTo(from, bbox.top + bbox.height); ctx.stroke();
      }
      let text = mark.label;
      const room = to - Math.max(from, bbox.left) - 8 * ratio;
      while (text && ctx.measureText(text === mark.label ? text : text + "…").width > room) text = text.slice(0, -1);
      // Where there is no room for a part of the name: its first letter, so that no phase is left out.
      const label = text === mark.label ? text : text.length > 1 ? text + "…" : mark.label.slice(0, 1);
      ctx.fillText(label, Math.max(from, bbox.left) + (text.length > 1 ? 4 : 1) * ratio, bbox.top - 4 * ratio);
    });
    ctx.restore();
  };

  // Cells of a distribution over time: the share of each bin at each column, the darker the more.
  const paintCells = (chart) => (plot) => {
    if (!chart.heat) return;
    const { ctx, bbox } = plot, [low, high] = chart.range, colour = css("--c0");
    const peak = Math.max(...chart.heat.flat()), y = (share) => plot.valToPos(low + (high - low) * share, "y", true);
    ctx.save();
    ctx.beginPath(); ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height); ctx.clip();
    chart.heat.forEach((column, i) => {
      const next = chart.xs[i + 1] ?? chart.xs[i] + (i ? chart.xs[i] - chart.xs[i - 1] : 1);
      const left = Math.round(plot.valToPos(chart.xs[i] - 0.5, "x", true)), right = Math.round(plot.valToPos(next - 0.5, "x", true));
      column.forEach((share, bin) => {
        if (!share) return;
        const top = Math.round(y((bin + 1) / column.length)), bottom = Math.round(y(bin / column.length));
        ctx.fillStyle = fade(colour, 0.06 + 0.7 * Math.sqrt(share / peak));
        ctx.fillRect(left, top, Math.max(1, right - left), bottom - top);
      });
    });
    ctx.restore();
  };

  const wrap = (label, room) => {
    const out = [];
    for (const word of label.split(/\s+/)) {
      const last = out.length - 1;
      if (last >= 0 && (out[last] + " " + word).length * 6.2 <= room) out[last] += " " + word;
      else out.push(word);
    }
    return out.map((line) => (line.length * 6.2 > room + 12 ? line.slice(0, Math.max(3, Math.floor(room / 6.2))) + "…" : line)).slice(0, 4).join("\n");
  };

  const lastKnown = (values) => values.findLastIndex((value) => value !== null);

  const draw = (holder, chart, group) => {
    holder.replaceChildren();
    const { columns, series, bands, keys } = lines(chart);
    const width = Math.floor(holder.clientWidth), legend = holder.nextElementSibling;
    const fill = (index) => {
      const hovered = index !== null && index !== undefined, end = chart.xs.length - 1;
      legend.replaceChildren(...keys.map((key) => {
        const at = hovered ? index : Math.max(0, lastKnown(key.values));
        const node = make("span"), mark = make("i");
        mark.style.background = key.colour;
        let text = show(key.values[at], chart.kind);
        if (key.low && key.low[at] !== null) text += ` (${show(key.low[at], chart.kind)} to ${show(key.high[at], chart.kind)})`;
        node.append(mark, key.label + " ", make("b", "", text));
        return node;
      }), make("span", "", chart.labels ? chart.labels[hovered ? index : end] : "step " + chart.xs[hovered ? index : end]));
    };
    const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1, size: 5 }, font: "11px system-ui, sans-serif" };
    const room = (width - 80) / Math.max(1, chart.xs.length - 0.3);
    const labelled = chart.labels && {
      splits: () => chart.xs,
      values: () => chart.labels.map((label) => wrap(label, room)),
      size: 20 + 17 * Math.max(...chart.labels.map((label) => wrap(label, room).split("\n").length)),
    };
    const spread = chart.labels ? 0.35 : 0;
    const plot = new uPlot({
      width, height: chart.labels ? 280 : 210,
      padding: [chart.marks && chart.marks.length > 1 ? 18 : 8, 12, 0, 0],
      legend: { show: false },
      cursor: {
        y: false, points: { size: 7 },
        sync: group ? { key: group, setSeries: false } : undefined,
        drag: { x: matchMedia("(pointer: fine)").matches && !chart.labels, y: false },
      },
      scales: {
        x: { time: false, range: (u, low, high) => (chart.labels ? [chart.xs[0] - spread, chart.xs[chart.xs.length - 1] + spread] : [low - 0.5, high + 0.5]) },
        y: chart.kind === "log" ? { distr: 3 } : { range: yRange(chart) },
      },
      axes: [
        { ...axis, size: 30, ...(labelled || { values: (u, ticks) => ticks.map((t) => (Number.isInteger(t) ? t : "")) }) },
        { ...axis, size: 52, values: (u, ticks) => ticks.map((t) => (t === null ? "" : chart.kind === "percent" ? +(100 * t).toFixed(1) + "%" : show(t))) },
      ],
      series, bands,
      hooks: { drawClear: [paintCells(chart)], draw: [markPhases(chart)], setCursor: [(u) => fill(u.cursor.idx)] },
    }, columns, holder);
    fill(null);
    return plot;
  };

  const shown = new Map(); // holder -> {plot, redraw}
  const showChart = (holder) => {
    if (shown.has(holder) || !holder.clientWidth) return; // in a closed part of the page
    const [where, section, index] = holder.dataset.chart.split("/");
    const chart = where === "compare" ? data.comparison[index] : data.runs[where].charts[section][index];
    const group = chart.x === "step" ? where + section : null;
    const redraw = () => { shown.get(holder)?.plot.destroy(); shown.set(holder, { plot: draw(holder, chart, group), redraw }); };
    redraw();
  };
  const reveal = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) showChart(entry.target);
  }, { rootMargin: "300px" });
  document.querySelectorAll("[data-chart]").forEach((holder) => reveal.observe(holder));
  const redrawAll = () => shown.forEach((one) => one.redraw());
  // Paper has another width and light colours, and shows charts that nobody has scrolled to.
  addEventListener("beforeprint", () => {
    document.documentElement.classList.add("printing");
    document.querySelectorAll("[data-chart]").forEach((holder) => showChart(holder));
    redrawAll();
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("printing");
    redrawAll();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
  let waiting = 0, lastWidth = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === lastWidth) return; // phones fire this when the address bar hides
    lastWidth = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(redrawAll, 150);
  });

  // ---- transcripts ---------------------------------------------------------------------------------------------
  const modalityNames = { text: "text", caption: "image + caption", image: "image alone" };
  const isRight = (response) => (response.components && typeof response.components.accuracy === "number" ? response.components.accuracy >= 0.5 : null);
  const rightShare = (item) => {
    const known = item.responses.map(isRight).filter((right) => right !== null);
    return known.length ? known.filter(Boolean).length / known.length : 0;
  };

  const tokenNodes = (response) => {
    if (!response.tokens || !response.tokens.length) return [document.createTextNode(response.text ?? "")];
    return response.tokens.map((token, i) => {
      // A line break of its own would be an invisible token.
      const node = make("span", "", token.replaceAll("\n", "↵\n")), value = response.logprobs[i];
      if (value !== null) {
        node.style.background = `rgba(var(--token), ${Math.min(0.85, Math.max(0, -value / 4)).toFixed(2)})`;
        node.title = `log-prob ${value.toFixed(2)} (p = ${Math.exp(value).toFixed(value > -4.6 ? 2 : 4)})`;
      }
      return node;
    });
  };

  const responseCard = (response) => {
    const right = isRight(response);
    const card = make("article", "response " + (right === null ? "unknown" : right ? "right" : "wrong"));
    const chips = make("div", "chips");
    chips.append(make("span", "total", "reward " + show(response.total)));
    for (const [name, value] of Object.entries(response.components || {}))
      chips.append(make("span", value >= 0.5 ? "good" : "bad", `${name} ${show(value)}`));
    if (response.length !== null) chips.append(make("span", "", response.length + " tokens"));
    if (response.finish === "length") chips.append(make("span", "bad", "cut off"));
    const text = make("div", "text");
    text.append(...tokenNodes(response));
    card.append(chips, text);
    const said = [];
    if (response.extracted !== null && response.extracted !== undefined) said.push("read as: " + response.extracted);
    if (response.reason) said.push(response.reason);
    if (said.length) card.append(make("div", "reason", said.join(" · ")));
    return card;
  };

  const problemView = (item, images) => {
    const view = make("div", item.images.length ? "problem" : "problem bare");
    if (item.images.length) {
      const pictures = make("div", "pictures");
      for (const index of item.images) {
        if (!images[index]) { pictures.append(make("div", "missing", "picture missing")); continue; }
        const picture = make("img");
        picture.alt = "image of the problem";
        picture.addEventListener("load", () => picture.classList.toggle("small", picture.naturalWidth < 160));
        picture.src = images[index];
        pictures.append(picture);
      }
      view.append(pictures);
    }
    const words = make("div");
    words.append(make("div", "question", item.question));
    if (item.choices.length) {
      const list = make("ul", "choices");
      item.choices.forEach((choice, i) => list.append(make("li", "", `(${String.fromCharCode(65 + i)}) ${choice}`)));
      words.append(list);
    }
    if (item.caption) words.append(make("div", "caption", (item.modality === "caption" ? "Caption in the prompt: " : "Caption, not shown to the policy: ") + item.caption));
    words.append(make("p", "gold", "Expected: " + item.answer));
    if (item.prompt) {
      const more = make("details");
      more.append(make("summary", "", "The prompt as the policy sees it"), make("pre", "wrap", item.prompt));
      words.append(more);
    }
    view.append(words);
    return view;
  };

  const browser = (root) => {
    const { items, images } = data.runs[root.dataset.transcripts].transcripts;
    const controls = Object.fromEntries([...root.querySelectorAll("[data-filter]")].map((node) => [node.dataset.filter, node]));
    const strip = root.querySelector(".strip"), count = root.querySelector(".count"), stage = root.querySelector(".stage");
    const [back, forth] = root.querySelectorAll(".pager button");
    let found = [], at = 0;
    const matches = (item) => {
      const share = rightShare(item), wanted = controls.outcome.value, search = controls.search.value.toLowerCase();
      return (!controls.phase.value || String(item.phase) === controls.phase.value)
        && (!controls.modality.value || item.modality === controls.modality.value)
        && (!controls.kind.value || item.kind === controls.kind.value)
        && (!wanted || (wanted === "all" ? share === 1 : wanted === "none" ? share === 0 : share > 0 && share < 1))
        && (!search || [item.question, item.problem_id, item.answer, ...item.responses.map((r) => r.text)].some((text) => String(text ?? "").toLowerCase().includes(search)));
    };
    const open = (index) => {
      at = index;
      strip.querySelectorAll("button").forEach((node, i) => node.setAttribute("aria-current", i === at));
      back.disabled = at <= 0;
      forth.disabled = at >= found.length - 1;
      if (!found.length) { count.textContent = "no transcript matches"; stage.replaceChildren(); return; }
      const item = found[at], right = item.responses.filter(isRight).length;
      count.textContent = `${at + 1} of ${found.length}`;
      const head = make("p", "soft", [item.kind === "eval" ? "held-out" : "training", item.phase, "step " + item.step, modalityNames[item.modality] || item.modality, item.problem_id, `${right} of ${item.responses.length} right`].filter(Boolean).join(" · "));
      const cards = make("div", "responses");
      cards.append(...item.responses.map(responseCard));
      if (item.left_out) cards.append(make("p", "hint", `${item.left_out} more responses, in transcripts.jsonl`));
      stage.replaceChildren(head, problemView(item, images), cards);
    };
    const refresh = () => {
      found = items.filter(matches);
      strip.replaceChildren(...found.map((item, i) => {
        const node = make("button", i && found[i - 1].phase !== item.phase ? "gap" : "");
        node.type = "button";
        node.style.setProperty("--part", rightShare(item));
        node.title = `${item.phase} · step ${item.step} · ${Math.round(100 * rightShare(item))}% right`;
        node.setAttribute("aria-label", node.title);
        node.addEventListener("click", () => open(i));
        return node;
      }));
      open(Math.max(0, found.length - 1));
    };
    Object.values(controls).forEach((node) => node.addEventListener("input", refresh));
    back.addEventListener("click", () => open(at - 1));
    forth.addEventListener("click", () => open(at + 1));
    root.addEventListener("keydown", (event) => {
      if (event.target.matches("input, select")) return;
      if (event.key === "ArrowLeft" && at > 0) open(at - 1);
      if (event.key === "ArrowRight" && at < found.length - 1) open(at + 1);
    });
    root.querySelector("[data-colour]").addEventListener("input", (event) => root.classList.toggle("plain", !event.target.checked));
    refresh();
  };
  document.querySelectorAll("[data-transcripts]").forEach(browser);
  document.documentElement.dataset.ready = "yes";
})();
