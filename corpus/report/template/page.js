"use strict";
// The switches and the document browser. Texts of documents reach the page by textContent alone.
(() => {
  const root = document.documentElement;
  const { documents, reasons } = JSON.parse(document.getElementById("documents-data").textContent);
  const PER_PAGE = 20;
  let shown = PER_PAGE;

  // ---- language and theme -------------------------------------------------------------------------------------------

  const remember = (name, value) => { try { localStorage.setItem(`corpus-report-${name}`, value); } catch { /* no store */ } };
  const remembered = (name) => { try { return localStorage.getItem(`corpus-report-${name}`); } catch { return null; } };

  function choose(name, value) {
    root.dataset[name] = value;
    if (name === "language") {
      root.lang = value === "zh" ? "zh-Hans" : "en";
      for (const element of document.querySelectorAll("[data-en]")) {
        const text = element.dataset[value];
        if (element.tagName === "INPUT") element.placeholder = text; else element.textContent = text;
      }
    }
    for (const button of document.querySelectorAll(`button[data-name="${name}"]`)) {
      button.setAttribute("aria-pressed", String(button.value === value));
    }
  }

  // ---- building elements --------------------------------------------------------------------------------------------

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return element;
  }

  function say(en, zh) {
    const fragment = document.createDocumentFragment();
    for (const [language, text] of [["en", en], ["zh", zh]]) {
      const span = make("span", language, text);
      span.lang = language === "zh" ? "zh-Hans" : "en";
      fragment.append(span);
    }
    return fragment;
  }

  function marked(text, query) {
    const fragment = document.createDocumentFragment();
    const lower = text.toLowerCase();
    let from = 0;
    // Lower case may have another length than the text, in a few scripts: then nothing is marked.
    for (let at = query && lower.length === text.length ? lower.indexOf(query) : -1; at >= 0; at = lower.indexOf(query, from)) {
      fragment.append(text.slice(from, at), make("mark", "", text.slice(at, at + query.length)));
      from = at + query.length;
    }
    fragment.append(text.slice(from));
    return fragment;
  }

  function textBox(excerpt, lang, query) {
    const box = make("div", "text", marked(excerpt.text, query));
    box.dir = "auto";
    if (lang) box.lang = lang;
    if (excerpt.cut) {
      const number = excerpt.cut.toLocaleString("en");
      box.append(make("span", "quiet", say(` … ${number} more characters`, ` …… 还有 ${number} 个字符`)));
    }
    return box;
  }

  const figure = (value) => Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 6 });
  const signed = (value) => (value > 0 ? "+" : "") + (Math.abs(value) < 1 ? value.toPrecision(2) : value.toFixed(1));

  function failureLine(failure) {
    const reason = reasons[failure.reason];
    const line = make("p", "meta", make("code", "fail", failure.reason));
    if (failure.value !== null) line.append(` = ${figure(failure.value)}`);
    if (failure.margin !== null) line.append(say(` (margin ${signed(failure.margin)})`, `（距阈值 ${signed(failure.margin)}）`));
    line.append(": ", say(reason.en, reason.zh));
    return line;
  }

  function cleaningBox(stretches) {
    const box = make("div", "text lines");
    box.dir = "auto";
    for (const { kind, lines, skipped } of stretches) {
      const half = kind === "same" || !skipped ? 2 : Math.ceil(lines.length / 2);
      lines.forEach((line, number) => {
        if (skipped && number === half) box.append(leftOut(kind, skipped));
        box.append(make("div", `line ${kind}`, line));
      });
      if (skipped && lines.length <= half) box.append(leftOut(kind, skipped));
    }
    return box;
  }

  const leftOut = (kind, number) => make("div", `line left-out ${kind}`, say(`… ${number} more lines`, `…… 还有 ${number} 行`));

  function card(one, query) {
    const article = make("article", one.kept ? "was-kept" : "was-dropped");
    const heading = make("h4", "", one.title || one.url ? marked(one.title || one.url, query) : say("Without title", "无标题"));
    heading.dir = "auto";
    const state = one.kept ? say("kept", "保留") : say(`dropped by ${one.stage}`, `被 ${one.stage} 丢弃`);
    const about = make("p", "meta", make("b", "fail", state));
    for (const fact of [one.lang, one.source, one.url && one.title ? one.url : null]) if (fact) about.append(" · ", marked(fact, query));
    about.append(" · ", make("code", "", one.id));
    article.append(heading, about);
    for (const failure of one.failures) article.append(failureLine(failure));
    if (one.detail) article.append(make("p", "meta", marked(one.detail, query)));
    if (one.kept && one.distance !== null) {
      const away = one.distance.toFixed(2);
      article.append(make("p", "meta", say(`nearest bound: ${one.nearest}, ${away} robust spreads away`, `最近的阈值：${one.nearest}，相距 ${away} 个稳健离散度`)));
    }
    if (one.other) {
      const similarity = one.similarity === null ? null : one.similarity.toFixed(2);
      const relation = similarity === null ? say("made from", "由此生成") : say(`kept instead, similarity ${similarity}`, `保留的是这篇，相似度 ${similarity}`);
      const other = make("h5", "", relation);
      if (one.other.title) other.append(": ", one.other.title);
      article.append(make("div", "sides",
        make("div", "", make("h5", "", say("this document", "本文档")), textBox(one.excerpt, one.lang, query)),
        make("div", "", other, textBox(one.other, one.lang, query))));
    } else if (one.excerpt.text) {
      article.append(textBox(one.excerpt, one.lang, query));
    } else {
      article.append(make("p", "note", say("There is no text to show.", "没有可显示的文本。")));
    }
    if (one.cleaning.length) {
      article.append(make("details", "", make("summary", "", say("before and after cleaning", "清洗前后")), cleaningBox(one.cleaning)));
    }
    return article;
  }

  // ---- the browser --------------------------------------------------------------------------------------------------

  const list = document.getElementById("document-list");
  const field = (name) => document.getElementById(`choose-${name}`);
  const haystacks = new Map();

  function haystack(one) {
    if (!haystacks.has(one)) {
      const texts = [one.id, one.title, one.url, one.source, one.detail, one.excerpt.text, one.other && one.other.title, one.other && one.other.text];
      haystacks.set(one, texts.filter(Boolean).join("\n").toLowerCase());
    }
    return haystacks.get(one);
  }

  const far = (one) => (one.distance === null ? Infinity : one.distance);
  const orders = {
    chance: (a, b) => a.chance - b.chance,
    near: (a, b) => far(a) - far(b) || a.chance - b.chance,
    far: (a, b) => (b.distance ?? -1) - (a.distance ?? -1) || a.chance - b.chance,
    long: (a, b) => b.excerpt.text.length + b.excerpt.cut - a.excerpt.text.length - a.excerpt.cut,
    short: (a, b) => a.excerpt.text.length + a.excerpt.cut - b.excerpt.text.length - b.excerpt.cut,
  };

  function wanted() {
    const query = field("words").value.trim().toLowerCase();
    const chosen = Object.fromEntries(["state", "reason", "lang", "source"].map((name) => [name, field(name).value]));
    const found = documents.filter((one) =>
      (!chosen.state || one.kept === (chosen.state === "kept")) &&
      (!chosen.reason || one.failures.some((failure) => failure.reason === chosen.reason)) &&
      (!chosen.lang || one.lang === chosen.lang) &&
      (!chosen.source || one.source === chosen.source) &&
      (!query || haystack(one).includes(query)));
    return [found.sort(orders[field("order").value]), query];
  }

  function draw() {
    const [found, query] = wanted();
    list.replaceChildren(...found.slice(0, shown).map((one) => card(one, query)));
    const number = found.length.toLocaleString("en");
    document.getElementById("document-count").replaceChildren(say(`${number} documents`, `${number} 篇`));
    document.getElementById("more-documents").hidden = found.length <= shown;
  }

  function again() {
    shown = PER_PAGE;
    draw();
  }

  for (const name of ["state", "reason", "lang", "source", "order"]) field(name).addEventListener("change", again);
  field("words").addEventListener("input", again);
  document.getElementById("more-documents").addEventListener("click", () => { shown += PER_PAGE; draw(); });
  for (const link of document.querySelectorAll("a[data-reason], a[data-source]")) {
    link.addEventListener("click", () => {
      for (const name of ["words", "state", "reason", "lang", "source"]) field(name).value = "";
      if (link.dataset.reason) field("reason").value = link.dataset.reason;
      if (link.dataset.source) field("source").value = link.dataset.source;
      field("order").value = link.dataset.order || "chance";
      again();
    });
  }
  for (const button of document.querySelectorAll("button[data-name]")) {
    button.addEventListener("click", () => {
      const value = button.getAttribute("aria-pressed") === "true" && button.dataset.name === "theme" ? "" : button.value;
      choose(button.dataset.name, value);
      remember(button.dataset.name, value);
    });
  }
  choose("language", remembered("language") || (navigator.language.startsWith("zh") ? "zh" : "en"));
  choose("theme", remembered("theme") || "");
  draw();
})();
