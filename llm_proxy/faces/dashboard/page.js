"use strict";
// The dashboard: reads one stream of events, keeps what it said, and draws it. Text from calls only ever becomes text
// nodes, so that nothing a caller sends can become markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const state = { range: "day", scale: "count", key: sessionStorage.getItem("llm-proxy-key") || "", calls: new Map(),
    summary: null, paused: false, abort: null, seen: new Set(), at: null, open: null, wait: 1000, all: false };
  const KINDS = ["exact", "semantic", "miss", "bypass"];
  const WORDS = { exact: "exact hit", semantic: "semantic hit", miss: "asked", bypass: "bypassed", refused: "refused", error: "error" };
  const RANGES = { hour: "the last hour", day: "today", week: "7 days", all: "all time" };
  const SVG = "http://www.w3.org/2000/svg";
  const MOST = 200, FEW = 40;

  // -- building blocks ------------------------------------------------------------------------------------------
  function make(tag, attributes, ...children) {
    const node = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "on") for (const [event, call] of Object.entries(value)) node.addEventListener(event, call);
      else if (name === "width%") node.style.width = `${Math.max(0, Math.min(100, value))}%`;
      else if (name === "left%") node.style.left = `${Math.max(0, Math.min(100, value))}%`;
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return node;
  }
  const fill = (node, ...children) => node.replaceChildren(...children.filter(Boolean));
  const count = (value) => Math.round(value).toLocaleString("en-US");
  const share = (part, whole, digits = 0) => (whole ? `${((100 * part) / whole).toFixed(digits)}\u00a0%` : "–");
  function dollars(value) {
    if (!value) return "$0.00";
    if (value >= 1000) return `$${Math.round(value).toLocaleString("en-US")}`;
    if (value >= 1) return `$${value.toFixed(2)}`;
    if (value < 1e-6) return "<$0.000001";
    return `$${value.toFixed(Math.max(2, (value < 1e-3 ? 1 : 2) - Math.floor(Math.log10(value))))}`;
  }
  function span(seconds) {
    if (seconds === null || seconds === undefined) return "–";
    if (seconds >= 172800) return `${(seconds / 86400).toFixed(1)} days`;
    if (seconds >= 3600) return `${(seconds / 3600).toFixed(1)} h`;
    if (seconds >= 120) return `${(seconds / 60).toFixed(1)} min`;
    if (seconds >= 1) return `${seconds.toFixed(seconds >= 10 ? 1 : 2)} s`;
    if (seconds >= 0.1) return `${(seconds * 1e3).toFixed(0)} ms`;
    return seconds >= 0.01 ? `${(seconds * 1e3).toFixed(1)} ms` : `${(seconds * 1e3).toFixed(2)} ms`;
  }
  function size(bytes) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    while (bytes >= 1024 && unit < 4) { bytes /= 1024; unit += 1; }
    return unit ? `${bytes.toFixed(1)} ${units[unit]}` : `${bytes} B`;
  }
  const date = (at, options) => new Date(at * 1000).toLocaleString("en-GB", options);
  const clock = (at) => date(at, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  function when(at, slot, full = false) {
    if (slot >= 86400) return date(at, { day: "numeric", month: "short", ...(full ? { year: "numeric" } : {}) });
    const time = date(at, { hour: "2-digit", minute: "2-digit" });
    return slot > 3600 && full ? `${date(at, { weekday: "short", day: "numeric", month: "short" })}, ${time}`
      : slot > 3600 ? date(at, { weekday: "short", day: "numeric" }) : time;
  }
  const kindOf = (row) => (row.status === "refused" ? "refused" : row.error || row.http_status >= 400 ? "error" : row.status === "hit" ? row.kind : row.status);
  const facts = (rows) => make("dl", { class: "facts" }, ...rows.filter(([, value]) => value !== "" && value !== null && value !== undefined)
    .flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));

  // -- talking to the proxy -------------------------------------------------------------------------------------
  const headers = (more) => ({ ...(state.key ? { authorization: `Bearer ${state.key}` } : {}), ...more });
  async function ask(path, options = {}) {
    const response = await fetch(`/llm-proxy/${path}`, { cache: "no-store", ...options, headers: headers(options.headers) });
    if (response.status === 401) { signIn("That key is not one of them."); throw new Error("a key is needed"); }
    if (!response.ok) {
      const body = await response.json().catch(() => ({}));
      if (body.error?.code === "not_allowed") signIn("That key may not see the calls of others.");
      throw new Error(body.error?.message || `the proxy answered ${response.status}`);
    }
    return response;
  }
  function say(word, text) { $("live").dataset.state = word; $("live").textContent = text; }
  function notice(text) { $("notice").textContent = text; $("notice").hidden = !text; }
  async function listen() {
    state.abort?.abort();
    const abort = (state.abort = new AbortController());
    while (!abort.signal.aborted) {
      try {
        const response = await ask(`events?range=${state.range}`, { signal: abort.signal });
        notice("");
        await read(response.body.getReader(), abort.signal);
        say("connecting", "reconnecting");
      } catch (error) {
        if (abort.signal.aborted) return;
        if ($("login").open) { say("connecting", "needs a key"); return; }
        say("lost", "no connection");
        if (error.message.includes("listening")) notice(error.message);
      }
      await new Promise((done) => setTimeout(done, state.wait));
      state.wait = Math.min(state.wait * 2, 15000);
    }
  }
  async function read(reader, signal) {
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done || signal.aborted) return;
      text += decoder.decode(value, { stream: true });
      const events = text.split("\n\n");
      text = events.pop();
      state.wait = 1000;
      say("live", "live");
      events.forEach(take);
    }
  }
  function take(event) {
    const [, name, data] = /^event: (\w+)\ndata: (.*)$/s.exec(event) || [];
    if (name === "calls") { JSON.parse(data).forEach((row) => state.calls.set(row.id, row)); trim(); if (!state.paused) drawCalls(); }
    if (name === "summary") { state.summary = JSON.parse(data); draw(); }
  }
  function trim() {
    const rows = [...state.calls.values()].sort((one, other) => other.at_s - one.at_s);
    state.calls = new Map(rows.slice(0, MOST).map((row) => [row.id, row]));
  }
  function signIn(why = "") {
    $("wrong").textContent = why;
    $("wrong").hidden = !state.key;
    state.key = "";
    sessionStorage.removeItem("llm-proxy-key");
    $("leave").hidden = true;
    if (!$("login").open) $("login").showModal();
    $("key").value = "";
    $("key").focus();
  }

  // -- drawing --------------------------------------------------------------------------------------------------
  function draw() {
    const found = state.summary;
    for (const tile of document.querySelectorAll("[data-sum]")) {
      const sums = found.sums[tile.dataset.sum], hits = sums.exact + sums.semantic;
      tile.querySelector(".big").textContent = dollars(sums.saved_usd);
      if (sums.calls === sums.refused) fill(tile.querySelector(".sub"), "no calls");
      else fill(tile.querySelector(".sub"), make("b", {}, span(sums.saved_s)), " saved · ", make("b", {}, share(hits, sums.calls - sums.refused)),
        ` of ${count(sums.calls - sums.refused)} calls from the cache`);
    }
    drawLegend(found.totals);
    drawChart();
    drawLatency(found.latency);
    drawMix(found);
    drawVerified(found);
    drawCache(found.cache);
    drawHealth(found);
    $("about").textContent = `llm-proxy ${found.version} · up ${span(found.uptime_s)} · ${found.settings.ledger
      ? "figures of all processes that share the ledger" : "figures since this process began: no ledger is kept"}`;
  }
  function drawLegend(totals) {
    const items = KINDS.map((kind) => make("li", {}, make("span", { class: `dot ${kind}` }), `${WORDS[kind]} `,
      make("b", {}, count(totals[kind])), totals.calls > totals.refused ? ` ${share(totals[kind], totals.calls - totals.refused)}` : ""));
    if (totals.errors) items.push(make("li", {}, make("span", { class: "dot error" }), "of these failed ", make("b", {}, count(totals.errors))));
    fill($("legend"), ...items);
  }
  function ticksOf(top) {
    if (state.scale === "share") return [0, 0.5, 1];
    const power = 10 ** Math.floor(Math.log10(Math.max(top, 4) / 4));
    const step = Math.max(1, [1, 2, 2.5, 5, 10].map((unit) => unit * power).find((size) => top / size <= 4.5));
    return Array.from({ length: Math.floor(top / step) + 1 }, (_, place) => place * step);
  }
  function drawChart() {
    const found = state.summary, chart = $("chart"), box = chart.getBoundingClientRect();
    if (!found || !box.width) return;
    const left = 38, bottom = 20, width = box.width - left, height = box.height - bottom - 6, slots = found.slots;
    const sums = slots.map((slot) => slot[0] + slot[1] + slot[2] + slot[3]);
    const top = state.scale === "share" ? 1 : Math.max(1, ...sums);
    const step = width / slots.length, gap = Math.min(3, step * 0.2), parts = [];
    for (const value of ticksOf(top)) {
      const y = 6 + height - (value / top) * height;
      parts.push(make("svg:line", { x1: left, x2: left + width, y1: y, y2: y }),
        make("svg:text", { x: left - 8, y: y + 4, "text-anchor": "end" }, state.scale === "share" ? `${value * 100} %` : short(value)));
    }
    slots.forEach((slot, place) => {
      let y = 6 + height;
      KINDS.forEach((kind, index) => {
        const whole = state.scale === "share" ? sums[place] || 1 : top, tall = (slot[index] / whole) * height;
        if (!tall) return;
        y -= tall;
        parts.push(make("svg:rect", { class: kind, x: left + place * step + gap / 2, y, width: Math.max(1, step - gap), height: Math.max(0.5, tall), rx: Math.min(1, step / 8) }));
      });
    });
    const nice = found.range === "week" ? [4, 8, 12] : found.range === "all" ? [1, 2, 3, 5, 7, 10, 14, 20] : [2, 3, 4, 6, 10, 15, 20];
    const every = nice.find((size) => (slots.length / size) * (found.range === "week" ? 58 : 50) <= width) || slots.length;
    slots.forEach((_, place) => {
      if (place % every || (place && left + place * step + 30 > box.width)) return;
      parts.push(make("svg:text", { x: left + place * step, y: box.height - 4 }, when(found.from_s + place * found.slot_s, found.slot_s)));
    });
    if (state.at !== null) parts.push(make("svg:rect", { class: "hover", x: left + state.at * step, y: 6, width: step, height }));
    chart.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    const hits = found.totals.exact + found.totals.semantic;
    chart.setAttribute("aria-label", `Calls of ${RANGES[found.range]}: ${count(found.totals.calls)}, ${share(hits, found.totals.calls - found.totals.refused)} from the cache. Arrow keys read the bars.`);
    fill(chart, ...parts);
    drawTip(left, step, box.width);
  }
  const short = (value) => (value >= 1e6 ? `${+(value / 1e6).toFixed(1)}M` : value >= 1e3 ? `${+(value / 1e3).toFixed(1)}k` : String(value));
  function drawTip(left, step, width) {
    const found = state.summary, tip = $("tip");
    tip.hidden = state.at === null;
    if (tip.hidden) return;
    const slot = found.slots[state.at], start = found.from_s + state.at * found.slot_s, all = slot[0] + slot[1] + slot[2] + slot[3];
    const rows = KINDS.map((kind, index) => [kind, slot[index]]).filter(([, value]) => value);
    fill(tip, make("p", {}, when(start, found.slot_s, true)),
      make("dl", {}, ...rows.flatMap(([kind, value]) => [make("dt", {}, make("span", { class: `dot ${kind}` }), WORDS[kind]), make("dd", {}, `${count(value)} · ${share(value, all)}`)]),
        ...(slot[6] ? [make("dt", {}, make("span", { class: "dot refused" }), WORDS.refused), make("dd", {}, count(slot[6]))] : []),
        ...(slot[4] ? [make("dt", {}, make("span", { class: "dot error" }), "failed"), make("dd", {}, count(slot[4]))] : []),
        make("dt", {}, "saved"), make("dd", {}, dollars(slot[5]))));
    const middle = left + (state.at + 0.5) * step;
    tip.style.left = `${Math.max(0, Math.min(width - tip.offsetWidth, middle > width / 2 ? middle - tip.offsetWidth - step : middle + step))}px`;
  }
  function drawLatency(latency) {
    if (latency.without.p50 === null) { fill($("latency"), make("p", { class: "note" }, "No calls in this range.")); return; }
    const longest = Math.max(latency.without.p99, latency.with.p99);
    // Logarithmic: hits take milliseconds, models seconds.
    const low = Math.min(0.001, latency.with.p50), width = (value) => (100 * Math.log(value / low + 1)) / Math.log(longest / low + 1);
    const pairs = [["p50", "half of all calls"], ["p90", "nine of ten"], ["p99", "99 of 100"]].map(([name, words]) => make("div", { class: "pair", title: words },
      make("span", { class: "who" }, name),
      make("span", { class: "track" }, make("span", { class: "fillbar exact", "width%": width(latency.with[name]) })),
      make("span", { class: "num" }, span(latency.with[name])),
      make("span", { class: "track" }, make("span", { class: "fillbar miss", "width%": width(latency.without[name]) })),
      make("span", { class: "num faint" }, span(latency.without[name]))));
    fill($("latency"), make("ul", { class: "legend" }, make("li", {}, make("span", { class: "dot exact" }), "as it was"), make("li", {}, make("span", { class: "dot miss" }), "had every call been asked")),
      ...pairs, make("p", { class: "note" }, "Bars are on a logarithmic scale."),
      make("table", { class: "rows split" }, make("thead", {}, make("tr", {}, ...["", "p50", "p90", "p99"].map((word) => make("th", { scope: "col" }, word)))),
        make("tbody", {}, ...[["hits", latency.hits], ["asked", latency.upstream]].map(([name, part]) => make("tr", {}, make("th", { scope: "row" }, name),
          ...["p50", "p90", "p99"].map((word) => make("td", {}, span(part[word]))))))));
  }
  function drawMix(found) {
    const rows = found.mix, most = Math.max(1, ...rows.map((row) => row.calls));
    if (!rows.length) { fill($("mix"), make("p", { class: "note" }, "No calls in this range.")); return; }
    const cells = rows.map((row) => make("tr", {},
      make("td", { class: "name", title: `${row.route ? `${row.route} → ` : ""}${row.model}` }, row.route ? make("span", { class: "faint" }, `${row.route} → `) : "", row.model || "unknown",
        make("span", { class: "track" }, make("span", { class: "fillbar plain-tone", "width%": (100 * row.calls) / most }))),
      make("td", {}, count(row.calls)), make("td", {}, share(row.hits, row.calls)), make("td", {}, dollars(row.cost_usd)), make("td", { class: "saved" }, dollars(row.saved_usd))));
    fill($("mix"), make("table", { class: "rows" }, make("thead", {}, make("tr", {}, ...["Model", "Calls", "Hits", "Spent", "Saved"].map((word) => make("th", { scope: "col" }, word)))), make("tbody", {}, ...cells)));
  }
  function drawVerified(found) {
    const part = found.verified.checked ? found.verified : found.verified_all, limit = found.settings.max_error_rate;
    const words = part === found.verified ? RANGES[found.range] : "all time";
    const counts = facts([["served", count(found.verified.served)], [`checked (${words})`, count(part.checked)], ["wrong", count(part.wrong)],
      ["without a verdict", part.unclear ? count(part.unclear) : ""], ["taken back", count(part.undone)], ["spent on checks", part.check_usd ? dollars(part.check_usd) : ""]]);
    if (part.rate === null) {
      fill($("verified"), make("p", { class: "headline" }, "Not checked ", make("small", {}, `limit ${(100 * limit).toFixed(1)}\u00a0%`)), counts,
        make("p", { class: "note" }, found.settings.check_share ? "A share of the hits is asked again; none was drawn yet." : "Set cache.check_share to have a share of hits asked again and compared."));
      return;
    }
    const top = Math.max(limit * 2, part.high95), at = (value) => (100 * value) / top, percent = (value) => `${(100 * value).toFixed(2)}\u00a0%`;
    fill($("verified"), make("p", { class: "headline" }, `${percent(part.rate)} wrong `, make("small", {}, `of ${count(part.checked)} checked, ${words}`)),
      make("div", { class: "scale", role: "img", "aria-label": `95\u00a0% interval ${percent(part.low95)} to ${percent(part.high95)}, limit ${percent(limit)}` },
        make("i"), make("b", { "left%": at(part.low95), "width%": at(part.high95 - part.low95) }), make("u", { class: "at", "left%": at(part.rate) }), make("u", { "left%": at(limit) })),
      make("p", { class: "note" }, `95\u00a0% interval ${percent(part.low95)} to ${percent(part.high95)}; red: the limit, ${percent(limit)}`), counts);
  }
  function drawCache(cache) {
    if (!cache) { fill($("cache"), make("p", { class: "note" }, "The cache is off.")); return; }
    if (cache.used_bytes === undefined) { fill($("cache"), make("p", { class: "note" }, `The cache is ${cache.state}.`)); return; }
    const classes = cache.worth.map(([edge, entries, bytes], place) => ({ bytes, entries, name: edge === 0 ? "nothing" : edge === null ? "more" : `≤ ${dollars(edge)}`, tone: 18 + 82 * (place / (cache.worth.length - 1)) })).filter((part) => part.entries);
    const most = Math.max(1, ...classes.map((part) => part.bytes));
    fill($("cache"), make("p", { class: "headline" }, `${size(cache.used_bytes)} `, make("small", {}, `of ${size(cache.budget_bytes)}, ${share(cache.used_bytes, cache.budget_bytes, 1)}`)),
      make("span", { class: "track", role: "img", "aria-label": `${share(cache.used_bytes, cache.budget_bytes, 1)} of the budget` }, make("span", { class: "fillbar plain-tone", "width%": (100 * cache.used_bytes) / cache.budget_bytes })),
      classes.length ? make("div", { class: "worth" }, make("span", { class: "faint" }, "a hit spares"), make("span"), make("span", {}, "bytes"),
        ...classes.flatMap((part) => [make("span", {}, part.name), make("span", { class: "track" }, make("span", { class: "fillbar exact", "width%": (100 * part.bytes) / most })), make("span", { title: `${count(part.entries)} entries` }, size(part.bytes))])) : "",
      make("p", { class: "note" }, `${count(cache.entries)} entries, ${count(cache.vectors)} with a vector; ${count(cache.evicted)} given up, ${count(cache.expired)} expired since the start. Policy ${cache.policy}, store ${cache.store}.`));
  }
  function drawHealth(found) {
    const troubles = Object.entries(found.troubles), word = (text) => make("span", { class: text === "ok" ? "ok" : text === "off" || text === "loading" || text === "opening" ? "" : "bad" }, text);
    fill($("health"), make("p", { class: "headline" }, troubles.length ? `${count(troubles.reduce((sum, [, times]) => sum + times, 0))} troubles` : "No trouble"),
      facts([["cache", word(found.cache?.state || "off")], ["encoder", word(found.encoder)], ["answers under way", count(found.flights)],
        ["backends", found.settings.backends.join(", ")], ["routes", found.settings.routes.join(", ")],
        ...troubles.map(([part, times]) => [`trouble: ${part}`, make("span", { class: "bad" }, count(times))])]),
      ...(found.cache?.problems || []).map((text) => make("p", { class: "note" }, text)));
  }

  // -- calls ----------------------------------------------------------------------------------------------------
  function drawCalls() {
    const words = $("find").value.trim().toLowerCase(), kind = $("kind").value;
    const rows = [...state.calls.values()].filter((row) => (!kind || kindOf(row) === kind || (kind === "error" ? row.status === "refused" : row.status === kind)) &&
      (!words || [row.api, row.model, row.route, row.backend, row.key, row.tenant, row.detail, row.error, row.question, row.reason].some((text) => (text || "").toLowerCase().includes(words))));
    const first = !state.seen.size, shown = state.all ? rows : rows.slice(0, FEW), focused = document.activeElement?.dataset?.of;
    if (!state.calls.size) {
      fill($("list"), make("div", { class: "empty" }, make("p", {}, "No calls yet. Point any OpenAI client here:"), make("code", {}, `export OPENAI_BASE_URL=${location.origin}/v1`)));
      return;
    }
    if (!rows.length) { fill($("list"), make("p", { class: "empty" }, "No call of the newest 200 is like that.")); return; }
    const asks = shown.some((row) => row.question);
    const names = ["Time", "What", "Model", ...(asks ? ["Question"] : []), "Similarity", "Took", "Money", ""];
    const classes = { Time: "when", What: "what", Model: "model", Question: "ask", Similarity: "near", Took: "took", Money: "money", "": "do" };
    fill($("list"), make("table", { class: "rows" },
      make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col", class: classes[name] }, name || make("span", { class: "hidden" }, "Action"))))),
      make("tbody", {}, ...shown.map((row) => callRow(row, asks, first)))),
      rows.length > shown.length ? make("button", { type: "button", class: "plain more", id: "more", on: { click: () => { state.all = true; drawCalls(); } } }, `Show all ${count(rows.length)}`) : "");
    state.seen = new Set(state.calls.keys());
    if (focused) document.querySelector(`[data-of="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }
  function callRow(row, asks, first) {
    const kind = kindOf(row), isHit = row.status === "hit";
    const money = isHit ? make("span", { class: "saved" }, `saved ${dollars(row.saved_usd)}`) : row.cost_usd === null ? "" : dollars(row.cost_usd);
    const near = row.kind === "semantic" && row.similarity !== null ? `${row.similarity.toFixed(3)}${row.p_wrong === null ? "" : ` · p wrong ${row.p_wrong.toFixed(3)}`}` : "";
    return make("tr", { class: !first && !state.seen.has(row.id) ? "new" : null },
      make("td", { class: "when" }, make("button", { type: "button", class: "open", "data-of": row.id, title: "Details", on: { click: () => open(row.id) } }, clock(row.at_s))),
      make("td", { class: "what" }, make("span", { class: `badge ${kind}${row.is_undone ? " undone" : ""}` }, kind === "error" ? row.error || `error ${row.http_status}` : WORDS[kind] ?? kind)),
      make("td", { class: "model", title: row.reason || row.model }, row.route ? make("span", { class: "faint" }, `${row.route} → `) : "", row.model || "unknown", row.api === "chat" ? "" : make("span", { class: "faint" }, ` · ${row.api}`)),
      asks ? make("td", { class: "ask", title: row.question }, row.question || "") : "",
      make("td", { class: "near" }, near),
      make("td", { class: "took" }, span(row.latency_s)),
      make("td", { class: "money" }, money),
      make("td", { class: "do" }, row.hit_id && !row.is_undone ? make("button", { type: "button", class: "undo", "data-of": `${row.id} undo`, on: { click: () => open(row.id) } }, "Undo") : row.is_undone ? make("span", { class: "faint" }, "taken back") : ""));
  }
  async function open(id) {
    state.open = id;
    const row = state.calls.get(id);
    fill($("facts"), row ? callFacts(row) : "");
    if (!$("detail").open) $("detail").showModal();
    try {
      const found = await (await ask(`calls/${encodeURIComponent(id)}`)).json();
      if (state.open === id) showDetail(found);
    } catch (error) {
      if (state.open === id) $("facts").append(make("p", { class: "note" }, error.message));
    }
  }
  function callFacts(row) {
    return facts([["at", `${date(row.at_s, { dateStyle: "medium" })}, ${clock(row.at_s)}`], ["what", WORDS[kindOf(row)] ?? kindOf(row)], [row.status === "refused" ? "why refused" : "why not from the cache", row.status === "hit" ? "" : row.detail],
      ["error", row.error], ["HTTP status", row.http_status || "none came"], ["model", row.model], ["backend", row.backend], ["route", row.route], ["API", row.api], ["key", row.key], ["tenant", row.tenant],
      ["took", `${span(row.latency_s)}${row.is_stream ? ", streamed" : ""}`], ["tokens", row.prompt_tokens === null ? "" : `${count(row.prompt_tokens)} in, ${count(row.completion_tokens)} out`],
      ["cost", row.cost_usd === null ? "" : dollars(row.cost_usd)], ["saved", row.status === "hit" ? `${dollars(row.saved_usd)} and ${span(row.saved_s)}` : ""],
      ["similarity", row.similarity === null ? "" : row.similarity.toFixed(4)], ["chance of being wrong", row.p_wrong === null ? "" : row.p_wrong.toFixed(4)], ["id", row.hit_id]]);
  }
  function showDetail(row) {
    const parts = [callFacts(row)];
    if (row.question) parts.push(make("h3", {}, "Asked"), make("p", { class: "quote" }, row.question));
    if (row.matched) parts.push(make("h3", {}, "Answered as"), make("p", { class: "quote" }, row.matched));
    if (row.route || row.reason || row.cascade) parts.push(...why(row));
    if (!row.shows_questions) parts.push(make("p", { class: "note" }, "What was asked is not kept: observe.prompts is off."));
    if (row.hit_id) parts.push(undoPart(row));
    fill($("facts"), ...parts);
  }
  function why(row) {
    const silent = row.status === "hit" ? "A hit asks no model: this one wrote the answer that was stored."
      : row.is_here ? "The route's decision left no reason." : "Another process decided; its reason is in its own memory.";
    const parts = [make("h3", {}, "Why this model"), make("p", { class: "reason" }, row.reason || silent)];
    if (row.cascade) parts.push(make("p", { class: "note" }, `Asked in turn, with what was thought of each answer: ${row.cascade}`));
    if (row.trouble) parts.push(make("p", { class: "note" }, row.trouble));
    const found = row.explanation;
    if (found) {
      const cells = found.options.map((option) => make("tr", {}, make("td", { class: "wrap" }, option.candidate,
        make("br"), option.is_chosen ? make("span", { class: "ok" }, "chosen") : make("span", { class: "faint" }, option.why_not || (option.is_good_enough ? "good enough" : "not good enough"))),
        make("td", {}, option.p_good === null ? "–" : option.p_good.toFixed(3)),
        make("td", {}, option.expected_usd === null ? "–" : dollars(option.expected_usd)), make("td", {}, span(option.latency_s))));
      parts.push(make("div", { class: "scroll" }, make("table", { class: "rows" }, make("thead", {}, make("tr", {}, ...["Candidate", "Good answer", "Cost", "Time"].map((word) => make("th", { scope: "col" }, word)))), make("tbody", {}, ...cells))),
        make("p", { class: "note" }, "As the route would decide now, for this question alone."));
    }
    return parts;
  }
  function undoPart(row) {
    if (row.is_undone) return make("p", { class: "act" }, "This hit was taken back: its entry is not served to such questions any more.");
    const button = make("button", { type: "button", class: "danger", id: "undo" }, "Undo this hit");
    const part = make("div", { class: "act" }, button, make("span", {}, "The answer was wrong: its entry is not served to such questions again."));
    button.addEventListener("click", () => {
      if (!button.dataset.sure) { button.dataset.sure = "1"; button.textContent = "Yes, take it back"; return; }
      undo(row, part, button);
    });
    return part;
  }
  async function undo(row, part, button) {
    button.disabled = true;
    try {
      const response = await ask("undo", { method: "POST", headers: { "content-type": "application/json", "x-llm-proxy-dashboard": "1" }, body: JSON.stringify({ id: row.id }) });
      const found = await response.json();
      fill(part, make("span", {}, found.is_there ? "Taken back. Its entry is not served to such questions any more." : "Taken back. Its entry was gone already."));
      state.calls.set(row.id, { ...state.calls.get(row.id), is_undone: true });
      drawCalls();
    } catch (error) {
      button.disabled = false;
      fill(part, button, make("span", { class: "bad" }, error.message));
    }
  }

  // -- controls -------------------------------------------------------------------------------------------------
  const THEMES = { auto: ["automatic", "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18"], light: ["light", "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2m0 16v2M2 12h2m16 0h2M5 5l1.4 1.4m11.2 11.2L19 19M5 19l1.4-1.4M17.6 6.4L19 5"], dark: ["dark", "M20 14.5A8 8 0 0 1 9.5 4a8 8 0 1 0 10.500 10.500z"] };
  function theme(name) {
    const [word, path] = THEMES[name];
    document.documentElement.dataset.theme = name;
    $("theme").setAttribute("aria-label", `Theme: ${word}`);
    fill($("theme"), make("svg:svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, make("svg:path", { d: path })));
    try { localStorage.setItem("llm-proxy-theme", name); } catch { /* a browser that keeps nothing */ }
  }
  function press(group, button) {
    for (const other of group.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
  }
  function pointAt(place) {
    state.at = state.summary && place !== null ? Math.max(0, Math.min(state.summary.slots.length - 1, place)) : null;
    drawChart();
  }
  $("ranges").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    press($("ranges"), button);
    state.range = button.dataset.range;
    state.at = null;
    listen();
  });
  $("scale").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    press($("scale"), button);
    state.scale = button.dataset.scale;
    drawChart();
  });
  $("theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    theme(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]);
  });
  $("pause").addEventListener("click", () => {
    state.paused = !state.paused;
    $("pause").setAttribute("aria-pressed", String(state.paused));
    $("pause").textContent = state.paused ? "Paused" : "Pause";
    if (!state.paused) drawCalls();
  });
  $("find").addEventListener("input", drawCalls);
  $("kind").addEventListener("change", drawCalls);
  $("chart").addEventListener("pointermove", (event) => {
    const box = $("chart").getBoundingClientRect(), slots = state.summary?.slots.length || 1;
    pointAt(event.clientX - box.left < 38 ? null : Math.floor(((event.clientX - box.left - 38) / (box.width - 38)) * slots));
  });
  $("chart").addEventListener("pointerleave", () => pointAt(null));
  $("chart").addEventListener("blur", () => pointAt(null));
  $("chart").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") pointAt(null);
    if (!step || !state.summary) return;
    event.preventDefault();
    pointAt(state.at === null ? (step > 0 ? 0 : state.summary.slots.length - 1) : state.at + step);
  });
  $("detail").addEventListener("close", () => { state.open = null; });
  $("detail").addEventListener("click", (event) => { if (event.target === $("detail")) $("detail").close(); });
  $("login").addEventListener("cancel", (event) => event.preventDefault());
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    state.key = $("key").value.trim();
    sessionStorage.setItem("llm-proxy-key", state.key);
    $("login").close();
    $("leave").hidden = false;
    listen();
  });
  $("leave").addEventListener("click", () => {
    state.abort?.abort();
    state.key = "";
    state.calls.clear();
    drawCalls();
    signIn();
  });
  new ResizeObserver(drawChart).observe($("chart"));
  let kept = "auto";
  try { kept = localStorage.getItem("llm-proxy-theme") || "auto"; } catch { /* a browser that keeps nothing */ }
  theme(THEMES[kept] ? kept : "auto");
  $("leave").hidden = !state.key;
  drawCalls();
  listen();
})();
