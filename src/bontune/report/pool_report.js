"use strict";
(() => {
  const PAGE = 50; // problems drawn at a time
  const SAMPLES = 12; // samples drawn at a time
  const CUT = 1200; // characters of a text shown at first
  const BATCH = 32; // problems unpacked at a time while searching
  const at = (id) => document.getElementById(id);
  const collator = new Intl.Collator(undefined, { numeric: true });

  function make(tag, properties = {}, ...children) {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  }

  // Control characters, those that turn the direction of text among them, shown by their number. Line feed and tab stay.
  const visible = (text) =>
    text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g,
      (c) => `⟦U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟧`);

  function textBlock(text) {
    const block = make("pre", { className: "text", tabIndex: 0 });
    block.textContent = visible(text.slice(0, CUT)) + (text.length > CUT ? "…" : "");
    if (text === "") block.textContent = "(empty)";
    if (text.length <= CUT) return [block];
    const button = make("button", { type: "button", className: "plain" }, `Show all ${text.length.toLocaleString("en")} characters`);
    button.addEventListener("click", () => {
      block.textContent = visible(text);
      block.focus();
      button.remove();
    });
    return [block, button];
  }

  // Tables that are there already: a button in each column header.
  const announce = (name, isUp) => { at("announce").textContent = `Sorted by ${name}, ${isUp ? "ascending" : "descending"}`; };

  function header(cell, name, sort) {
    const button = make("button", { type: "button" }, name);
    button.addEventListener("click", () => {
      const isUp = cell.getAttribute("aria-sort") !== "ascending";
      for (const other of cell.parentNode.children) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", isUp ? "ascending" : "descending");
      sort(isUp);
      announce(name, isUp);
    });
    cell.replaceChildren(button);
  }

  function valueOf(cell) {
    const text = cell.firstChild === null ? "" : cell.firstChild.textContent.trim();
    const number = Number(text.replace("−", "-").replace("+", ""));
    return text === "" || Number.isNaN(number) ? text : number;
  }

  // Numbers by size before texts by letters; what is missing comes last in either direction.
  function compare(a, b, isUp) {
    const isMissing = (value) => value === null || value === undefined || value === "" || value === "–";
    if (isMissing(a) || isMissing(b)) return Number(isMissing(a)) - Number(isMissing(b));
    const order = typeof a === "number" && typeof b === "number" ? a - b
      : typeof a === typeof b ? collator.compare(a, b) : typeof a === "number" ? -1 : 1;
    return isUp ? order : -order;
  }

  for (const table of document.querySelectorAll(".sortable table")) {
    [...table.tHead.rows[0].cells].forEach((cell, column) => header(cell, cell.textContent.trim(), (isUp) => {
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [valueOf(row.cells[column]), row]);
      rows.sort((a, b) => compare(a[0], b[0], isUp));
      body.append(...rows.map((row) => row[1]));
    }));
  }

  // The browser of problems.
  const indexes = [...document.querySelectorAll(".pool-index")].map((node) => JSON.parse(node.textContent));
  const packedNodes = [...document.querySelectorAll(".pool-packed")];
  const packed = packedNodes.map(() => null);
  let pool = 0, index = indexes[0], order = [], chosen = [], shown = 0, search = 0;
  let places = null; // of this pool's problems in the first pool, if they are the same problems
  const open = new Set();

  async function unpacked(place, of = pool) {
    if (typeof DecompressionStream === "undefined")
      throw new Error("This browser cannot unpack the samples: it has no DecompressionStream. Any browser of 2023 or later has.");
    packed[of] ??= JSON.parse(packedNodes[of].textContent);
    const bytes = Uint8Array.from(atob(packed[of][place]), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
  const earned = (value) => {
    if (!index.binary) return make("span", {}, value.toPrecision(3));
    if (value > 1 - 1e-9) return make("span", { className: "yes" }, "right");
    if (value < 1e-9) return make("span", { className: "no" }, "wrong");
    return make("span", { className: "unknown" }, `tie: ${percent(value)} right`);
  };

  const share = (of, p) => of.binary ? `${Math.round(of.right[p] * of.samples)} of ${of.samples}` : of.right[p].toPrecision(3);

  const columns = () => [
    { name: "Problem", of: (p) => index.id[p] },
    ...(index.level ? [{ name: "Level", of: (p) => index.level[p], show: (p) => index.level[p] ?? "–" }] : []),
    {
      name: index.binary ? "Right" : "Mean reward", of: (p) => index.right[p],
      show: (p) => share(index, p),
    },
    ...(places ? [{
      name: `${index.binary ? "Right" : "Mean reward"} in ${visible(indexes[0].name)}`,
      of: (p) => indexes[0].right[places[p]], show: (p) => share(indexes[0], places[p]),
    }] : []),
    ...(index.distinct ? [{ name: "Texts", of: (p) => index.distinct[p] }] : []),
    ...(index.pick ? [{ name: "Verifier's choice", of: (p) => index.pick[p], show: (p) => earned(index.pick[p]) }] : []),
    ...(index.vote ? [{ name: "Vote", of: (p) => index.vote[p], show: (p) => earned(index.vote[p]) }] : []),
    { name: "Prompt", of: (p) => index.head[p], className: "head" },
  ];

  const filters = () => {
    const best = (p) => index.most[p];
    const first = (p) => indexes[0].most[places[p]];
    const name = visible(indexes[0].name);
    const loses = (values) => (p) => values[p] < best(p) - 1e-9;
    return [
      ["all", "all problems", () => true],
      ...(index.binary ? [
        ["none", "solved by none", (p) => best(p) === 0],
        ["some", "solved by some", (p) => best(p) === 1 && index.right[p] < 1],
        ["every", "solved by all", (p) => index.right[p] === 1],
      ] : []),
      ...(places && index.binary && indexes[0].binary ? [
        ["gained", `solved here, not in ${name}`, (p) => best(p) === 1 && first(p) === 0],
        ["lost", `solved in ${name}, not here`, (p) => best(p) === 0 && first(p) === 1],
      ] : []),
      ...(index.pick ? [["pick", "verifier wrong, some right", loses(index.pick)]] : []),
      ...(index.vote ? [["vote", "vote wrong, some right", loses(index.vote)]] : []),
      ...(index.errors.some((count) => count > 0) ? [["errors", "not all could be graded", (p) => index.errors[p] > 0]] : []),
    ];
  };

  function fill(select, options, kept) {
    select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
    select.value = options.some(([value]) => value === kept) ? kept : options[0][0];
  }

  function sampleItem([text, count, reward, verdict, answer, high, low, reason, stop, tokens], isPicked) {
    const item = make("li");
    const facts = make("div", { className: "facts" });
    const add = (className, ...parts) => facts.append(make("span", { className }, ...parts));
    add("", make("strong", {}, `${count} ×`));
    const word = visible(verdict || (reward === null ? "not graded" : reward === 1 ? "right" : reward === 0 ? "wrong" : "graded"));
    add(reward === null ? "unknown" : reward === 1 ? "yes" : reward === 0 ? "no" : "", word);
    if (!index.binary && reward !== null) add("", `reward ${reward.toPrecision(4)}`);
    const number = (score) => typeof score === "number" ? Number(score.toPrecision(4)) : score;
    if (high !== null) add("", `score ${number(high) === number(low) ? number(high) : `${number(low)} to ${number(high)}`}`);
    const isProgram = answer.includes("\n"); // it stands in the completion
    if (answer && !isProgram) add("", `answer ${visible(answer.length > 200 ? `${answer.slice(0, 200)}…` : answer)}`);
    if (tokens) add("", `${tokens} tokens`);
    if (stop && stop !== "end" && stop !== "stop") add("", `stop: ${visible(stop)}`);
    if (isPicked) add("", make("strong", {}, "the verifier's choice"));
    if (reason) add("reason", visible(reason.slice(0, 500)));
    item.append(facts, ...textBlock(text));
    return item;
  }

  async function fillDetail(cell, place) {
    const of = pool;
    let detail;
    try {
      detail = await unpacked(place);
    } catch (error) {
      cell.replaceChildren(make("p", {}, error.message));
      return;
    }
    if (of !== pool) return;
    const list = make("dl");
    if (detail.prompt) list.append(make("dt", {}, "Prompt"), make("dd", {}, ...textBlock(detail.prompt)));
    if (detail.reference) list.append(make("dt", {}, "Reference"), make("dd", {}, ...textBlock(detail.reference)));
    const samples = make("ol");
    const more = make("button", { type: "button", className: "plain" });
    const best = index.pick ? detail.samples[0][5] : null;
    const draw = () => {
      const start = samples.children.length;
      const next = detail.samples.slice(start, start + (start ? Infinity : SAMPLES));
      samples.append(...next.map((sample) => sampleItem(sample, index.pick !== null && sample[5] === best)));
      const left = detail.samples.length - samples.children.length;
      more.hidden = left === 0;
      more.textContent = `Show ${left} more different samples`;
      if (start) samples.children[start].querySelector("pre").focus();
    };
    more.addEventListener("click", draw);
    draw();
    cell.replaceChildren(make("div", {}, list, samples, more));
  }

  function detailRow(place) {
    const cell = make("td", { className: "detail", colSpan: columns().length });
    cell.append(make("p", { className: "quiet" }, "Unpacking…"));
    fillDetail(cell, place);
    return make("tr", { id: `samples-${place}` }, cell);
  }

  function problemRow(place) {
    const opener = make("button", { type: "button", className: "opener" }, visible(index.id[place]));
    const row = make("tr");
    opener.setAttribute("aria-expanded", String(open.has(place)));
    opener.setAttribute("aria-controls", `samples-${place}`);
    opener.addEventListener("click", () => {
      const isOpen = open.delete(place);
      if (isOpen) row.nextSibling.remove();
      else {
        open.add(place);
        row.after(detailRow(place));
      }
      opener.setAttribute("aria-expanded", String(!isOpen));
    });
    for (const [i, column] of columns().entries()) {
      if (i === 0) {
        const cell = make("th", { className: "id" }, opener);
        cell.scope = "row";
        row.append(cell);
        continue;
      }
      const value = column.show ? column.show(place) : column.of(place);
      row.append(make("td", { className: column.className ?? "" }, value instanceof Node ? value : visible(String(value))));
    }
    return row;
  }

  function drawMore() {
    const rows = [];
    for (const place of chosen.slice(shown, shown + PAGE)) {
      rows.push(problemRow(place));
      if (open.has(place)) rows.push(detailRow(place));
    }
    at("list").tBodies[0].append(...rows);
    shown = Math.min(shown + PAGE, chosen.length);
    at("more").hidden = shown === chosen.length;
    at("more").textContent = `Show ${Math.min(PAGE, chosen.length - shown)} more of ${chosen.length - shown} problems`;
    return rows[0];
  }

  function draw(note = "") {
    at("list").tBodies[0].replaceChildren();
    shown = 0;
    drawMore();
    const cut = index.cut ? ` Texts are cut to ${index.cut.toLocaleString("en")} characters; whole ones are in the pool.` : "";
    at("status").textContent = `${chosen.length} of ${index.id.length} problems.${note}${cut}`;
  }

  async function choose() {
    const mine = ++search;
    const test = filters().find(([value]) => value === at("show").value)[2];
    const level = at("level").value;
    const wanted = at("search").value.trim().toLowerCase();
    const left = order.filter((p) => test(p) && (!index.level || level === "" || String(index.level[p]) === level));
    if (wanted === "" || !at("deep").checked) {
      chosen = left.filter((p) => index.id[p].toLowerCase().includes(wanted) || index.head[p].toLowerCase().includes(wanted));
      draw();
      return;
    }
    const found = [];
    for (let start = 0; start < left.length; start += BATCH) {
      at("status").textContent = `Searching: ${start} of ${left.length} problems…`;
      const batch = left.slice(start, start + BATCH);
      let details;
      try {
        details = await Promise.all(batch.map((p) => unpacked(p)));
      } catch (error) {
        at("status").textContent = error.message;
        return;
      }
      if (mine !== search) return; // something else was asked for meanwhile
      details.forEach((detail, i) => {
        const texts = [index.id[batch[i]], detail.prompt, detail.reference, ...detail.samples.map((sample) => sample[0])];
        if (texts.some((text) => text.toLowerCase().includes(wanted))) found.push(batch[i]);
      });
    }
    chosen = found;
    draw();
  }

  function setPool(place) {
    pool = place;
    index = indexes[place];
    open.clear();
    order = index.id.map((_, p) => p);
    const known = new Map(indexes[0].id.map((id, p) => [id, p]));
    places = place > 0 && index.id.every((id) => known.has(id)) ? index.id.map((id) => known.get(id)) : null;
    fill(at("show"), filters(), at("show").value);
    const levels = [...new Set(index.level ?? [])].filter((level) => level !== null).sort((a, b) => collator.compare(a, b));
    fill(at("level"), [["", "all"], ...levels.map((level) => [String(level), visible(String(level))])], at("level").value);
    at("level-label").hidden = levels.length < 2;
    at("list-caption").textContent = `Problems of ${visible(index.name)}; open one to see its samples`;
    const cells = columns().map((column) => {
      const cell = make("th");
      cell.scope = "col";
      header(cell, column.name, (isUp) => {
        order.sort((a, b) => compare(column.of(a), column.of(b), isUp));
        choose();
      });
      return cell;
    });
    at("list").tHead.rows[0].replaceChildren(...cells);
    choose();
  }

  fill(at("pool"), indexes.map((each, i) => [String(i), visible(each.name)]), "0");
  at("pool-label").hidden = indexes.length < 2;
  at("pool").addEventListener("change", () => setPool(Number(at("pool").value)));
  for (const id of ["show", "level", "deep"]) at(id).addEventListener("change", choose);
  let waiting = 0;
  at("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(choose, 150);
  });
  at("more").addEventListener("click", () => drawMore().querySelector("button").focus());
  setPool(0);
  at("browser").hidden = false;
  document.documentElement.dataset.readyMs = performance.now().toFixed(0); // when the page could be used
})();
